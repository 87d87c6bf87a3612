"""Every method of Posterity as a subject: what it is run with, and which laws say nothing about it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from posterity.conformance.chains import cycled, sample, stationary
from posterity.conformance.function_laws import brief
from posterity.conformance.ours import (
    correlated_kl,
    diagonal_kl,
    in_batches,
    inferred,
    layer,
    log_joint,
    random_module,
    resumed,
)
from posterity.conformance.subject import Subject, full, independent, point
from posterity.core.optimizer import Optimizer
from posterity.methods import (
    HMC,
    IVON,
    MAP,
    MLE,
    NUTS,
    SGHMC,
    SGLD,
    SWAG,
    Cyclical,
    Ensemble,
    FullRank,
    Laplace,
    LowRank,
    MCDropout,
    MeanField,
    Microcanonical,
    Refine,
    SampledEnsemble,
)

FAST = Optimizer(lr=0.05, schedule="cosine")
DESCENT = Optimizer("SGD", lr=0.2, schedule="constant")  # of a quadratic: its error shrinks by a factor at each step

NO_KL, NO_LAYER, NO_SAMPLER = "no KL in its objective", "no layers of its own", "not a sampler"
SILENT = {2: NO_KL, 4: NO_LAYER, 10: NO_LAYER, 13: NO_SAMPLER}


def subject(name: str, method: Any, quick: Any, **fields: Any) -> Subject:
    """Make a subject of a method, and of its quick version for laws that any posterior will do for."""
    infer = partial(inferred, method=method, quick=quick)
    silent = {
        law: why for law, why in SILENT.items() if {2: "kl", 4: "layer", 10: "module", 13: "sample"}[law] not in fields
    }
    return Subject(
        name,
        infer,
        resumed=partial(resumed, infer=lambda task, engine: infer(task, engine=engine)),
        batched=partial(in_batches, method=method),
        log_joint=log_joint,
        refuses=infer,
        not_applicable={**silent, **fields.pop("not_applicable", {})},
        **fields,
    )


def of_ones_own(name: str, method: Any) -> Subject:
    """Make a subject of a method of somebody's own, of which nothing is known but what it does."""
    made = subject(name, method, method)
    task = brief()
    first, second = made.infer(task).draw(task.x, 2, 0)
    unsaid = {**made.not_applicable, **_without_width(UNSAID)["not_applicable"]}
    return replace(made, covariance=point, not_applicable=unsaid) if torch.equal(first, second) else made


UNSAID = "nobody has said what its posterior should be: give a Subject with its covariance"
STEPS, DESCENTS = 450, 250


AVERAGES = {18: "a point has the running averages of its training, as in torch"}
LINEAR = {18: "its functions are linear ones around a point, beside that point's statistics"}
GIVEN = {18: "it samples weights beside statistics that are given"}


def _without_width(why: str, others: Mapping[int, str] = MappingProxyType({})) -> dict[str, Any]:
    return {"not_applicable": {1: why, 5: why, 16: why, **others}}


def _mean_field(estimator: Any, **settings: Any) -> Subject:
    return subject(
        f"mean_field-{estimator}",
        MeanField(estimator, epochs=STEPS, initial_std=0.3, optimizer=FAST, **settings),
        MeanField(estimator, epochs=3),
        covariance=independent,
        kl=diagonal_kl,
        layer=partial(layer, estimator),
        module=partial(random_module, estimator),
    )


def _correlated(name: str, method: Any) -> Subject:
    # What couples weights moves in units of their std, a small one here: it is given the rate to arrive.
    long = replace(method, epochs=2 * STEPS, initial_std=0.3, optimizer=FAST, std_lr=10.0, draws=4, antithetic=True)
    return subject(name, long, replace(method, epochs=3), covariance=full, kl=correlated_kl)


def _laplace(structure: Any, **settings: Any) -> Subject:
    long, short = (Laplace(m, structure, **settings) for m in (MAP(epochs=DESCENTS, optimizer=DESCENT), MAP(epochs=3)))
    covariance = independent if structure == "diag" else full
    linear = {} if long.prediction == "sampled" else LINEAR
    return subject(f"laplace-{structure}", long, short, covariance=covariance, replicates=2, not_applicable=linear)


def _chain(name: str, method: Any, quick: Any, on_densities: Any) -> Subject:
    return subject(
        name,
        method,
        quick,
        covariance=partial(stationary, method),
        sample=partial(sample, on_densities),
        stationary=partial(stationary, on_densities, num_data=50),
        draws=method.draws,
    )


def _hamiltonian(name: str, method: Any, on_densities: Any, **short: int) -> Subject:
    quick = replace(method, warmup=30, draws=30, **short)
    return subject(
        name,
        method,
        quick,
        covariance=full,
        sample=partial(sample, on_densities),
        draws=method.draws,
        replicates=4,
        not_applicable=GIVEN,
    )


# Cycles so short that their draws have not reached the posterior: its width then says how large the steps were, and when
# the noise began.
CYCLES = Cyclical(SGHMC(lr=0.05, epochs=600, draws=288, friction=0.3), cycles=24, exploration=0.5)
CYCLES_ON_DENSITIES = Cyclical(SGHMC(lr=0.3 * 50, epochs=40, draws=400, friction=0.3), cycles=40, exploration=0.4)


def _within_cycles(precision: Tensor) -> Tensor:
    """Return the moments of the draws of chains that begin within the density: its own, between two explorations."""
    return cycled(CYCLES_ON_DENSITIES, precision, 50, steps_per_epoch=50, start=precision.inverse())


SUBJECTS = {
    s.name: s
    for s in (
        subject(
            "map",
            MAP(epochs=DESCENTS, optimizer=DESCENT),
            MAP(epochs=3),
            covariance=point,
            replicates=2,
            draws=4,
            not_applicable=AVERAGES,
        ),
        subject(
            "mle",
            MLE(epochs=3),
            MLE(epochs=3),
            covariance=point,
            **_without_width("maximum likelihood has no prior", AVERAGES),
        ),
        _mean_field("weight", draws=2, antithetic=True),
        _mean_field("local_reparam"),
        _mean_field("flipout"),
        _correlated("low_rank", LowRank(2)),
        _correlated("full_rank", FullRank()),
        subject(
            "ivon",
            IVON(epochs=600, hessian_momentum=0.99, initial_hessian=1.0, draws=4),
            IVON(epochs=3),
            covariance=independent,
            kl=diagonal_kl,
        ),
        *(_laplace(structure) for structure in ("full", "kron", "low_rank")),
        _laplace("diag", prediction="sampled"),
        subject("swag", SWAG(epochs=4), SWAG(epochs=4), **_without_width("its width is that of SGD's iterates")),
        subject(
            "mc_dropout",
            MCDropout(0.2, epochs=3),
            MCDropout(0.2, epochs=3),
            **_without_width("its width is set by the rates, not by the data", AVERAGES),
        ),
        _chain(
            "sgld",
            SGLD(lr=0.03, epochs=1600, draws=300, burn_in=0.25),
            SGLD(epochs=32, draws=12),
            SGLD(lr=0.008 * 50, epochs=25, draws=50, burn_in=0.2),
        ),
        _chain(
            "sghmc",
            SGHMC(lr=0.02, epochs=1200, draws=240, burn_in=0.2, friction=0.2),
            SGHMC(epochs=32, draws=12),
            SGHMC(lr=0.002 * 50, epochs=20, draws=50, burn_in=0.2, friction=0.1),
        ),
        subject(
            "cyclical",
            CYCLES,
            Cyclical(SGHMC(epochs=32, draws=12), cycles=2, exploration=0.5),
            covariance=partial(cycled, CYCLES),
            sample=partial(sample, CYCLES_ON_DENSITIES),
            stationary=_within_cycles,
            densities=("modes", "normal"),
            not_applicable={16: "its law is that of its steps, of which an epoch of batches has more (tests)"},
            draws=CYCLES.method.draws,
            replicates=16,  # few draws of each are worth much
        ),
        _hamiltonian(
            "hmc",
            HMC(chains=1, warmup=80, draws=200, steps=8),
            HMC(chains=2, warmup=100, draws=300, steps=8, jitter=0.5),
        ),
        _hamiltonian(
            "nuts", NUTS(chains=1, warmup=80, draws=150), NUTS(chains=2, warmup=100, draws=200, jitter=0.5), max_depth=4
        ),
        _hamiltonian(
            "microcanonical",
            Microcanonical(chains=1, warmup=60, draws=150, steps=10),
            Microcanonical(chains=8, warmup=60, draws=200, steps=25, jitter=0.5, energy_variance=1e-4),
        ),
        subject(
            "sampled_ensemble",
            SampledEnsemble(2, 100, sampler=Microcanonical(warmup=60, draws=150, steps=10)),
            SampledEnsemble(2, 3, sampler=Microcanonical(warmup=30, draws=30, steps=2)),
            covariance=full,
            draws=300,
            not_applicable=GIVEN,
        ),
        subject(
            "ensemble",
            Ensemble(MAP(epochs=DESCENTS, optimizer=DESCENT), 2),
            Ensemble(MLE(epochs=3), 2),
            covariance=point,
            replicates=2,
            draws=4,
            not_applicable=AVERAGES,
        ),
        subject(
            "refine",
            Refine(MeanField(epochs=STEPS, optimizer=FAST), after=MAP(epochs=40, optimizer=DESCENT)),
            Refine(MeanField(epochs=2), after=MAP(epochs=2)),
            covariance=independent,
            kl=diagonal_kl,
        ),
    )
}
