"""Laws of what a method finds: the exact posterior (1), however the data are counted (5) and cut (14); KL (2); known densities
(13).
"""

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import softplus

from posterity.conformance.conjugate import Conjugate
from posterity.conformance.densities import DENSITIES, PRECISION
from posterity.conformance.subject import Inferred, Subject
from posterity.conformance.verdict import Check, compared, counted
from posterity.core import diagnostics

TRAINED = 1e-3  # posterior stds from its optimum that an optimiser may end: next to Monte Carlo's errors, nothing
MANY = 30  # chains from whose spread a standard error is known
LENET = 61_706  # weights
OUTLIER_FROM = 100  # data before the outlier
ORDERED = 0.25  # posterior stds: the pull of one batch in the last step
FAR = 1e6  # no moment of a draw is as large: a chain that ran away has errors that allow anything
CHAINS = 500  # begun at once, where a sampler can


def conjugate(subject: Subject) -> list[Check]:
    """Law 1: on linear-Gaussian regression, mean and covariance of the functions drawn are those of the exact posterior.

    For an independent q the covariance is 1/diag(precision), for a point 0: see `Subject.covariance`.
    """
    return _recovered(subject, Conjugate.make(), subject.replicates)


def data_counted(subject: Subject) -> list[Check]:
    """Law 5: the data given twice are twice the data: the posterior is that of the doubled precision beside the prior."""
    # Where law 1 needs many seeds to tell right from twice as much, so does this one.
    many = subject.replicates > Subject.replicates
    return _recovered(subject, Conjugate.make().repeated(2), subject.replicates if many else min(3, subject.replicates))


def cut(subject: Subject) -> list[Check]:
    """Law 16: a batch of B data weighs B. The last of 101 data, an outlier, is a batch of its own beside one of a hundred.

    The exact mean is 10/102, its std 1/√102. Were each batch to weigh the same, the outlier would count fifty times, and the
    mean be 49 stds away. What batches in a fixed order leave to the last step of an optimiser, or to a chain, is allowed.
    """
    assert subject.batched is not None
    assert subject.covariance is not None
    case, replicates = Conjugate.outlying(), min(4, subject.replicates)
    exact = subject.covariance(case.precision, len(case.x)).reshape(())
    width = case.precision.inverse().sqrt().reshape(())
    probe, means, squares = torch.ones(1, 1, dtype=torch.float64), [], []
    for seed in range(replicates):
        found = subject.batched(case.task(seed), OUTLIER_FROM)
        theta = found.draw(probe, subject.draws, seed).reshape(-1) - case.mean
        means.append(theta.mean() / width)
        squares.append(theta.square().mean() / width**2)
    mean, square = torch.stack(means), torch.stack(squares)
    error, spread = (v.std() / replicates**0.5 for v in (mean, square))
    return [
        compared("posterior mean, in stds", mean.mean(), 0.0, error=error, atol=ORDERED),
        compared("posterior variance", square.mean(), exact / width**2, error=spread, atol=ORDERED),
    ]


def _recovered(subject: Subject, case: Conjugate, replicates: int) -> list[Check]:
    """Compare mean and covariance over `replicates` seeds, whose spread is the standard error.

    Deviations are in units of the exact posterior's stds, where their spread is pooled over coordinates: so few seeds would
    tell little of each one alone.
    """
    assert subject.covariance is not None
    std = case.precision.inverse().diagonal().sqrt()
    scale, covariance = torch.outer(std, std), subject.covariance(case.precision, len(case.x))
    fits = [subject.infer(case.task(seed)) for seed in range(replicates)]
    thetas = [weights(found, subject.draws, seed) for seed, found in enumerate(fits)]
    means = torch.stack([theta.mean(0) for theta in thetas])
    centred = [theta - case.mean for theta in thetas]  # their own mean is too near to autocorrelated draws
    covariances = torch.stack([c.T @ c / len(c) for c in centred])
    mean_error = pooled_error((means - case.mean) / std) * std
    away = (covariances - covariance) / scale
    own = torch.eye(3, dtype=torch.bool)  # an optimiser's noise is in the variances of an independent q alone
    spread = torch.where(own, pooled_error(away[:, own]), pooled_error(away[:, ~own])) * scale
    checks = [
        compared("posterior mean", means.mean(0), case.mean, error=mean_error, atol=TRAINED * std),
        compared("posterior covariance", covariances.mean(0), covariance, error=spread, atol=TRAINED * scale),
    ]
    evidence = fits[0].log_evidence()
    if evidence is not None:
        checks.append(compared("log evidence", evidence, case.log_evidence, atol=1e-6))
    return checks


def weights(found: Inferred, n: int, seed: int) -> Tensor:
    """Read n draws of θ = (w, b), (n, 3), off the functions f(x) = w·x + b at 0 and at the unit vectors."""
    probes = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    outputs = found.draw(probes, n, seed).reshape(n, 3)
    return torch.cat([outputs[:, 1:] - outputs[:, :1], outputs[:, :1]], 1)


def pooled_error(deviations: Tensor) -> Tensor:
    """Return the standard error, (), of a mean over R replicates, (R, K), from the spread of all K numbers together."""
    return (deviations.var(0).mean() / len(deviations)).sqrt()


def divergence(subject: Subject) -> list[Check]:
    """Law 2: KL(q‖p) is 0 at q = p, that of torch elsewhere, and ≈ 1.67e5 nats for LeNet as it starts:

    61,706 weights, prior std 0.1, μ ~ N(0, 0.1), ρ ~ N(−5, 0.1). Reversed it would be 80 times as much, averaged far less.
    """
    assert subject.kl is not None
    generator = torch.Generator().manual_seed(0)
    mean, spread = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    std, zeros = softplus(spread), torch.zeros(40, dtype=torch.float64)
    exact = float(kl_divergence(Normal(mean, std), Normal(zeros, 0.6)).sum())
    loc, rho = torch.randn(2, LENET, generator=generator)
    lenet = subject.kl(0.1 * loc, softplus(-5 + 0.1 * rho), 0.1)
    return [
        compared("KL at q = p", subject.kl(zeros, 0.6 + zeros, 0.6), 0.0, atol=1e-5),
        compared("KL in nats", subject.kl(mean, std, 0.6), exact, atol=1e-5 * exact),
        compared("KL of LeNet in nats", lenet, _kl_of_lenet(), error=(LENET / 2) ** 0.5),  # as μ²/(2 · 0.1²) has it
    ]


def _kl_of_lenet() -> float:
    """Return E[KL] over the initialisation, by Gauss–Hermite quadrature of the one integral."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(20)
    ratio = np.logaddexp(0, -5 + 0.1 * nodes) / 0.1
    return float(LENET * (mass * (ratio**2 / 2 - np.log(ratio))).sum() / mass.sum())


def sampled(subject: Subject) -> list[Check]:
    """Law 13: a sampler begun within a known density stays in it: a correlated normal, a funnel, a banana, two modes."""
    assert subject.sample is not None
    checks = []
    for name in subject.densities:
        density = DENSITIES[name]
        noise = torch.randn(CHAINS, density.dimensions, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        draws = density.moments(subject.sample(density.log_prob, density.draw(noise), 0))
        exact = torch.tensor(density.exact, dtype=torch.float64)
        if name == "normal" and subject.stationary is not None:
            exact = torch.cat([exact[:3], subject.stationary(PRECISION).flatten()])
        checks.append(counted(f"chains stay near the {name}", [bool(draws.abs().max() < FAR)]))
        checks.append(compared(f"moments of the {name}", draws.mean((0, 1)), exact, error=_error(draws), atol=1e-9))
    return checks


def _error(draws: Tensor) -> Tensor:
    """Return standard errors of means over (C, S, K): by the spread of independent chains, or by autocorrelation where few."""
    few = len(draws) < MANY
    return diagnostics.mcse(draws) if few else draws.mean(1).std(0) / float(len(draws)) ** 0.5
