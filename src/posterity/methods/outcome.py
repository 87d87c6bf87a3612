"""What a fit brought, on a few of its training data: the functions of its posterior beside its start and beside no network.

A constant prediction (the frequencies of the classes, the mean of the targets) is what a network without inputs could say.
How much a network knows is 1 − nll/entropy of the labels for classes, and 1 − mean squared error/variance of the targets
for numbers: 1 is all, 0 is nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import isfinite, log
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal

from posterity.methods.arrival import Remark, merged
from posterity.methods.line import Line, beside_line
from posterity.methods.mixing import swinging
from posterity.methods.stiffness import stiff
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.types import LIKELIHOOD, PRIOR, Batch, Data
from posterity.weighing import complete

EXAMPLES, BATCHES = 256, 8  # at most
DRAWS, LATENT_DRAWS = 8, 200
NOTHING = 0.02  # of what could be known
LITTLE, UNMOVED, HELD = 0.25, 0.8, 0.05  # known; share of weights at the prior, each with a KL below this, in nats
KNEW, LOST = 0.3, 0.5  # what is called knowing; the share of it that is called lost
NOISY = 2.0  # times the targets' own std
MANY = 100  # weights that share a scale
RESIDUAL = 0.4  # |log(noise/residuals)|, beside what so many data leave open


@dataclass(frozen=True, eq=False)
class Outlook:
    """Some of the training data, and how much the network knew of them before the fit; None where that has no meaning."""

    batch: Batch | None
    before: float | None
    line: Line | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, problem: Problem, data: Data) -> "Outlook":
        """Take the data and look at the start, in eval mode; the problem is not changed."""
        batch = _some(data)
        if batch is None:
            return cls(None, None)
        own = problem.snapshot()
        distribution = own.predict(batch[0])
        return cls(batch, known(distribution, batch[1], draws=False), Line.of(data, batch))


def remarks(outlook: Outlook, posterior: FunctionPosterior, method: Any = None) -> list[Remark]:
    """Say what a posterior's predictions of training data show, and its draws of latents."""
    found = [r for name, draws in _latents(posterior) for r in swinging(name, draws, _sharing(posterior.problem, name))]
    found += _beside_weights(posterior)
    found += beside_line(outlook.line, dict(_latents(posterior)).get(LIKELIHOOD + "std"))
    if outlook.batch is None or posterior.lacks_statistics:  # of a stage, say, whose functions nobody predicts with
        return found
    if not any(getattr(remark, "kind", "") == "step" for remark in gathered(posterior)):
        found += stiff(posterior, outlook.batch, getattr(method, "stable_curvature", None))
    inputs, targets = outlook.batch[:2]
    distribution = _predicted(posterior, inputs)
    after = known(distribution, targets, draws=True)
    if after is None:
        return found
    held = at_prior(posterior)
    if held is not None and held >= UNMOVED and after < LITTLE:
        return [*found, _ended_at_prior(held, after)]
    if outlook.before is not None and outlook.before > KNEW and after < (1 - LOST) * outlook.before:
        return [*found, _destroyed(outlook.before, after)]
    if after < NOTHING:
        return [*found, _nothing_learnt(after, distribution, targets)]
    return [*found, *(_noisy(distribution, targets) or _beside_residuals(posterior, distribution, targets))]


def gathered(posterior: FunctionPosterior) -> list[str]:
    """Return the remarks that a posterior came with, and those of a mixture's components, of each kind once."""
    own = list(posterior.provenance.get("remarks", []))
    components = getattr(posterior, "components", ())
    return own + merged([gathered(component) for component in components]) if components else own


def known(distribution: Distribution, targets: Tensor, *, draws: bool) -> float | None:
    """Return how much of the targets is known, at most 1; None where this has no meaning.

    Args:
        distribution: of batch shape (B,), or (S, B) for S draws, which are averaged.
        targets: (B, ...).
        draws: whether it is of draws.
    """
    plain = distribution.base_dist if isinstance(distribution, Independent) else distribution
    if isinstance(plain, Categorical | Bernoulli):
        log_prob = distribution.log_prob(targets.to(plain.logits.device))
        nll = -(log_prob.logsumexp(0) - torch.tensor(float(len(log_prob))).log() if draws else log_prob).mean()
        sites = targets.numel() / len(targets)
        entropy = _entropy(targets) * sites
        return float(1 - nll / entropy) if entropy > 0.05 else None
    try:
        mean = distribution.mean.mean(0) if draws else distribution.mean
    except NotImplementedError:
        return None
    if mean.shape != targets.shape or not targets.is_floating_point():
        return None
    spread = (targets - targets.mean(0)).square().sum()
    value = 1 - (mean - targets).square().sum() / spread
    return float(value) if spread > 0 else None


def at_prior(posterior: FunctionPosterior) -> float | None:
    """Return the share of random weights whose Gaussian is the prior's, but for HELD nats; None where that is not asked."""
    where, std = posterior.problem.coordinates, posterior.marginal_std
    if std is None or posterior.descent is None:  # others have no KL that could outweigh the data
        return None
    if where.normal is None or where.network == where.start:
        return None
    center, width = (v[where.start - where.free :] for v in where.normal)
    ratio = (std[: where.network - where.start] / width).square()
    away = ((posterior.mean[where.start : where.network] - center) / width).square()
    return float((0.5 * (ratio + away - 1 - ratio.log()) < HELD).double().mean())


def _ended_at_prior(held: float, after: float) -> Remark:
    return Remark(
        "prior",
        f"The fit ended at the prior: {100 * held:.0f} % of the weights have the prior's mean and std, and the "
        f"predictions know "
        f"{_percent(after)} of what can be known of the training targets. The KL outweighs the data at "
        "this size: try "
        "kl_schedule='warmup', a wider prior, more epochs, a smaller network, or a temperature below 1 (which is said).",
    )


def _destroyed(before: float, after: float) -> Remark:
    return Remark(
        "destroyed",
        f"The fit lost what the network knew: its predictions know {_percent(after)} of the training targets, and the network "
        f"that it started from knew {_percent(before)}. Check that the prior allows the weights that it was given, "
        "start with smaller stds (initial='relative'), or with a smaller learning rate.",
    )


def _nothing_learnt(after: float, distribution: Distribution, targets: Tensor) -> Remark:
    categories = not targets.is_floating_point() or isinstance(distribution, Bernoulli)
    constant = "the frequencies of the classes" if categories else "the mean of the targets"
    return Remark(
        "nothing",
        f"Nothing was learnt: the predictions of training data are no better than {constant} (1 would be all that can be "
        f"known, 0 is the constant, this is {after:.2g}). Train longer, change the learning rate, or check the scale of inputs "
        "and targets.",
    )


def _noisy(distribution: Distribution, targets: Tensor) -> list[Remark]:
    """Say that the noise is larger than the targets themselves."""
    if isinstance(distribution, Categorical | Bernoulli | Independent) or not targets.is_floating_point():
        return []
    noise, spread = (
        float(distribution.variance.mean()) ** 0.5,
        float((targets - targets.mean(0)).square().mean()) ** 0.5,
    )
    if not isfinite(noise) or noise < NOISY * spread:
        return []
    return [
        Remark(
            "noise",
            f"The noise level, {noise:.3g}, is larger than the targets' own std, {spread:.3g}: it has not come down. Train "
            "longer, or with a smaller learning rate, and standardise the targets.",
        )
    ]


def _beside_residuals(posterior: FunctionPosterior, distribution: Distribution, targets: Tensor) -> list[Remark]:
    """Say that a learnt noise level is not that of the residuals of its own functions, which it is given them."""
    plain = distribution.base_dist if isinstance(distribution, Independent) else distribution
    if not isinstance(plain, Normal) or LIKELIHOOD + "std" not in posterior.problem.coordinates.latents:
        return []
    flat = (len(plain.mean), len(targets), -1)
    noise = plain.variance.reshape(flat).mean((0, 1)).sqrt()
    left = (plain.mean - targets).square().reshape(flat).mean((0, 1)).sqrt()
    ratios = (noise / left).log()
    worst = int(ratios.abs().argmax())
    if not float(ratios[worst].abs()) > RESIDUAL + 3 / (2 * len(targets)) ** 0.5:
        return []
    return [
        Remark(
            "residuals",
            f"The noise level is {noise[worst]:.3g}, and the residuals of the same functions on training data are "
            f"{left[worst]:.3g}: given the functions the two are alike, so the noise level has not arrived. Train longer, or "
            "with another lr, or fix it.",
        )
    ]


@torch.no_grad()
def _beside_weights(posterior: FunctionPosterior) -> list[Remark]:
    """Say that a scale of the prior is not that of the many weights which share it, which it is given them."""
    problem = posterior.problem
    where, generator = problem.coordinates, Generator(device=posterior.mean.device).manual_seed(0)
    names = [n for n in where.latents if n.startswith(PRIOR) and _sharing(problem, n) >= MANY]
    if not names or isinstance(posterior, Point | Mixture):  # a mode is no draw; components say it themselves
        return []
    worst, said = RESIDUAL, []
    scales: dict[str, list[tuple[float, float]]] = {n: [] for n in names}
    for _ in range(DRAWS):
        params = where.of_prior(where.layout.views(where.weights(posterior.sample(generator))))
        fitting = problem.prior.initial({n: p for n, p in params.items() if not n.startswith(PRIOR)})
        for n in names:
            best = fitting.get(n.removeprefix(PRIOR))
            if best is not None and where.latents[n].natural is torch.exp:
                scales[n].append((float(params[n].exp().mean()), float(best.exp().mean())))
    for name, pairs in scales.items():
        s, rms = (sum(values) / len(pairs) for values in zip(*pairs, strict=True)) if pairs else (1.0, 1.0)
        if abs(log(s / rms)) > worst:
            worst, said = abs(log(s / rms)), [(name, s, rms)]
    return [
        Remark(
            "scale",
            f"The scale {name} is {s:.3g}, and that of its weights {rms:.3g}: given so many weights the two are alike, so the "
            "scale has not arrived. Train longer, or take MeanField or SGLD, which do not start from a mode of the two.",
        )
        for name, s, rms in said
    ]


@torch.no_grad()
def _predicted(posterior: FunctionPosterior, inputs: Tensor) -> Distribution:
    if isinstance(posterior, Linearised):  # whose functions cost Jacobians: that of its mean is the network itself
        posterior = Point(posterior.problem, posterior.mean)
    generator = Generator(device=posterior.mean.device).manual_seed(0)
    draws = posterior.draws(inputs, DRAWS, generator)
    distribution: Distribution = posterior.problem.likelihood(draws.outputs, draws.latents)
    return distribution


def _some(data: Data) -> Batch | None:
    """Take the first examples of an epoch that no run trains in."""
    inputs, targets, count = [], [], 0
    for given in islice(data.batches(0, Generator().manual_seed(0)), BATCHES):
        if len(given) not in (2, 3) or not all(isinstance(part, Tensor) for part in given):
            return None
        batch = complete(given)
        inputs.append(batch[0])
        targets.append(batch[1])
        count += len(batch[1])
        if count >= EXAMPLES:
            break
    alike = all(len({part.shape[1:] for part in parts}) == 1 for parts in (inputs, targets))
    return (torch.cat(inputs)[:EXAMPLES], torch.cat(targets)[:EXAMPLES]) if alike and count else None


def _latents(posterior: FunctionPosterior) -> Iterator[tuple[str, Tensor]]:
    """Yield draws of each noise level and scale: names that end otherwise are no stds."""
    generator = Generator(device=posterior.mean.device).manual_seed(0)
    for name, draws in posterior.latent_draws(LATENT_DRAWS, generator).items():
        if name.rpartition(".")[2] == "std" or name.startswith(PRIOR + "scale"):
            yield name, draws


def _sharing(problem: Problem, name: str) -> int:
    """Count the numbers that tell one entry of a latent: the data of a noise level, the weights that share a scale."""
    if name.startswith(LIKELIHOOD):
        return max(1, int(problem.num_data))
    group, where = name.removeprefix(PRIOR + "scale").lstrip("."), problem.coordinates
    under = f"{group}." if group else ""
    sizes = [
        p.numel() for n, p in where.params.items() if n not in where.latents and (n == group or n.startswith(under))
    ]
    return max(1, sum(sizes) // where.params[name].numel())


def _entropy(targets: Tensor) -> float:
    shares = targets.flatten().unique(return_counts=True)[1].double() / targets.numel()
    return float(-(shares * shares.log()).sum())


def _percent(value: float) -> str:
    return f"{100 * max(value, 0.0):.0f} %"
