"""What diagnostics say of a posterior, in numbers and in words: chains, Gaussians, mixtures of these, and all others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter
from torch import Tensor

from posterity.core import diagnostics, pareto
from posterity.posteriors.gradients import GradientSignal

GOOD_RHAT, FAIR_RHAT = 1.01, 1.05  # Vehtari et al. 2021 want 1.01
GOOD_ESS = 400.0  # enough for the diagnostics themselves and for an error of 5 % of a std
LOW_BFMI = 0.3
CLOSE = 0.5  # k̂ below which ratios have a variance
STILL = 3.0  # times the gradient that chance would show
UNTOUCHED = 0.05  # contraction of a layer that the data said nothing about
Number = Annotated[float, BeforeValidator(lambda value: nan if value is None else value)]  # JSON has no NaN


@dataclass(frozen=True)
class Convergence:
    """The worst of many quantities; NaN where none ever moves.

    Args:
        rhat: rank-normalised split R-hat.
        ess_bulk, ess_tail: effective sample sizes for centre and tails.
        mcse: Monte-Carlo standard error of a mean, as a share of that quantity's std.
    """

    rhat: Number
    ess_bulk: Number
    ess_tail: Number
    mcse: Number = nan

    @classmethod
    def of(cls, draws: Tensor) -> "Convergence":
        """Diagnose draws (C, S, ...) of any quantities; those that never move are left out."""
        rhat = diagnostics.rhat(draws).flatten()
        moving = ~rhat.isnan()
        if not moving.any():
            return cls(nan, nan, nan, nan)
        own = draws.detach().flatten(2)[..., moving.to(draws.device)] if draws.dim() > 2 else draws.detach()[..., None]
        bulk, tail, mean = (f(own) for f in (diagnostics.ess_bulk, diagnostics.ess_tail, diagnostics.ess_mean))
        known = tail[~tail.isnan()]  # a quantity of few values may have no tail
        least = float(known.min()) if len(known) else nan
        return cls(float(rhat[moving].max()), float(bulk.min()), least, float(mean.min()) ** -0.5)


@dataclass(frozen=True)
class Trace:
    """One quantity's path through each chain, thinned for a picture: `values`, C rows of equal length."""

    name: str
    rhat: Number
    values: tuple[tuple[float, ...], ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What can be said of any posterior; `str()` is a table with a verdict.

    Args:
        family: of the posterior, e.g. 'samples'.
        contraction: by layer, see `contraction`; empty where there is none.
    """

    family: str
    contraction: Mapping[str, Number] = field(default_factory=dict)
    kind: Literal["other"] = "other"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is wrong, and what to do; nothing where all is well."""
        return ()

    @property
    def praise(self) -> str:
        """What is said where there are no remarks."""
        return f"There is no test of a {self.family.replace('_', ' ')}: judge it by validation scores and calibration"

    @property
    def verdict(self) -> str:
        """Say in plain words whether the posterior can be trusted, and what to do where not."""
        text = "; ".join(self.remarks) or self.praise
        return text[:1].upper() + text[1:] + "."

    @property
    def table(self) -> tuple[str, ...]:
        """The numbers, line by line."""
        return (f"A posterior of the family '{self.family}'",)

    def __str__(self) -> str:
        layers = [f"{'contraction':14}{'1 − var/prior var':>18}"] if self.contraction else []
        layers += [f"{name:14}{value:18.3f}" for name, value in self.contraction.items()]
        return "\n".join([*self.table, *layers, self.verdict])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, `verdict` among them, that `diagnosis_from` reads."""
        return {**TypeAdapter(type(self)).dump_python(self, mode="json"), "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class ChainDiagnosis(Diagnosis):
    """Whether Markov chains have found the same posterior.

    `functions` decide: weights of a network have many equivalent arrangements, between which chains differ while they agree
    on every prediction; a high R-hat of weights alone is no fault.

    Args:
        chains, draws: C, and S per chain.
        weights: of the network's parameters.
        latents: of the latents of prior and likelihood, where there are any.
        functions: of the network's outputs on probe inputs (logits, or means), where inputs were given.
        divergences: transitions after warm-up whose energy was wrong by more than 1000 nats; None for samplers without.
        e_bfmi: the lowest of the chains; likewise.
        traces: the quantity with the worst R-hat of each row.
    """

    chains: int
    draws: int
    weights: Convergence
    latents: Convergence | None = None
    functions: Convergence | None = None
    divergences: int | None = None
    e_bfmi: Number | None = None
    traces: tuple[Trace, ...] = ()
    kind: Literal["chains"] = "chains"  # type: ignore[assignment]  # the discriminator

    @property
    def rows(self) -> dict[str, Convergence]:
        named = {"weights": self.weights, "latents": self.latents, "functions": self.functions}
        return {name: row for name, row in named.items() if row is not None}

    @property
    def remarks(self) -> tuple[str, ...]:
        decisive = [row for name, row in self.rows.items() if name != "weights" or self.functions is None]
        worst, least = max(r.rhat for r in decisive), min(min(r.ess_bulk, r.ess_tail) for r in decisive)
        remarks = []
        if self.divergences:
            remarks.append(
                f"{self.divergences} divergences: parts of the posterior are too narrow for the step size; raise "
                "target_accept, or use a non-centred prior"
            )
        if self.e_bfmi is not None and self.e_bfmi < LOW_BFMI:
            remarks.append(f"E-BFMI {self.e_bfmi:.2f} is low: the tails are hardly reached; use a lighter-tailed prior")
        if isnan(worst) or worst > FAIR_RHAT:
            remarks.append(self._disagreement)
        elif worst > GOOD_RHAT:
            remarks.append("the chains nearly agree: take more draws")
        if not isnan(worst) and worst <= FAIR_RHAT and not least >= GOOD_ESS:
            remarks.append(f"an effective sample size of {least:.0f} is small: means are rough, tails rougher")
        return tuple(remarks)

    @property
    def _disagreement(self) -> str:
        if self.chains == 1:
            return "the chain's halves disagree: it has not settled; run more epochs, and several (Ensemble) to be sure"
        if self.divergences is None:
            return (
                "the chains disagree: each has found another part of the posterior; run more epochs, and keep them all"
            )
        return "the chains disagree: do not trust them; warm up longer, or use mass='dense'"

    @property
    def praise(self) -> str:
        if self.chains == 1:
            return "The two halves of the one chain agree; that another chain would too, only another can tell"
        return "The chains agree, and there are enough draws"

    @property
    def table(self) -> tuple[str, ...]:
        chains = f"{self.chains} chain{'s' if self.chains > 1 else ''} of {self.draws} draws"
        special = f", {self.divergences} divergences, E-BFMI {self.e_bfmi:.2f}" if self.divergences is not None else ""
        rows = [
            f"{n:12}{r.rhat:12.3f}{r.ess_bulk:10.0f}{r.ess_tail:10.0f}{100 * r.mcse:10.1f} %"
            for n, r in self.rows.items()
        ]
        head = f"{'':12}{'worst R-hat':>12}{'bulk ESS':>10}{'tail ESS':>10}{'MCSE/std':>12}"
        return (chains + special, head, *rows)


@dataclass(frozen=True, kw_only=True)
class GaussianDiagnosis(Diagnosis):
    """How well a Gaussian approximates the posterior, and whether its fit has converged.

    Args:
        khat: k̂ of the ratios p(θ, D)/q(θ), see `pareto.smooth`; None where no data were given.
        log_ratios: log p(θ_s, D) − log q(θ_s), less their largest, sorted; empty likewise.
        gradients: by layer, see `gradient_signal`; of mean-field fits whose data were given.
    """

    khat: Number | None = None
    log_ratios: tuple[float, ...] = field(default=(), repr=False)
    gradients: tuple[GradientSignal, ...] = ()
    kind: Literal["gaussian"] = "gaussian"  # type: ignore[assignment]  # the discriminator

    @property
    def limit(self) -> float:
        """The k̂ that so many draws can be relied on below."""
        return pareto.reliable_below(len(self.log_ratios)) if self.log_ratios else nan

    @property
    def remarks(self) -> tuple[str, ...]:
        remarks = []
        if self.khat is None:
            remarks.append("without the training data nothing says how close it is: diagnose(data=…)")
        elif not self.khat < self.limit:
            remarks.append(
                f"Pareto k̂ is above {self.limit:.2f}: the posterior has mass where this Gaussian has hardly any, so "
                "do not read its stds as the posterior's. For more than some dozen weights that is the rule, and "
                "predictions may be good all the same: judge them by validation scores, or against NUTS on a smaller "
                "network; LowRank, FullRank or an Ensemble come closer"
            )
        elif self.khat > CLOSE:
            remarks.append("Pareto k̂ is fair: close enough that importance weights would correct it")
        moving = [g.layer for g in self.gradients if g.pull > STILL]
        if moving:
            remarks.append(
                f"the gradient still points somewhere in {_listed(moving)}: train longer, or let lr fall further"
            )
        untouched = [name for name, value in self.contraction.items() if value < UNTOUCHED]
        if untouched:
            which = "all layers" if len(untouched) == len(self.contraction) else _listed(untouched)
            remarks.append(f"the data hardly moved {which} from the prior: train longer, or use a smaller network")
        return tuple(remarks)

    @property
    def praise(self) -> str:
        return "Pareto k̂ is low: the Gaussian is close to the posterior, and its moments can be trusted"

    @property
    def table(self) -> tuple[str, ...]:
        first = f"A Gaussian, {self.family.removesuffix('_gaussian').replace('_', ' ')}"
        if self.khat is not None:
            first += f": Pareto k̂ {self.khat:.2f} of {len(self.log_ratios)} draws, reliable below {self.limit:.2f}"
        if not self.gradients:
            return (first,)
        rows = [f"{g.layer:14}{g.mean:10.3f}{g.rho:10.3f}{g.pull:10.1f}" for g in self.gradients]
        return (first, f"{'gradient':14}{'SNR of μ':>10}{'SNR of ρ':>10}{'pull':>10}", *rows)


@dataclass(frozen=True, kw_only=True)
class MixtureDiagnosis(Diagnosis):
    """A mixture's components, each diagnosed by itself: `parts`."""

    parts: tuple["AnyDiagnosis", ...]
    kind: Literal["mixture"] = "mixture"  # type: ignore[assignment]  # the discriminator

    @property
    def remarks(self) -> tuple[str, ...]:
        found: dict[str, list[str]] = {}
        for number, part in enumerate(self.parts, 1):
            for remark in part.remarks:
                found.setdefault(remark, []).append(str(number))
        return tuple(f"component {', '.join(who)}: {remark}" for remark, who in found.items())

    @property
    def praise(self) -> str:
        return (
            f"Of each of the {len(self.parts)} components: {self.parts[0].praise[:1].lower()}{self.parts[0].praise[1:]}"
        )

    @property
    def table(self) -> tuple[str, ...]:
        rows = [f"{number}: {line}" for number, part in enumerate(self.parts, 1) for line in part.table]
        return (f"A mixture of {len(self.parts)}", *rows)


AnyDiagnosis = Annotated[Diagnosis | ChainDiagnosis | GaussianDiagnosis | MixtureDiagnosis, Field(discriminator="kind")]


def diagnosis_from(values: Mapping[str, Any]) -> Diagnosis:
    """Restore what `to_dict` returned."""
    found: Diagnosis = TypeAdapter(AnyDiagnosis).validate_python({k: v for k, v in values.items() if k != "verdict"})
    return found


def _listed(names: list[str], most: int = 3) -> str:
    return ", ".join(f"'{n}'" for n in names[:most]) + (
        f" and {len(names) - most} more layers" if len(names) > most else ""
    )
