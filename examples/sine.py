"""A regression in one page: what is noise, what is ignorance, and a figure of both.

python examples/sine.py docs/figures/sine.svg
"""

import sys

import torch
from torch import nn

import posterity
from posterity import Engine, Gaussian, MeanField, Normal, Optimizer, TensorData
from posterity.report.figures_regression import Bands, plot_fit

generator = torch.Generator().manual_seed(0)
x = torch.cat([torch.rand(60, 1, generator=generator) * 2 - 3, torch.rand(60, 1, generator=generator) * 2 + 0.5])
y = (torch.sin(2 * x) + 0.15 * torch.randn(x.shape, generator=generator)).squeeze(1)

torch.manual_seed(0)
network = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))
posterior = posterity.fit(
    network,
    TensorData(x, y, batch_size=60),
    likelihood=Gaussian(),  # the noise level is learnt, with a posterior of its own
    prior=Normal(0, {"0.*": 3.0, "2.*": 1.0}),
    method=MeanField("local_reparam", epochs=3000, draws=2, optimizer=Optimizer(lr=1e-2, schedule="one_cycle")),
    engine=Engine(progress=sys.stderr.isatty()),
)

grid = torch.linspace(-3.3, 2.9, 300)[:, None]
predicted = posterior.predict(grid, 200, generator=torch.Generator().manual_seed(1))
seen, unseen = posterior.predict(x, 200), posterior.predict(torch.tensor([[-0.3]]), 200)
print(f"noise std {seen.aleatoric.mean().sqrt():.3f} (true 0.150)")
print(
    f"epistemic std {seen.epistemic.mean().sqrt():.3f} among the data, {unseen.epistemic.sqrt().item():.3f} in the gap"
)

figure = plot_fit(grid.squeeze(1), Bands.of(predicted), torch.sin(2 * grid).squeeze(1))
axis = figure.axes[0]
axis.lines[-1].set(marker="", linestyle="--", label="truth")
axis.plot(x, y, "o", color="black", markersize=2.5, label="training data")
axis.set_ylim(-2.5, 2.5)
axis.legend(loc="upper right", fontsize=8)
if len(sys.argv) > 1:
    figure.savefig(sys.argv[1])
