"""Which family was it? The evidence of two Laplace approximations tells, of data of either; and a real table of counts."""

from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_linnerud
from torch import Tensor, nn
from torch import distributions as dist

from posterity import MAP, Engine, Laplace, Normal, Optimizer, TensorData, fit
from posterity.likelihoods import (
    Binomial,
    Gamma,
    Gaussian,
    Likelihood,
    LogNormal,
    NegativeBinomial,
    Poisson,
    StudentT,
    Weibull,
    ZeroInflated,
)

SIMULATIONS, ROWS, RIGHT = 100, 400, 95

Draw = Callable[[Tensor], Tensor]
PAIRS: dict[str, tuple[Likelihood, Draw, Likelihood, Draw]] = {  # of the linear predictor f
    "poisson, negative binomial": (
        Poisson(),
        lambda f: torch.poisson(torch.exp(1.5 + f)),
        NegativeBinomial(),
        lambda f: torch.poisson(dist.Gamma(2.0, 2 / torch.exp(1.5 + f)).sample()),
    ),
    "poisson, zero-inflated": (
        Poisson(),
        lambda f: torch.poisson(torch.exp(1.5 + f)),
        ZeroInflated(),
        lambda f: torch.poisson(torch.exp(1.5 + f)) * (torch.rand_like(f) > 0.2),
    ),
    "binomial, poisson": (
        Binomial(20),
        lambda f: dist.Binomial(20, logits=f).sample(),
        Poisson(),
        lambda f: torch.poisson(torch.exp(1.0 + f / 2)).clamp(max=20),
    ),
    "gaussian, student_t": (
        Gaussian(),
        lambda f: f + 0.5 * torch.randn_like(f),
        StudentT(),
        lambda f: f + 0.3 * dist.StudentT(3.0).sample(f.shape),
    ),
    "log_normal, gamma": (
        LogNormal(),
        lambda f: torch.exp(f + 0.8 * torch.randn_like(f)),
        Gamma(),
        lambda f: dist.Gamma(1.5, 1.5 / f.exp()).sample(),
    ),
    "log_normal, weibull": (
        LogNormal(),
        lambda f: torch.exp(f + 0.8 * torch.randn_like(f)),
        Weibull(),
        lambda f: dist.Weibull(f.exp(), torch.tensor(1.5).double()).sample(),
    ),
}


def evidence(likelihood: Likelihood, x: Tensor, y: Tensor) -> float:
    """log p(D) of a linear predictor, by a full Laplace approximation at the mode."""
    network = nn.Linear(2, 1).double()
    nn.init.zeros_(network.weight)
    method = Laplace(MAP(epochs=100, optimizer=Optimizer(lr=0.1)), "full")
    data = TensorData(x, y, batch_size=len(x))
    own = {"prior": Normal(0, 1), "engine": Engine(progress=False, device="cpu"), "method": method}
    return float(fit(network, data, likelihood=likelihood, **own).log_evidence)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("pair", PAIRS)
def test_the_evidence_picks_the_family_that_drew_the_data(pair: str) -> None:
    first, draw_first, second, draw_second = PAIRS[pair]
    right = 0
    for seed in range(SIMULATIONS):
        torch.manual_seed(seed)
        x = torch.randn(ROWS, 2).double()
        y = (draw_first if seed % 2 else draw_second)(0.6 * x[:, 0])
        found = evidence(first, x, y) > evidence(second, x, y)
        right += found == bool(seed % 2)
    assert right >= RIGHT, f"{right} of {SIMULATIONS}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_negative_binomial_beats_a_gaussian_on_a_real_table_of_counts() -> None:
    table = load_linnerud()  # chin-ups, sit-ups and jumps of twenty men, by their weight, waist and pulse
    x = torch.tensor(table.target)
    x = (x - x.mean(0)) / x.std(0)
    nll = dict.fromkeys(("counts", "gaussian"), 0.0)
    for column in range(3):
        y = torch.tensor(table.data[:, column])
        for fold in range(5):
            test = torch.arange(len(y)) % 5 == fold
            std, mean = torch.std_mean(y[~test])
            for name, likelihood, targets in (
                ("counts", NegativeBinomial(), y),
                ("gaussian", Gaussian(), (y - mean) / std),
            ):
                method = Laplace(MAP(epochs=100, optimizer=Optimizer(lr=0.1)), "full")
                posterior = fit(
                    nn.Linear(3, 1).double(),
                    (x[~test], targets[~test]),
                    likelihood=likelihood,
                    prior=Normal(0, 0.3),
                    method=method,
                    engine=Engine(progress=False, device="cpu"),
                )
                found = posterior.predict(x[test], 64, generator=torch.Generator().manual_seed(0))
                found = found if name == "counts" else found.rescale(mean, std)
                nll[name] -= float(found.log_prob(y[test]).sum())
    assert nll["counts"] < nll["gaussian"], nll
