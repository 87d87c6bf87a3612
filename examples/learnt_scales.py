"""A prior whose scales are inferred with the weights: what each layer's became, and a figure of it.

python examples/learnt_scales.py docs/figures/scales.svg
"""

import sys

import torch

import posterity
from posterity import (
    Categorical,
    Engine,
    HalfNormal,
    Hierarchical,
    MeanField,
    Normal,
    Problem,
    TensorData,
    prior_predictive,
)
from posterity.data import load
from posterity.metrics.prior import prior_scores
from posterity.report import LearntLatent
from posterity.report.figures_latents import plot_latents
from posterity.zoo import NetworkSpec

dataset = load("digits").standardised()
data = TensorData(dataset.train_inputs, dataset.train_targets, batch_size=64)
torch.manual_seed(0)
network = NetworkSpec("mlp:50-50", dataset.input_shape, dataset.num_classes).build()
hierarchical = Hierarchical(scale=HalfNormal(0.5), per="layer")

for prior in (Normal(0, 1), Normal(0, 0.3), Normal(0, 0.1), hierarchical):
    problem = Problem(network, prior, Categorical(), data.num_data)
    seen = prior_predictive(problem, dataset.train_inputs[:500], 100, generator=torch.Generator().manual_seed(0))
    print(f"before any data, {prior}: largest probability {prior_scores(seen)['max_probability']:.3f}")

posterior = posterity.fit(
    network,
    data,
    likelihood=Categorical(),
    prior=hierarchical,
    method=MeanField(epochs=300),
    engine=Engine(progress=sys.stderr.isatty()),
)
scores = posterior.predict(dataset.test_inputs, 64, generator=torch.Generator().manual_seed(1)).scores(
    dataset.test_targets
)
print(f"accuracy {scores['accuracy']:.3f}, NLL {scores['nll']:.3f}")

latents = posterior.latents
for name, latent in latents.items():
    low, high = latent.interval(0.9)
    print(f"{name}: {latent.mean:.3f}, 90 % in [{low:.3f}, {high:.3f}]")

learnt = {n: LearntLatent(v.draws, posterior.problem.coordinates.latents[n]) for n, v in latents.items()}
if len(sys.argv) > 1:
    plot_latents({n.removeprefix("prior.scale."): v for n, v in learnt.items()}, "prior.scale").savefig(sys.argv[1])
