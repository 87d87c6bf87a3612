"""What is frozen stays: weights in every member of an ensemble, statistics of normalisation that keeps still."""

import pytest
import torch
from torch import nn

import posterity
from posterity import (
    IVON,
    MAP,
    MLE,
    SGHMC,
    SWAG,
    Engine,
    Ensemble,
    Laplace,
    LowRank,
    MCDropout,
    MeanField,
    Problem,
    Refine,
)
from posterity.errors import PosterityWarning
from posterity.methods.ensemble import reinitialise

QUIET = Engine(progress=False, device="cpu")
METHODS = {
    "map": MAP(epochs=2),
    "mean_field": MeanField(epochs=2),
    "low_rank": LowRank(epochs=2),
    "ivon": IVON(epochs=2),
    "swag": SWAG(epochs=4),
    "sghmc": SGHMC(epochs=4, draws=2),
    "mc_dropout": MCDropout(rate=0.1, epochs=2),
    "laplace": Laplace(MAP(epochs=2)),
    "refine": Refine(MeanField(epochs=1), after=MAP(epochs=1)),
    "ensemble": Ensemble(MeanField(epochs=1), 2),
}


def examples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=generator)
    return x, (x[:, 0] > 0).long()


def pretrained(training):
    """A backbone whose statistics are those of other data, and a head."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
    )
    for _ in range(20):
        network(torch.randn(30, 2))
    return network.train(training)


def components(posterior):
    return getattr(posterior, "components", (posterior,))


def same_buffers(posterior, network, prefix):
    expected = {n: b for n, b in network.named_buffers() if n.startswith(prefix)}
    return all(
        torch.equal(b, expected[n])
        for part in components(posterior)
        for n, b in part.problem.network.named_buffers()
        if n in expected
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_frozen_normalisation_keeps_its_statistics(name, training):
    network, (x, y) = pretrained(training), examples()
    network[:2].requires_grad_(False)
    posterior = posterity.fit(network, (x + 3, y), method=METHODS[name], engine=QUIET)
    assert same_buffers(posterior, network, "1.")
    if name not in ("laplace",):
        assert not same_buffers(posterior, network, "4.")  # the other one is trained on the new data
    for part in components(posterior):
        assert torch.equal(part.network()[0].weight, network[0].weight)


@pytest.mark.parametrize("name", METHODS)
def test_normalisation_that_stands_in_eval_mode_keeps_its_statistics(name):
    network, (x, y) = pretrained(True), examples()
    network[1].eval()
    posterior = posterity.fit(network, (x + 3, y), method=METHODS[name], engine=QUIET)
    assert same_buffers(posterior, network, "1.")


class Mine(nn.Module):
    """Weights that no module draws anew."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(16, 2))
        self.second = nn.Parameter(torch.randn(2, 16) * 0.3)

    def forward(self, x):
        return torch.relu(x @ self.first.T) @ self.second.T


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        tokens = x[:, None, :].repeat(1, 3, 2)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


NETWORKS = {
    "raw parameters": Mine,
    "attention": Attentive,
    "parametrised": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 8)), nn.ReLU(), nn.Linear(8, 2)
    ),
    "recurrent": lambda: Recurrent(),
    "plain": lambda: nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.Linear(8, 2)),
}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.cell(x[:, None])[0][:, -1])


@pytest.mark.parametrize("name", NETWORKS)
def test_members_start_from_other_weights_each(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    problem = Problem(network, posterity.Normal(0, 1), posterity.Categorical(), 10)
    starts = []
    for seed in (1, 2):
        member = problem.snapshot()
        assert reinitialise(member, seed) == ()
        starts.append({n: p.detach() for n, p in member.network.named_parameters()})
    for key, start in starts[0].items():
        alike = torch.equal(start, starts[1][key])
        constant = start.numel() > 1 and bool((start == start.flatten()[0]).all())  # what modules start at 0 or 1
        assert not alike or constant, key


def test_a_redrawn_parameter_has_the_moments_of_the_old_one():
    module = nn.Module()
    module.big = nn.Parameter(5 + 0.1 * torch.randn(10_000))
    reinitialise(Problem(module, posterity.Normal(0, 1), posterity.Categorical(), 1), 0)
    assert abs(module.big.mean() - 5) < 4 * 0.1 * (2 / 10_000) ** 0.5
    assert abs(module.big.std() - 0.1) < 4 * 0.1 / 10_000**0.5


def test_what_stays_alike_is_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.head = nn.Parameter(torch.full((2,), 0.1)), nn.Linear(2, 2)

        def forward(self, x):
            return self.head(x * self.scale)

    with pytest.warns(PosterityWarning, match="All members start with the same scale"):
        posterior = posterity.fit(Scaled(), examples(), method=Ensemble(MLE(epochs=1), 3), engine=QUIET)
    heads = [part.network().head.weight for part in posterior.components]
    assert not torch.equal(heads[0], heads[1])


@pytest.mark.parametrize("freeze", ["weight", "bias", "weight bias"])
def test_single_frozen_parameters_are_the_same_bits_in_every_member(freeze):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    for name in freeze.split():
        getattr(network[0], name).requires_grad_(False)
    posterior = posterity.fit(network, examples(), method=Ensemble(MLE(epochs=1), 2), engine=QUIET)
    for name in ("weight", "bias"):
        kept = [
            torch.equal(getattr(part.network()[0], name), getattr(network[0], name)) for part in posterior.components
        ]
        assert kept == [name in freeze.split()] * 2
