"""What a posterior predicts of targets of which it knows quantiles alone."""

from dataclasses import dataclass
from typing import Any, NoReturn, final

import torch
from torch import Generator, Tensor

from posterity.core.families import Pinball
from posterity.errors import InvalidInput
from posterity.predict.checks import averaged, finite_values, in_words, quantile_levels
from posterity.predict.decomposition import precise
from posterity.predict.general import General
from posterity.types import Scores
from posterity.weighing import there

CLOSE = 1e-6  # levels are the same, of float32 too


@final
@dataclass(frozen=True, eq=False, repr=False)
class Quantiles(General):
    """Quantiles of n drawn functions, (n, B, Q), of the levels that were trained: no density, no mean, no draws of targets.

    `quantile` is the mean over the functions, in rising order (Chernozhukov et al. 2010); `interval` is there where both its
    ends are among the levels. Of scores there is `pinball`, the mean loss of all levels, in units of the target.

    >>> draws = Quantiles(Pinball(torch.tensor([[[0.0, 1.0]], [[2.0, 5.0]]]), torch.ones(2, 1, 2), (0.05, 0.95)))
    >>> draws.interval(0.9), round(draws.scores(torch.tensor([2.0]))["pinball"], 6)
    ((tensor([1.]), tensor([3.])), 0.05)
    """

    distribution: Pinball

    def __repr__(self) -> str:
        """Say in one line what it is of."""
        parts = {f"quantile {level:g}": values for level, values in zip(self.levels, self._values, strict=True)}
        return in_words("Quantiles", self.count, self.distribution.batch_shape[1:], "targets", parts)

    @property
    def levels(self) -> tuple[float, ...]:
        """Those that were trained."""
        return self.distribution.levels

    @property
    def _values(self) -> Tensor:
        """The quantiles of all levels, (Q, B)."""
        drawn = self.distribution.quantiles
        mean = precise(drawn).mean(0).sort(-1).values.movedim(-1, 0)
        return (mean * self.scale + self.loc).to(drawn.dtype)

    def quantile(self, q: float | Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return quantiles of levels that were trained, (B,), or (Q, B) for a vector of them.

        Raises:
            InvalidInput: for another level.
        """
        places = [self._place(level) for level in quantile_levels(q)]
        values = self._values[places]
        return values if isinstance(q, Tensor) and q.dim() else values[0]

    def scores(self, targets: Tensor, weights: Tensor | None = None) -> Scores:
        """Return `pinball`, the mean over levels and targets (B,), by weights, of max(q (y − f_q), (q − 1)(y − f_q))."""
        values = precise(self._values)
        away = finite_values(targets, values.shape[1:]).to(values.device) - values
        levels = values.new_tensor(self.levels).unsqueeze(-1)
        losses = torch.maximum(levels * away, (levels - 1) * away).mean(0)
        return {"pinball": averaged(losses, there(targets).double() * (1.0 if weights is None else weights.double()))}

    def log_prob(self, targets: Tensor) -> NoReturn:
        """Refuse: quantiles have no density."""
        self._refuse("log_prob")

    def sample(self, count: int, generator: Generator | None = None) -> NoReturn:
        """Refuse: quantiles have no density."""
        self._refuse("sample")

    def cdf(self, y: Tensor) -> NoReturn:
        """Refuse: quantiles have no density."""
        self._refuse("cdf")

    def crps(self, targets: Tensor) -> NoReturn:
        """Refuse: quantiles have no density."""
        self._refuse("crps")

    def _moment(self, name: str) -> NoReturn:
        self._refuse(name)

    def _refuse(self, what: str) -> NoReturn:
        raise InvalidInput(
            f"There is no {what} of a quantile likelihood, which is no density: ask for quantile(…) of {self._listed}, or "
            "train StudentT() or MixtureDensity(), which have one."
        )

    def _place(self, level: float) -> int:
        place = next((i for i, own in enumerate(self.levels) if abs(own - level) < CLOSE), None)
        if place is None:
            raise InvalidInput(
                f"The quantile of level {level:g} was not trained; those of {self._listed} were: Quantile(levels=…)."
            )
        return place

    @property
    def _listed(self) -> str:
        return ", ".join(f"{level:g}" for level in self.levels)

    @property
    def _curve(self) -> Any:  # none, whatever it is asked
        return None
