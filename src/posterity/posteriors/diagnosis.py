"""What convergence diagnostics say of a posterior by Markov chains, in numbers and in words."""

from dataclasses import dataclass
from math import isnan

from torch import Tensor

from posterity.core import diagnostics

GOOD_RHAT, FAIR_RHAT = 1.01, 1.05  # Vehtari et al. 2021 want 1.01
GOOD_ESS = 400.0  # enough for the diagnostics themselves and for an error of 5 % of a std
LOW_BFMI = 0.3


@dataclass(frozen=True)
class Convergence:
    """The worst of many quantities: R-hat, and effective sample sizes for centre and tails; NaN where none ever moves."""

    rhat: float
    ess_bulk: float
    ess_tail: float

    @classmethod
    def of(cls, draws: Tensor) -> "Convergence":
        """Diagnose draws (C, S, ...) of any quantities; those that never move are left out."""
        rhat = diagnostics.rhat(draws).flatten()
        moving = ~rhat.isnan()
        if not moving.any():
            return cls(float("nan"), float("nan"), float("nan"))
        bulk, tail = (f(draws).flatten()[moving] for f in (diagnostics.ess_bulk, diagnostics.ess_tail))
        known = tail[~tail.isnan()]  # a quantity of few values may have no tail
        return cls(float(rhat[moving].max()), float(bulk.min()), float(known.min()) if len(known) else float("nan"))


@dataclass(frozen=True)
class Diagnosis:
    """Whether to trust the chains; `str()` is a table with a verdict.

    `functions` decide: weights of a network have many equivalent arrangements, between which chains differ while they agree
    on every prediction; a high R-hat of weights alone is no fault.

    Args:
        chains, draws: C, and S per chain.
        weights: of the network's parameters.
        latents: of the latents of prior and likelihood, where there are any.
        functions: of the network's outputs on probe inputs (logits, or means), where inputs were given.
        divergences: transitions after warm-up whose energy was wrong by more than 1000 nats.
        e_bfmi: the lowest of the chains.
    """

    chains: int
    draws: int
    weights: Convergence
    latents: Convergence | None
    functions: Convergence | None
    divergences: int
    e_bfmi: float

    @property
    def rows(self) -> dict[str, Convergence]:
        named = {"weights": self.weights, "latents": self.latents, "functions": self.functions}
        return {name: row for name, row in named.items() if row is not None}

    @property
    def verdict(self) -> str:
        """Say in plain words whether the draws can be trusted, and what to do where not."""
        decisive = [row for name, row in self.rows.items() if name != "weights" or self.functions is None]
        worst, least = max(r.rhat for r in decisive), min(min(r.ess_bulk, r.ess_tail) for r in decisive)
        remarks = []
        if self.divergences:
            remarks.append(
                f"{self.divergences} divergences: parts of the posterior are too narrow for the step size; raise "
                "target_accept, or use a non-centred prior"
            )
        if self.e_bfmi < LOW_BFMI:
            remarks.append(f"E-BFMI {self.e_bfmi:.2f} is low: the tails are hardly reached; use a lighter-tailed prior")
        if isnan(worst) or worst > FAIR_RHAT:
            remarks.append("the chains disagree: do not trust them; warm up longer, or use mass='dense'")
        elif worst > GOOD_RHAT:
            remarks.append("the chains nearly agree: take more draws")
        if not isnan(worst) and worst <= FAIR_RHAT and not least >= GOOD_ESS:
            remarks.append(f"an effective sample size of {least:.0f} is small: means are rough, tails rougher")
        return "; ".join(remarks) + "." if remarks else "The chains agree, and there are enough draws."

    def __str__(self) -> str:
        lines = [
            f"{self.chains} chains of {self.draws} draws, {self.divergences} divergences, E-BFMI {self.e_bfmi:.2f}",
            f"{'':12}{'worst R-hat':>12}{'bulk ESS':>10}{'tail ESS':>10}",
        ]
        lines += [f"{n:12}{r.rhat:12.3f}{r.ess_bulk:10.0f}{r.ess_tail:10.0f}" for n, r in self.rows.items()]
        return "\n".join([*lines, self.verdict[:1].upper() + self.verdict[1:]])
