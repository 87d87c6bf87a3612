"""What a posterior predicts of numbers that are known by intervals: of times to an event, and of censored values."""

from dataclasses import dataclass
from math import log
from typing import final

import torch
from torch import Tensor

from posterity.core.censored import Censored, tails
from posterity.errors import InvalidInput
from posterity.predict.checks import averaged
from posterity.predict.decomposition import precise
from posterity.predict.general import General
from posterity.types import Scores


@final
@dataclass(frozen=True, eq=False, repr=False)
class Survival(General):
    """Distributions p_s(y | x) of the numbers themselves, as `General` has them, scored by what is known of them.

    distribution: that of uncensored numbers, of batch shape (n, B).

    Mean, quantiles, intervals, `cdf` and samples are those of the numbers. `log_prob`, `crps` and `scores` take rows (low,
    high), (B, 2), as `Censored` does, or known values (B,).

    >>> draws = Survival(torch.distributions.Exponential(torch.tensor([[1.0], [2.0]])))  # 2 functions, 1 input
    >>> draws.survival(1.0), draws.log_prob(torch.tensor([[1.0, torch.inf]])).exp()  # (exp(−1) + exp(−2))/2, both
    (tensor([0.2516]), tensor([0.2516]))
    """

    def survival(self, t: Tensor | float) -> Tensor:
        """Return S(t) = P(y > t) for one number t, (B,), or for each of a vector, (T, B)."""
        median = self.quantile(0.5)
        times = torch.as_tensor(t, dtype=median.dtype, device=median.device)
        if times.dim() > 1 or bool(times.isnan().any()):
            raise InvalidInput(f"Expected one number or a vector of them, none NaN; got shape {tuple(times.shape)}.")
        values = torch.stack([self._above(each.expand_as(median)) for each in times.reshape(-1)]).to(median.dtype)
        return values if times.dim() else values[0]

    def crps(self, targets: Tensor) -> Tensor:
        """Return ∫F² up to low, and ∫(1 − F)² from high on, (B,), in units of the target (Avati et al. 2020).

        Of a known value that is the CRPS; of a censored one it is what is known of it.
        """
        low, high = ((end - self.loc) / self.scale for end in self._rows(targets).unbind(-1))
        low = torch.where(low > self._least, low, -torch.inf)
        found = self._needed(lambda curve: curve.beside(precise(low), precise(high)))
        return (found * self.scale).to(self._dtype)

    def inside(self, lower: Tensor, upper: Tensor, targets: Tensor) -> Tensor:
        """Return the share of each target that lies in (lower, upper), (B,): of a known value 1 or 0.

        Of a censored one it is P(lower < y ≤ upper | low < y ≤ high) by the prediction itself, as in D-calibration (Haider et
        al. 2020): the mean over the data is the interval's level, where the prediction is right and the censoring says nothing.
        """
        low, high = self._rows(targets).unbind(-1)
        known = ((lower <= low) & (high <= upper)).double()
        whole = self._above(low) - self._above(high)
        part = (self._above(low.maximum(lower)) - self._above(high.minimum(upper))).clamp(min=0)
        return torch.where(low == high, known, torch.where(whole > 0, part / whole, known))

    def scores(self, targets: Tensor, weights: Tensor | None = None) -> Scores:
        """Return nll of the mixture and expected_nll, in nats per datum, of the intervals' probabilities, by weights (B,)."""
        draws = precise(self._draw_log_probs(targets))
        counts = torch.ones_like(draws[0]) if weights is None else precise(weights)
        nll = log(self.count) - averaged(draws.logsumexp(0), counts)
        return {"nll": nll, "expected_nll": -averaged(draws.mean(0), counts)}

    def _draw_log_probs(self, targets: Tensor) -> Tensor:
        rows = self._rows(targets)
        scale, loc = (torch.as_tensor(part) for part in (self.scale, self.loc))
        known = rows[..., 0] == rows[..., 1]
        exact = self._own(torch.where(known, rows[..., 0], self.quantile(0.5)))
        own = torch.where(known.unsqueeze(-1), exact.unsqueeze(-1), (rows - loc) / scale)
        draws = Censored(self.distribution).log_prob(own)
        return draws - known * precise(scale).log().to(draws)

    def _rows(self, targets: Tensor) -> Tensor:
        """Return rows (low, high) that are in order, (B, 2)."""
        count = self.distribution.batch_shape[1]
        if targets.shape == (count,):
            targets = torch.stack([targets, targets], -1)
        if targets.shape != (count, 2) or not bool((targets[:, 0] <= targets[:, 1]).all()):
            raise InvalidInput(
                f"Expected rows (low, high) of shape {(count, 2)} with low ≤ high, or known values {(count,)}, got "
                f"{tuple(targets.shape)}: posterity.likelihoods.survival(times, events) makes them."
            )
        return targets

    @property
    def _least(self) -> float:
        """What no number lies below, in units of the distribution."""
        return float(getattr(self.distribution.support, "lower_bound", -torch.inf))

    def _above(self, values: Tensor) -> Tensor:
        """Return 1 − F of numbers (B,), which may be infinite or none that the family gives, float64."""
        own = (values - self.loc) / self.scale
        none, every = own <= self._least, own == torch.inf
        usual = (self.quantile(0.5) - self.loc) / self.scale
        above = tails(self.distribution, torch.where(none | every, usual, own))[1].exp().mean(0)
        return torch.where(none, 1.0, torch.where(every, 0.0, above))
