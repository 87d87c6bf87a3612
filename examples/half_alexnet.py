"""A Bayesian AlexNet loses half of its filters, and is fitted on: a posterior of a network of a quarter of the weights.

The filters that go are those whose weights say least: the smallest norm of |μ|/σ. Synthetic images of 4 classes stand for
CIFAR-10, so that it runs in a minute: each class is a frequency of stripes. The temperature is 0.1: 2,000 images say little of
two million weights.

python examples/half_alexnet.py
"""

import sys

import torch

import posterity
from posterity import Engine, MeanField, Normal, Optimizer, TensorData
from posterity.compress import prune_units, refit, smaller
from posterity.zoo import AlexNet

generator = torch.Generator().manual_seed(0)


def stripes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images (count, 3, 32, 32) with stripes of 2, 4, 6 or 8 periods at any phase, under noise, and the classes."""
    labels = torch.randint(4, (count,), generator=generator)
    phase = 6.3 * torch.rand(count, 1, 1, 1, generator=generator)
    wave = torch.sin(torch.linspace(0, 6.3, 32) * 2 * (labels + 1)[:, None, None, None] + phase)
    return wave.expand(count, 3, 32, 32) + torch.randn(count, 3, 32, 32, generator=generator), labels


def told(name: str, posterior: posterity.posteriors.gaussian.DiagonalGaussian) -> None:
    scores = posterior.predict(test[0], 16, generator=torch.Generator().manual_seed(0)).scores(test[1])
    filters = [len(m.weight) for m in posterior.problem.network.children() if isinstance(m, torch.nn.Conv2d)]
    told = f"accuracy {scores['accuracy']:.3f}, NLL {scores['nll']:.3f}"
    print(f"{name:20} {len(posterior.mean):>9,} weights, filters {filters}, {told}")


train, test = TensorData(*stripes(2000), batch_size=50), stripes(500)
engine = Engine(seed=0, progress=sys.stderr.isatty())
torch.manual_seed(0)
method = MeanField(epochs=8, temperature=0.1, optimizer=Optimizer(lr=1e-3), initial_std=0.005)
whole = posterity.fit(AlexNet(num_classes=4), train, prior=Normal(0, 0.1), method=method, engine=engine)
told("whole", whole)

half = smaller(prune_units(whole, test[0], 0.5), test[0])
told("half of the filters", half)

again = refit(half, train, MeanField(epochs=2, temperature=0.1, optimizer=Optimizer(lr=1e-3)), engine)
told("fitted on", again)
