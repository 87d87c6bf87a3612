"""The likelihood of numbers that are known to lie in an interval: censored values, and times to an event."""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from posterity.core import censored as core
from posterity.errors import InvalidInput
from posterity.model.classes import refuse_count
from posterity.model.likelihoods import Gaussian
from posterity.model.positive import Gamma, LogNormal, Weibull
from posterity.model.robust import StudentT
from posterity.options import STRICT, dataclass
from posterity.types import Latent, Likelihood, Params

Values = Annotated[Weibull | LogNormal | Gamma | Gaussian | StudentT, Field(discriminator="kind")]


@dataclass(frozen=True, config=STRICT)
class Censored(Likelihood):
    """Numbers of which an interval is known, of another likelihood: targets (B, 2) are rows (low, high), outputs (..., B, 1).

        p(low, high | f) = p(y = low | f) where low = high,   else P(low < y ≤ high | f)

    - low = high: the value is known, an event that was seen.
    - (low, inf): it lies above, censored from the right; a time that had not come when the watching ended.
    - (-inf, high), of positive numbers (0, high) too: it lies below, censored from the left, as under a limit of detection.
    - (low, high): it lies between, as between two visits.

    `survival(times, events)` makes such rows of the times and events of survival data. What a row knows is taken to say
    nothing else of its value: the ends are chosen without looking at it (non-informative censoring).

    Args:
        values: the likelihood of the numbers themselves: Weibull(), LogNormal(), Gamma(), Gaussian() (Tobin 1958), StudentT().

    A prediction is of the numbers themselves, see `Survival`.

    >>> of = Censored(Weibull(unit=1.0, shape=1.0))
    >>> of(torch.zeros(2, 1), {}).log_prob(torch.tensor([[2.0, 2.0], [3.0, torch.inf]]))
    tensor([-2., -3.])
    """

    own_units: ClassVar[bool] = True
    values: Values = field(default_factory=Weibull)
    kind: Literal["censored"] = "censored"

    def __call__(self, outputs: Tensor, latents: Params) -> core.Censored:
        return core.Censored(self.values(outputs, latents))

    def latents(self) -> Mapping[str, Latent]:
        return self.values.latents()

    def started(self, inputs: Tensor, targets: Tensor) -> Self:
        known, values = self._somewhere(targets)
        return replace(self, values=self.values.started(inputs[known.to(inputs.device)], values[known]))

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Tensor:
        """−∂² log p/∂f² of the rows as they were seen, 0 where it is below: what they would be uncensored nobody knows."""
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            total = self(leaf, latents).log_prob(targets).sum()
            (score,) = torch.autograd.grad(total, [leaf], create_graph=True)
            (bend,) = torch.autograd.grad(score.sum(), [leaf])
        return -bend.clamp(max=0)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        refuse_count(outputs, targets)
        if outputs.shape[1:] != (1,) or targets.shape[1:] != (2,) or targets.is_complex():
            raise InvalidInput(
                f"Targets of shape {tuple(targets.shape)} and outputs of shape {tuple(outputs.shape)} were given; Censored "
                "needs one output for each example, (B, 1), and rows (low, high), (B, 2): "
                "posterity.likelihoods.survival(times, events), or torch.stack([low, high], 1)."
            )
        low, high = targets.unbind(1)
        wrong = ~(low <= high) | (low == torch.inf) | (high == -torch.inf)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            raise InvalidInput(
                f"Target {row} is {targets[row].tolist()}; it is (low, high) with low ≤ high: both alike of a known value, "
                "high = inf where it lies above low, low = -inf where it lies below high."
            )
        known, values = self._somewhere(targets)
        if not bool(known.any()):
            raise InvalidInput("All targets may be any number that there is: there is nothing to learn from.")
        self.values.check(outputs, torch.where(known, values, values[known][:1]))

    def _somewhere(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return which rows say anything, and a number for each: the value, the end, or the middle of the two."""
        low, high = targets.unbind(1)
        least = getattr(getattr(self.values, "support", None), "lower_bound", -torch.inf)
        middle = torch.where(low > -torch.inf, low + (high - low) / 2, high)
        return (low > least) | (high < torch.inf), torch.where(high < torch.inf, middle, low)


def survival(times: Tensor, events: Tensor) -> Tensor:
    """Return targets (N, 2) for `Censored`, of times (N,) and whether an event was seen then, (N,): 1, or 0 of censored ones.

    Raises:
        InvalidInput: for other shapes, and events that are neither 0 nor 1.

    >>> survival(torch.tensor([2.0, 3.0]), torch.tensor([1, 0]))
    tensor([[2., 2.],
            [3., inf]])
    """
    times, events = torch.as_tensor(times), torch.as_tensor(events)
    if times.dim() != 1 or events.shape != times.shape or not bool(((events == 0) | (events == 1)).all()):
        raise InvalidInput(
            f"Times of shape {tuple(times.shape)} and events of shape {tuple(events.shape)} were given; both are (N,), and "
            "events are 1 where one was seen at that time, 0 where it had not come."
        )
    times = times if times.is_floating_point() else times.to(torch.get_default_dtype())
    return torch.stack([times, torch.where(events == 1, times, torch.inf)], 1)
