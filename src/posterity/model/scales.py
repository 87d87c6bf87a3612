"""What `fit` says before it trains, of data and networks that are far from the scales that everything starts from.

Initial weights, priors such as Normal(0, 0.3), the steps of optimisers and samplers, and the prior of a noise level are made
for numbers near 1. Far from there a fit ends where it began, and is sure of it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import constraints

from posterity.model.likelihoods import Bernoulli, Categorical, Gaussian, HeteroscedasticGaussian
from posterity.model.probe import Probe, probed
from posterity.model.problem import Problem
from posterity.model.suited import OVERDISPERSED, dispersed, suited
from posterity.types import Likelihood

# Measured with mean field, MAP and SGHMC at their defaults on a table of 400 data, 60 epochs, as error / std of the targets,
# where unit scale leaves 0.27. Inputs: 0.5 at a std of 0.1, 0.95 at 0.03; 0.3 at 10, where SGHMC goes astray, 0.5 at 30; 0.7
# at an offset of 10. Targets: 2.4 at a std of 0.01, 0.5 at 0.03, 0.3 at 0.1, where SGHMC goes astray; 0.4 at 10 and 0.8 at 30;
# 0.55 at an offset of 3, 2.1 at 10, 14 at 30.
SMALL_INPUTS, LARGE_INPUTS = 0.05, 10.0  # std, and root mean square
SPARSE = 0.1  # a column that differs from its median in fewer rows is sparse: its std says nothing of its scale
SMALL_TARGETS, LARGE_TARGETS, OFFSET = (
    0.15,
    10.0,
    5.0,
)  # std, and |mean of targets − of outputs| in units of max(std, 1)
FITTING = 3.0  # a network that scales its outputs itself starts within so many stds of the targets
FAR_OUTPUTS = 30.0  # errors before training, in stds of the targets
FAR_LOGITS = 50.0  # nats: a pretrained classifier reaches 30; from 50 on softmax is 0 or 1 in float32, and has no slope
COARSE_NOISE, FINE_NOISE = (
    100.0,
    1 / 300,
)  # noise level in stds of the targets: says nothing, or is surely wrong at first
COLUMNS, NAMED = 256, 4  # a wider input is no table; so many columns are named
SAMPLE = 2**14  # targets that are looked at


def remarks(problem: Problem, inputs: Tensor, targets: Tensor) -> list[str]:
    """Say what is far from unit scale, with the numbers and the remedy, each in a few sentences; nothing is changed.

    Args:
        inputs, targets: all data where they are in memory, else a first batch. A few of the inputs go through the network.
    """
    probe = probed(problem, inputs)
    likelihood, outputs = problem.likelihood, probe.outputs
    found, links = list(_of_inputs(probe)), list(_of_links(problem, probe, targets))
    wild = not found  # inputs that are far make outputs that are far
    match likelihood:
        case Gaussian():
            values = [*_of_values(outputs, targets, wild), *_of_noise(likelihood, targets)]
            return [*found, *links, *values, *_of_counts(targets)]
        case HeteroscedasticGaussian():
            means = outputs.chunk(2, -1)[0]
            return [*found, *links, *_of_values(means, targets, wild), *_of_least_noise(likelihood, targets)]
        case Categorical() | Bernoulli() if wild:
            return [*links, *_of_logits(problem, outputs)]
        case Likelihood() if not isinstance(likelihood, Categorical | Bernoulli):
            return [*found, *links, *_of_distributions(problem, outputs, targets, wild)]
    return [*found, *links]


def _of_distributions(problem: Problem, outputs: Tensor, targets: Tensor, wild: bool) -> list[str]:
    """Compare targets of the whole real line, of a likelihood of one's own, with the means that it starts from."""
    try:
        distribution = problem.likelihood(outputs, problem.latents(problem.params))
        support, means = distribution.support, distribution.mean.detach()
    except Exception:  # not every distribution has them, and what is not ours may raise anything
        return []
    real = getattr(support, "base_constraint", support) is constraints.real
    if not real or not bool(means.isfinite().all()):
        return []
    return list(_of_values(means.reshape(len(means), -1), targets, wild, "mean + std * prediction.mean is"))


def _of_inputs(probe: Probe) -> Iterator[str]:
    """Name columns of a table that are far from unit scale; of other inputs, judge all numbers together."""
    if probe.inputs is None:
        return
    x = probe.inputs.double()
    table = x.dim() == 2 and x.shape[1] <= COLUMNS
    x = x if table else x.reshape(-1, 1)
    size, std = x.square().mean(0).sqrt(), x.std(0, correction=0)
    dense = (x != x.median(0).values).double().mean(0) > SPARSE
    far = (size > LARGE_INPUTS) | ((std < SMALL_INPUTS) & (std > 0) & dense)
    if not bool(far.any()):
        return
    if table:
        named = [f"column {j} (mean {x[:, j].mean():.3g}, std {std[j]:.3g})" for j in far.nonzero().flatten().tolist()]
        rest = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        what, axis = f"{', '.join(named[:NAMED])}{rest}", "0"
    else:
        what, axis = f"they run from {x.min():.3g} to {x.max():.3g}, with mean {x.mean():.3g} and std {std[0]:.3g}", ""
    if not probe.given:
        yield (
            "What the network makes of its inputs before its first layer with weights is far from unit scale, for which "
            f"initial weights, prior and steps are made: {what}. Are data scaled twice, or not at all? Scale them once, or "
            "put a LayerNorm before that layer."
        )
        return
    yield (
        f"Inputs are far from unit scale, for which initial weights, prior and steps are made: {what}. Scale them: mean, std = "
        f"inputs.mean({axis}), inputs.std({axis}).clamp_min(1e-8); inputs = (inputs - mean) / std; and those that you predict "
        "for with the same numbers."
    )


def _of_values(
    outputs: Tensor, targets: Tensor, wild: bool, back: str = "posterior.predict(inputs).rescale(mean, std) is"
) -> Iterator[str]:
    """Compare real targets, each column by itself, with the outputs that the network starts from."""
    if outputs.dim() != 2:
        return
    y, f = _columns(targets), outputs.detach().cpu().double()
    mean, std, start, spread = y.mean(0), y.std(0, correction=0), f.mean(0), f.std(0, correction=0)
    still = std <= 1e-12 * mean.abs()
    away = (mean - start).abs()
    fits = (away < FITTING * std) & (spread > 0.03 * std) & (spread < FAR_OUTPUTS * std)
    far = (std > LARGE_TARGETS) | (std < SMALL_TARGETS) | (mean.abs() > OFFSET * std.clamp_min(1))
    if wrong := _places(far & ~fits & ~still):
        yield (
            f"Targets are far from unit scale, for which prior, steps and noise are made: {_moments(mean, std, wrong)}; the "
            f"network's outputs start at {_moments(start, spread, wrong)}. Scale them: mean, std = targets.mean(0), "
            f"targets.std(0); targets = (targets - mean) / std; then {back} in your units."
        )
    elif wild and (lost := _places(~still & ((away.square() + spread.square()).sqrt() > FAR_OUTPUTS * std))):
        yield (
            f"The network's outputs before training have {_moments(start, spread, lost)}, far from the targets' "
            f"{_moments(mean, std, lost)}. Normalise it, with a LayerNorm between layers or smaller initial weights: "
            "torch.nn.init.xavier_uniform_(layer.weight)."
        )
    if constant := _places(still):
        what = _listed([f"{mean[d]:.5g}" for d in constant], constant, len(mean))
        yield (
            f"All targets are equal: {what}. A noise level that is learnt of them falls without end; leave them out, or fix "
            "it: likelihood=Gaussian(std=0.1)."
        )


def _of_noise(likelihood: Gaussian, targets: Tensor) -> Iterator[str]:
    """Compare the noise level that was given, fixed or to start from, with the targets' spread."""
    given = likelihood.std if likelihood.std is not None else likelihood.initial_std
    if given is None:
        return
    std = _columns(targets).std(0, correction=0)
    ratio = torch.as_tensor(given, dtype=torch.float64) / std
    if wrong := _places((std > 0) & ((ratio > COARSE_NOISE) | (ratio < FINE_NOISE))):
        name = "std" if likelihood.std is not None else "initial_std"
        said = torch.as_tensor(given, dtype=torch.float64).expand_as(std)
        what = _listed([f"{said[d]:.3g} for targets of std {std[d]:.3g}" for d in wrong], wrong, len(std))
        yield (
            f"The noise level fits the targets badly, Gaussian({name}=...) is {what}: far above their spread nothing is "
            "learnt, far below it every error of the first steps is taken for certain. Give it in units of the targets, or "
            "learn it: likelihood=Gaussian()."
        )


def _of_counts(targets: Tensor) -> Iterator[str]:
    """Say that targets are counts, which a Gaussian gives below 0 and between whole numbers."""
    y = _columns(targets)
    if bool((y >= 0).all() & (y == y.round()).all()) and float(y.max()) > 1 and dispersed(y) > OVERDISPERSED:
        yield suited(y).replace("NegativeBinomial()", "posterity.likelihoods.NegativeBinomial()")


def _of_least_noise(likelihood: HeteroscedasticGaussian, targets: Tensor) -> Iterator[str]:
    std = _columns(targets).std(0, correction=0)
    if wrong := _places((std > 0) & (std < likelihood.min_std)):
        what = _listed([f"{std[d]:.3g}" for d in wrong], wrong, len(std))
        yield (
            f"HeteroscedasticGaussian(min_std={likelihood.min_std:.3g}) is above the targets' std, {what}: no noise level "
            "can come down to theirs. Give it in units of the targets, far below their std."
        )


def _of_logits(problem: Problem, outputs: Tensor) -> Iterator[str]:
    """Say that probabilities are 0 and 1 before anything was learnt."""
    logits = _classes_last(problem, outputs).double()
    if logits.shape[-1] > 1:
        logits = logits - logits.mean(-1, keepdim=True)
    size = float(logits.abs().amax(-1).median())
    if size > FAR_LOGITS:
        yield (
            f"The network's outputs before training are logits of ±{size:.3g}: all probabilities are 0 or 1, with no slope to "
            "learn by. Normalise it, with a BatchNorm or LayerNorm between layers, or start from smaller weights: "
            "torch.nn.init.xavier_uniform_(layer.weight)."
        )


def _of_links(problem: Problem, probe: Probe, targets: Tensor) -> Iterator[str]:
    """Find outputs that are held by bounds whatever the weights are, and so a link that the likelihood applies again."""
    match problem.likelihood:
        case Categorical():
            yield from _of_classes(problem, probe)
        case Bernoulli():
            if probe.held(0.0, 1.0):
                yield _twice(
                    "between 0 and 1, as after a sigmoid",
                    "Bernoulli applies the sigmoid",
                    "p(y = 1) cannot leave [0.5, 0.73]",
                )
            elif probe.held(0.0, float("inf")) or probe.held(-float("inf"), 0.0):
                yield _twice("of one sign", "Bernoulli applies the sigmoid", "p(y = 1) stays on one side of 0.5")
            elif probe.held(-1.0, 1.0):
                yield _twice(
                    "between -1 and 1, as after a tanh",
                    "Bernoulli applies the sigmoid",
                    "p(y = 1) cannot leave [0.27, 0.73]",
                )
        case HeteroscedasticGaussian():
            half = probe.outputs.shape[1] // 2
            if probe.held(0.0, float("inf"), slice(half, None)):
                yield _twice(
                    "never negative where they stand for the noise, as after softplus or exp",
                    "HeteroscedasticGaussian applies softplus",
                    "the std cannot fall below log 2 = 0.69",
                )
            yield from _of_bounds(probe, targets, slice(half))
        case Gaussian():
            yield from _of_bounds(probe, targets, slice(None))


def _of_classes(problem: Problem, probe: Probe) -> Iterator[str]:
    if _classes_last(problem, probe.outputs).shape[-1] < 2:
        return
    if probe.held(0.0, 1.0):
        sums = [_classes_last(problem, values).double().sum(-1) for values in (probe.outputs, *probe.scaled)]
        softmax = all(bool(((s - 1).abs() < 1e-2).all()) for s in sums)
        what = "probabilities, as after a softmax" if softmax else "between 0 and 1, as after a sigmoid"
        yield _twice(
            what, "Categorical applies the softmax", "no class can be more than e times as probable as another"
        )
    elif probe.held(-1.0, 1.0):
        yield _twice(
            "between -1 and 1, as after a tanh", "Categorical applies the softmax", "no class can become certain"
        )


def _of_bounds(probe: Probe, targets: Tensor, part: slice) -> Iterator[str]:
    """Say that targets lie where the outputs for them cannot go."""
    if probe.outputs.dim() != 2:
        return
    y = _columns(targets)
    infinity = float("inf")
    for low, high, what in (
        (0.0, 1.0, "in [0, 1]"),
        (-1.0, 1.0, "in [-1, 1]"),
        (0.0, infinity, "at or above 0"),
        (-infinity, 0.0, "at or below 0"),
    ):
        if probe.held(low, high, part):
            outside = float(((y < low) | (y > high)).double().mean())
            if outside > 0.05:
                yield (
                    f"The network's outputs are {what} whatever its weights are, and {outside:.0%} of the targets lie outside: "
                    "they run "
                    f"from {y.min():.3g} to {y.max():.3g}. Leave out the network's last activation."
                )
            return


def _twice(what: str, link: str, result: str) -> str:
    return (
        f"The network's outputs are {what}, whatever its weights are, and {link} to them again: {result}. Leave out its last "
        "activation; of a Sequential, network = network[:-1]."
    )


def _classes_last(problem: Problem, outputs: Tensor) -> Tensor:
    axes = getattr(problem.likelihood, "axes", None)
    return outputs.movedim(axes.index("C"), -1) if axes else outputs


def _columns(targets: Tensor) -> Tensor:
    step = -(-len(targets) // SAMPLE)
    y = targets[::step].detach().cpu().double()
    return y.reshape(len(y), -1)


def _places(where: Tensor) -> list[int]:
    places: list[int] = where.nonzero().flatten().tolist()
    return places


def _moments(mean: Tensor, std: Tensor, columns: list[int]) -> str:
    return _listed([f"mean {mean[d]:.5g}, std {std[d]:.3g}" for d in columns], columns, len(mean))


def _listed(parts: list[str], columns: list[int], width: int) -> str:
    """Name the first few columns, where there are several."""
    if width == 1:
        return parts[0]
    named = [f"column {d}: {part}" for d, part in zip(columns[:NAMED], parts, strict=False)]
    return "; ".join(named) + (f"; and {len(parts) - NAMED} more" if len(parts) > NAMED else "")
