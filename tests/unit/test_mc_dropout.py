"""Monte Carlo dropout against exact moments, a ridge regression, torch's own layers; coherence, files, refusals."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional

import posterity
from posterity import (
    Categorical,
    Engine,
    Flat,
    Gaussian,
    InvalidInput,
    MCDropout,
    Normal,
    Optimizer,
    Problem,
    TensorData,
)
from posterity.model.dropout import dropout_rates
from posterity.posteriors.dropout import Dropout
from tests.conformance.table import Conjugate, small_classification, small_network

QUIET = {"progress": False, "device": "cpu"}
CPU = torch.device("cpu")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dropout(network: nn.Module, rate: float | None = None, likelihood=None) -> Dropout:
    problem = Problem(network.eval(), Normal(0, 1), likelihood or Gaussian(std=1.0), 10)
    return Dropout(problem, problem.theta(), dropout_rates(problem, rate))


def test_moments_of_a_linear_layer_are_exact() -> None:
    """y = Σ w_i x_i z_i/(1 − r) + b: mean w·x + b, variance r/(1 − r) Σ (w_i x_i)²."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 1)).double()
    x, n = torch.randn(4, 6, dtype=torch.float64), 3000
    drawn = dropout(network).draw(x, n, generator=seeded()).squeeze(-1)
    parts = x * network[1].weight.detach()
    mean, variance = parts.sum(1) + network[1].bias.detach(), 0.3 / 0.7 * parts.square().sum(1)
    assert ((drawn.mean(0) - mean).abs() < 4 * (variance / n).sqrt()).all()
    # Standard error of a sample variance, by the draws' own fourth moment.
    error = ((drawn - mean).square().var(0) / n).sqrt()
    assert ((drawn.var(0) - variance).abs() < 4 * error).all()
    assert (error < 0.05 * variance).all()


def test_the_rate_is_the_share_of_what_is_dropped_and_inputs_of_a_draw_share_it() -> None:
    network = nn.Sequential(nn.Dropout(0.2), nn.Identity(), nn.Linear(50, 50, bias=False))
    network[2].weight.data = torch.eye(50)
    drawn = dropout(network).draw(torch.ones(3, 50), 400, generator=seeded())
    assert set(drawn.unique().tolist()) == {0.0, 1.25}
    assert torch.equal(drawn[:, 0], drawn[:, 2])
    low, high = binom.interval(1 - 6e-5, 400 * 50, 0.2)
    assert low <= int((drawn[:, 0] == 0).sum()) <= high
    counts = (drawn[:, 0] == 0).sum(1).double()  # draws are independent: their counts have a binomial's variance
    assert abs(counts.var() / (50 * 0.2 * 0.8) - 1) < 4 * (2 / 399) ** 0.5


def test_training_finds_the_ridge_regression_that_dropout_is() -> None:
    """E_z|y − (x∘z/(1−r))·w − b|² = |y − x·w − b|² + r/(1−r) Σ_i w_i² Σ_n x_ni² (Wager et al. 2013), and a penalty."""
    case, rate = Conjugate.make(), 0.3
    data = TensorData(case.x.repeat(50, 1), case.y.repeat(50), 1200)
    found = []
    for seed in range(4):
        torch.manual_seed(seed)
        posterior = posterity.fit(
            nn.Sequential(nn.Dropout(rate), nn.Linear(2, 1)).double(),
            data,
            likelihood=Gaussian(std=case.noise),
            prior=Normal(0, 0.7 / 50**0.5),  # as strong beside 50 copies as 0.7 is beside one
            method=MCDropout(epochs=400, optimizer=Optimizer(lr=0.05)),
            engine=Engine(seed=seed, **QUIET),
        )
        found.append(posterior.mean)
    gram = case.design.T @ case.design
    spread = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64) * gram.diagonal() * rate / (1 - rate))
    decay = torch.eye(3, dtype=torch.float64) * (case.noise / 0.7) ** 2
    exact = torch.linalg.solve(gram + spread + decay, case.design.T @ case.y)
    means = torch.stack(found)
    error = means.std(0) / len(found) ** 0.5
    assert ((means.mean(0) - exact).abs() < 4 * error + 1e-4).all()
    plain = torch.linalg.solve(gram + decay, case.design.T @ case.y)
    assert ((exact - plain).abs()[:2] > 8 * error[:2]).all()  # the test tells dropout from none


def test_inserted_dropout_is_a_draw_of_weights() -> None:
    """Masks on a convolution's channels and a linear layer's features, the same at each place, are W·diag(z)/(1 − r)."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 2, 3), nn.Flatten(2), nn.Linear(4, 3)).double()
    posterior = dropout(network, 0.4, Categorical())
    assert posterior.rates == {"1": 0.4, "3": 0.4}
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    drawn = posterior.draw(x, 60, generator=seeded())
    hidden = network[0](x)
    possible = []
    for bits in product([0.0, 1.0], repeat=10):
        z = torch.tensor(bits, dtype=torch.float64) / 0.6
        maps = functional.conv2d(hidden, network[1].weight * z[:6, None, None], network[1].bias).flatten(2)
        possible.append(functional.linear(maps, network[3].weight * z[6:], network[3].bias).flatten())
    distances = (drawn.flatten(1)[:, None] - torch.stack(possible).detach()).abs().amax(-1)
    assert distances.min(1).values.max() < 1e-10
    assert len(distances.argmin(1).unique()) > 30


class Reused(nn.Module):
    """One dropout layer that is called twice, on values of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(3, 8), nn.Linear(8, 8), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.second(self.drop(self.first(x).relu())))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    return nn.Sequential(nn.Linear(3, 8), layer, nn.Flatten(), nn.Linear(40, 2))


@pytest.mark.parametrize(("make", "shape"), [(Reused, (23, 3)), (transformer, (23, 5, 3))])
def test_draws_are_functions_whatever_the_chunks(make, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    posterior, x = dropout(make(), likelihood=Categorical()), torch.randn(shape)
    whole = posterior.draw(x, 5, generator=seeded(3))
    parts = torch.cat([posterior.draw(part, 5, generator=seeded(3)) for part in x.split(9)], 1)
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(whole, posterior.draw(x, 5, generator=seeded(3), max_bytes=2000))
    assert (whole[0] - whole[1]).abs().max() > 1e-2
    assert not torch.equal(whole, posterior.draw(x, 5, generator=seeded(4)))


def test_batch_normalisation_is_in_eval_mode_and_nothing_is_left_behind() -> None:
    x, y = small_classification()
    user = small_network().train()
    method = MCDropout(0.2, epochs=2)
    posterior = posterity.fit(user, TensorData(x, y, 20), method=method, engine=Engine(**QUIET))
    assert posterior.rates == {"4": 0.2}
    alone = posterior.draw(x[:1], 3, generator=seeded())
    torch.testing.assert_close(alone, posterior.draw(x, 3, generator=seeded())[:, :1])
    for network in (user, posterior.problem.network, posterior.network()):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert user.training
    plain = posterior.network().eval()(x)
    with posterior.problem.bound(posterior.mean):
        torch.testing.assert_close(plain, posterior.problem.network(x))
    assert (posterior.draw(x, 1, generator=seeded())[0] - plain).abs().max() > 1e-3


def test_a_file_keeps_rates_that_the_network_does_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    posterior, x = dropout(network, 0.25, Categorical()), torch.randn(6, 3)
    posterior.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", network)
    assert loaded.rates == posterior.rates == {"2": 0.25, "4": 0.25}
    torch.testing.assert_close(
        loaded.draw(x, 8, generator=seeded()), posterior.draw(x, 8, generator=seeded()), rtol=0, atol=0
    )


def test_a_flat_prior_is_maximum_likelihood_and_a_normal_one_is_weight_decay() -> None:
    x, y = small_classification()
    method = MCDropout(0.2, epochs=20, optimizer=Optimizer(lr=0.02))
    norms = []
    for prior in (Flat(), Normal(0, 0.05)):
        network = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2))
        norms.append(posterity.fit(network, (x, y), prior=prior, method=method, engine=Engine(**QUIET)).mean.norm())
    assert norms[1] < 0.5 * norms[0]


def test_which_layers_are_dropped() -> None:
    def rates(network: nn.Module, rate: float | None, where=None) -> dict[str, float]:
        return dropout_rates(Problem(network, Normal(0, 1), Categorical(), 10, where=where), rate)

    deep = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    assert rates(deep, 0.1) == {"1": 0.1, "3": 0.1}
    assert rates(deep, 0.1, "last_layer") == {"3": 0.1}
    own = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3), nn.Dropout(0.0), nn.Linear(3, 2))
    assert rates(own, None) == {"0": 0.5}
    assert rates(own, 0.1) == {"0": 0.1, "2": 0.1}


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.drop, self.head = nn.GRU(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.rnn(x.transpose(0, 1))[0])[-1])


@pytest.mark.parametrize(
    ("network", "method", "message"),
    [
        (small_network, MCDropout(), r"Sequential has no dropout layer .* MCDropout\(rate=0.1\)"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), MCDropout(0.1), "no random .* after its first one"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Dropout(1.0), nn.Linear(36, 2)),
            MCDropout(),
            "'1' has the rate 1.*below 1",
        ),
        (lambda: nn.Sequential(nn.Flatten(2), nn.Flatten(0, 1), TimeFirst()), MCDropout(), None),
    ],
)
def test_what_cannot_be_dropped_is_refused(network, method: MCDropout, message: str | None) -> None:
    x, y = small_classification()
    if message is None:
        network, x, message = (
            TimeFirst,
            torch.randn(40, 7, 3),
            r"'drop' meets values of shape \(7, 40, 4\) .* 40.*batch_first",
        )
    with pytest.raises(InvalidInput, match=message):
        posterity.fit(network(), (x, y), method=method, engine=Engine(**QUIET))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_rates_out_of_range_are_refused(rate: float) -> None:
    with pytest.raises(InvalidInput, match=r"MCDropout\(rate="):
        MCDropout(rate)


def test_the_global_random_numbers_are_not_touched(tmp_path: Path) -> None:
    """Training draws its masks from the run's own stream, so that two runs agree whatever else was drawn."""
    x, y = small_classification()
    method, engine = MCDropout(epochs=2), Engine(**QUIET)
    found = []
    for seed in (1, 2):
        network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 2))
        network[2].weight.data.fill_(0.1)
        network[2].bias.data.zero_()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(posterity.fit(network, (x, y), method=method, engine=engine).mean)
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*found)
    other = posterity.fit(network, (x, y), method=method, engine=replace(engine, seed=1))
    assert not torch.equal(other.mean, found[0])
