"""Law 16 over every way to cut data: the posterior of the N data that are seen, whatever the batches are.

y ~ N(θ, 1), θ ~ N(0, 1): mean Σy/(N + 1), variance 1/(N + 1). The last of 60 data is an outlier, so that a batch of the wrong
weight moves the mean by stds; where an epoch leaves data out, all are alike.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, SubsetRandomSampler, TensorDataset

import posterity
from posterity import (
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SGLD,
    Engine,
    Ensemble,
    FullRank,
    Gaussian,
    Laplace,
    LowRank,
    MeanField,
    Normal,
    Optimizer,
    Refine,
    TensorData,
)
from posterity.optim import IVON as DropIn

N = 60
X, Y = torch.ones(N, 1), torch.cat([torch.full((N - 1,), 0.5), torch.tensor([6.0])])
ALIKE = torch.full((N,), 0.5)
PAIRS = TensorDataset(X, Y)


class Cut(Sampler[list[int]]):
    """Buckets of these sizes, one after the other."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def __iter__(self) -> Iterator[list[int]]:
        return iter([part.tolist() for part in torch.arange(N).split(self.sizes)])


class Whole(Dataset[tuple[Tensor, Tensor]]):
    """A data set whose items are batches."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        part = [slice(0, 25), slice(25, 59), slice(59, 60)][index]
        return X[part], Y[part]


WAYS: dict[str, tuple[Callable[[], Any], Tensor]] = {  # the data, and the targets that are seen
    "default order": (lambda: DataLoader(PAIRS, 59), Y),
    "shuffled": (lambda: DataLoader(PAIRS, 16, shuffle=True), Y),
    "tensors": (lambda: TensorData(X, Y, 25), Y),
    "buckets": (lambda: DataLoader(PAIRS, batch_sampler=Cut([7, 30, 22, 1])), Y),
    "drop_last": (lambda: DataLoader(TensorDataset(X, ALIKE), 16, shuffle=True, drop_last=True), ALIKE[:48]),
    "subset": (lambda: DataLoader(Subset(PAIRS, range(40, N)), 15), Y[40:]),
    "subset sampler": (lambda: DataLoader(PAIRS, 6, sampler=SubsetRandomSampler(range(50, N))), Y[50:]),
    "whole batches": (lambda: DataLoader(Whole(), None), Y),
}
FAST = Optimizer(lr=0.03, schedule="cosine")
METHODS: dict[str, Callable[[int], Any]] = {  # of the number of epochs
    "map": lambda n: MAP(epochs=n, optimizer=FAST),
    "mean_field": lambda n: MeanField(epochs=n, optimizer=FAST, draws=2, antithetic=True),
    "local_reparam": lambda n: MeanField("local_reparam", epochs=n, optimizer=FAST, draws=2),
    "flipout": lambda n: MeanField("flipout", epochs=n, optimizer=FAST, draws=2),
    "low_rank": lambda n: LowRank(1, epochs=n, optimizer=FAST, draws=2, antithetic=True),
    "full_rank": lambda n: FullRank(epochs=n, optimizer=FAST, draws=2, antithetic=True),
    "ivon": lambda n: IVON(epochs=n, hessian_momentum=0.995, draws=2),
    "sgld": lambda n: SGLD(epochs=4 * n, draws=n, lr=0.12),
    "sghmc": lambda n: SGHMC(epochs=4 * n, draws=n, lr=0.04, friction=0.3),
    "laplace": lambda n: Laplace(MAP(epochs=n, optimizer=FAST), "full", prediction="sampled"),
    "nuts": lambda n: NUTS(chains=2, warmup=100, draws=300),
    "refine": lambda n: Refine(MeanField(epochs=n, optimizer=FAST, draws=2, antithetic=True), after=MAP(epochs=20)),
    "ensemble": lambda n: Ensemble(MeanField(epochs=n, optimizer=FAST, draws=2, antithetic=True), 2),
}
QUICK = {("map", way): 80 for way in WAYS}  # epochs; points need fewer
QUICK |= {("local_reparam", "buckets"): 200, ("laplace", "subset sampler"): 80}


def moments(method: Any, data: Any) -> tuple[float, float, int]:
    torch.manual_seed(0)
    posterior = posterity.fit(
        nn.Linear(1, 1, bias=False),
        data,
        likelihood=Gaussian(std=1.0),
        prior=Normal(0, 1),
        method=method,
        engine=Engine(progress=False, device="cpu"),
    )
    thetas = posterior.draw(X[:1], 2000, generator=torch.Generator().manual_seed(0)).flatten()
    return thetas.mean().item(), thetas.std().item(), posterior.problem.num_data


@pytest.mark.parametrize(
    ("name", "way", "epochs"),
    [
        pytest.param(name, way, QUICK[name, way])
        if (name, way) in QUICK
        else pytest.param(name, way, 600, marks=pytest.mark.slow)
        for name in METHODS
        for way in WAYS
    ],
)
@pytest.mark.filterwarnings("ignore:All 2 members")  # data that are all alike leave one optimum
def test_the_posterior_is_that_of_the_data_that_are_seen(name: str, way: str, epochs: int) -> None:
    make, seen = WAYS[way]
    mean, std, num_data = moments(METHODS[name](epochs), make())
    exact, width = float(seen.sum()) / (len(seen) + 1), (len(seen) + 1) ** -0.5
    assert num_data == len(seen)
    assert abs(mean - exact) < 0.35 * width  # the outlier in a batch of the wrong weight is at least 5 of these
    if name != "map":
        assert std == pytest.approx(width, rel=0.2)


@pytest.mark.parametrize("sizes", [[30, 30], [59, 1], [10, 45, 5]])
def test_batches_that_are_accumulated_are_one(sizes: list[int]) -> None:
    """In a loop of one's own: gradients of parts of an epoch, summed, then a step of the drop-in IVON."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = DropIn([weight], num_data=N, lr=0.1, prior_std=1.0, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(0)
    path = []
    for _ in range(800):
        with optimizer.sampled(generator):
            for part in Y.split(sizes):
                (0.5 * (weight - part).square().sum() / N).backward()
        optimizer.step()
        path.append(weight.item())
    mean = sum(path[200:]) / 600
    assert abs(mean - float(Y.sum()) / (N + 1)) < 0.3 * (N + 1) ** -0.5
    assert optimizer.std(weight).item() == pytest.approx((N + 1) ** -0.5, rel=0.2)
