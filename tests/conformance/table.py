"""The table of methods, and the conjugate problem whose answers are known exactly."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import (
    IVON,
    MAP,
    MLE,
    SGHMC,
    SGLD,
    SWAG,
    Cyclical,
    Engine,
    Ensemble,
    FullRank,
    Gaussian,
    Laplace,
    LowRank,
    MCDropout,
    MeanField,
    Normal,
    Optimizer,
    Refine,
    TensorData,
)
from posterity.conformance import conjugate

STEPS, COUPLED_STEPS = 400, 700  # what couples weights arrives later
FAST = Optimizer(lr=0.05, schedule="cosine")


@dataclass(frozen=True)
class Row:
    """A method, and what its posterior is on a conjugate problem."""

    method: object
    family: str  # "point", "mean_field", "correlated", "laplace"


TABLE = {
    "map": Row(MAP(epochs=STEPS, optimizer=FAST), "point"),
    "mean_field-weight": Row(MeanField("weight", epochs=STEPS, optimizer=FAST, draws=2, antithetic=True), "mean_field"),
    "mean_field-local_reparam": Row(MeanField("local_reparam", epochs=STEPS, optimizer=FAST), "mean_field"),
    "mean_field-flipout": Row(MeanField("flipout", epochs=STEPS, optimizer=FAST), "mean_field"),
    "mean_field-path": Row(MeanField(gradient="path", epochs=STEPS, optimizer=FAST), "mean_field"),
    "low_rank": Row(LowRank(2, epochs=COUPLED_STEPS, optimizer=FAST, draws=4, antithetic=True), "correlated"),
    "full_rank": Row(FullRank(epochs=COUPLED_STEPS, optimizer=FAST, draws=4, antithetic=True), "correlated"),
    "ivon": Row(IVON(epochs=1000, hessian_momentum=0.99, initial_hessian=1.0, draws=4), "mean_field"),
    **{
        f"laplace-{structure}": Row(Laplace(MAP(epochs=STEPS, optimizer=FAST), structure), "laplace")
        for structure in ("full", "kron", "low_rank")
    },
    "laplace-diag": Row(Laplace(MAP(epochs=STEPS, optimizer=FAST), "diag", prediction="sampled"), "mean_field"),
    "ensemble-map": Row(Ensemble(MAP(epochs=STEPS, optimizer=FAST), 2), "point"),
}
SHORT = {
    "map": MAP(epochs=2),
    "mle": MLE(epochs=2),
    "mc_dropout": MCDropout(0.2, epochs=2),
    "mean_field-weight": MeanField("weight", epochs=2),
    "mean_field-local_reparam": MeanField("local_reparam", epochs=2),
    "mean_field-flipout": MeanField("flipout", epochs=2),
    "mean_field-importance": MeanField(objective="importance_weighted", draws=3, epochs=2),
    "low_rank": LowRank(3, epochs=2),
    "full_rank": FullRank(epochs=2),
    "refine": Refine(MeanField(epochs=1), after=MAP(epochs=2)),
    "sgld": SGLD(epochs=8, draws=7),
    "sgld-rmsprop": SGLD(epochs=8, draws=7, lr=0.01, preconditioner="rmsprop", schedule="polynomial"),
    "sghmc": SGHMC(epochs=8, draws=8),
    "cyclical": Cyclical(SGHMC(epochs=8, draws=6), cycles=2, exploration=0.5),
    "ivon": IVON(epochs=2),
    "swag": SWAG(epochs=2),  # its width is that of SGD's iterates, not the posterior's: see tests/unit/test_swag.py
    "laplace-full": Laplace(MAP(epochs=2), "full"),
    "laplace-kron": Laplace(MAP(epochs=2), "kron"),
    "laplace-kron-sampled": Laplace(MAP(epochs=2), "kron", prediction="sampled"),
    "laplace-diag": Laplace(MAP(epochs=2), "diag", "fisher"),
    "laplace-low_rank": Laplace(MAP(epochs=2), "low_rank", rank=4),
    "laplace-tuned": Laplace(MAP(epochs=2), "kron", tune="layer", rounds=1),
    "ensemble-laplace": Ensemble(Laplace(MAP(epochs=2), "kron"), 2),
    "ensemble-mle": Ensemble(MLE(epochs=2), 3),
    "ensemble-mc_dropout": Ensemble(MCDropout(0.2, epochs=2), 2),
    "ensemble-swag": Ensemble(SWAG(epochs=2), 2),
    "ensemble-low_rank": Ensemble(LowRank(2, epochs=2), 2),
    "ensemble-mean_field": Ensemble(MeanField(epochs=2), 2),
    "ensemble-sgld": Ensemble(SGLD(epochs=4, draws=4), 2),
}
every_method = pytest.mark.parametrize("name", TABLE)
every_short_method = pytest.mark.parametrize("name", SHORT)


@dataclass(frozen=True)
class Conjugate(conjugate.Conjugate):
    """The conformance suite's problem, to be fitted by a method."""

    def fit(self, method: object, seed: int = 0, batch_size: int = 24, copies: int = 1, where: object = None):
        torch.manual_seed(seed)
        network = nn.Linear(2, 1).double()
        data = TensorData(self.x.repeat(copies, 1), self.y.repeat(copies), batch_size)
        return posterity.fit(
            network,
            data,
            likelihood=Gaussian(std=self.noise),
            prior=Normal(0, self.prior_std),
            where=where,
            method=method,
            engine=Engine(seed=seed, progress=False, device="cpu"),
        )


def log_evidences(case: conjugate.Conjugate, noise: Tensor, prior_std: Tensor) -> Tensor:
    """log p(y | x) for many (noise, prior_std) at once, (G,): in the eigenbasis of DDᵀ the data are independent."""
    eigen, basis = torch.linalg.eigh(case.design @ case.design.T)
    variance = noise[:, None].square() + prior_std[:, None].square() * eigen
    return torch.distributions.Normal(0.0, variance.sqrt()).log_prob(basis.T @ case.y).sum(1)


def small_classification(n: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 6, 6, generator=generator)
    return x, (x.mean((1, 2, 3)) > 0).long()


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
