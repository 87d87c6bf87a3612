"""One temperature: every method that has one samples, or approximates, p(D|θ)^(1/T) p(θ).

y ~ N(θ, 1), 10 data of 3, θ ~ N(0, 1): mean 30/(10 + T), variance T/(10 + T). Were the prior tempered as well, the mean would
be 30/11 whatever T: at T = 4 that is 2.73 for 2.14.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

import posterity
from posterity import (
    IVON,
    SGHMC,
    SGLD,
    Cyclical,
    Engine,
    Ensemble,
    FullRank,
    Gaussian,
    InvalidInput,
    LowRank,
    MeanField,
    Normal,
    Optimizer,
    Refine,
)

FAST = Optimizer(lr=0.05, schedule="cosine")
COPIES = 200  # of the problem, as outputs of one network: as many chains at the price of one
METHODS = {
    "mean_field": lambda t: MeanField(epochs=600, temperature=t, optimizer=FAST),
    "local_reparam": lambda t: MeanField("local_reparam", epochs=600, temperature=t, optimizer=FAST),
    "path": lambda t: MeanField(gradient="path", epochs=600, temperature=t, optimizer=FAST),
    "low_rank": lambda t: LowRank(1, epochs=600, temperature=t, optimizer=FAST),
    "full_rank": lambda t: FullRank(epochs=600, temperature=t, optimizer=FAST),
    "ivon": lambda t: IVON(epochs=1000, temperature=t, hessian_momentum=0.99),
    "sgld": lambda t: SGLD(epochs=400, draws=100, temperature=t, lr=0.05),
    "sghmc": lambda t: SGHMC(epochs=400, draws=100, temperature=t, lr=0.02, friction=0.3),
    "refine": lambda t: Refine(MeanField(epochs=600, temperature=t, optimizer=FAST)),
    "ensemble": lambda t: Ensemble(MeanField(epochs=600, temperature=t, optimizer=FAST), 2),
}


def drawn(method):
    copies = COPIES if isinstance(method, SGLD | SGHMC) else 1
    x, y = torch.ones(10, 1), torch.full((10, copies), 3.0)
    posterior = posterity.fit(
        nn.Linear(1, copies, bias=False),
        (x, y.squeeze(1)),
        likelihood=Gaussian(std=1.0),
        prior=Normal(0, 1),
        method=method,
        engine=Engine(progress=False, device="cpu"),
    )
    thetas = posterior.draw(x[:1], 1500, generator=torch.Generator().manual_seed(0)).flatten()
    return thetas.mean().item(), thetas.std().item()


# Cold ones beside hot ones for one method of each way to temper; path gradients, refinements and ensembles hand theirs on.
QUICK = {
    *((4.0, name) for name in ("mean_field", "local_reparam", "low_rank", "full_rank", "ivon", "sgld", "sghmc")),
    *((0.25, name) for name in ("mean_field", "sgld", "sghmc")),
}


@pytest.mark.parametrize(
    ("temperature", "name"),
    [
        pytest.param(t, name, marks=() if (t, name) in QUICK else pytest.mark.slow)
        for t in (4.0, 0.25)
        for name in METHODS
    ],
)
def test_temperature_is_the_likelihoods(name, temperature):
    mean, std = drawn(METHODS[name](temperature))
    exact = (temperature / (10 + temperature)) ** 0.5
    assert abs(mean - 30 / (10 + temperature)) < 0.2 * exact + 0.01
    assert std == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize("sampler", [SGLD(epochs=400, draws=100, lr=0.05), SGHMC(epochs=400, draws=100, friction=0.3)])
def test_joint_temperature_is_the_other_one(sampler):
    mean, std = drawn(replace(sampler, joint_temperature=0.25))
    assert abs(mean - 30 / 11) < 0.2 * (0.25 / 11) ** 0.5 + 0.01
    assert std == pytest.approx((0.25 / 11) ** 0.5, rel=0.15)


def test_cycles_have_the_temperatures_of_their_sampler():
    chain = Cyclical(SGHMC(temperature=0.5, joint_temperature=0.3))
    assert (chain.temperature, chain.joint_temperature) == (0.5, 0.3)
    with pytest.raises((InvalidInput, ValueError), match="joint_temperature"):
        SGLD(joint_temperature=-1.0)
