"""The likelihood of counts with more zeros than their family gives."""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch import distributions as dist

from posterity.core import families
from posterity.model.columns import Columns, Learnt
from posterity.model.counts import COUNTS, Binomial, NegativeBinomial, Poisson
from posterity.model.shares import SHARE, Shares
from posterity.options import STRICT, dataclass
from posterity.types import Latent, Params

LEAST, MOST = 0.02, 0.9  # of a share of zeros that is taken from the data
Counts = Annotated[Poisson | NegativeBinomial | Binomial, Field(discriminator="kind")]


@dataclass(frozen=True, config=STRICT)
class ZeroInflated(Columns):
    """Counts that are 0 with a probability of their own, and else those of another likelihood (Lambert 1992).

        P(y) = zeros · 1[y = 0] + (1 − zeros) · p(y | f),   p that of `counts`: Poisson(), NegativeBinomial(), Binomial(n)

    Outputs f (..., B, D) are those of `counts`, targets (B,) where D = 1, else (B, D). `zeros` is fixed, one number between 0
    and 1 or one for each target; None learns it: the coordinate `likelihood.zeros`, of which it is the sigmoid, with the
    uniform prior. What `counts` learns is beside it, `likelihood.dispersion` say.

    Args:
        initial_zeros: of a learnt share; None: `fit` takes the zeros beyond those that `counts` would give from its start,
            which is that of the data above 0.

    >>> ZeroInflated(Poisson(unit=2.0), zeros=0.5)(torch.zeros(2, 1), {}).mean
    tensor([1., 1.])
    """

    own_units: ClassVar[bool] = True
    support: ClassVar[Any] = dist.constraints.nonnegative_integer
    takes: ClassVar[str] = COUNTS
    learnt: ClassVar[Mapping[str, Learnt]] = {"zeros": SHARE}
    counts: Counts = field(default_factory=Poisson)
    zeros: Shares | None = None
    initial_zeros: Shares | None = None
    kind: Literal["zero_inflated"] = "zero_inflated"

    def family(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        zeros = self.value("zeros", outputs, latents).expand_as(outputs)
        return families.ZeroInflated(self.counts.family(outputs, latents), zeros)

    def latents(self) -> Mapping[str, Latent]:
        return {**self.counts.latents(), **super().latents()}

    def information(self, outputs: Tensor, latents: Params) -> Tensor:
        """P(0) s₀² of the zeros' score s₀, and (1 − zeros) times what `counts` knows but for its own zeros."""
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            log_zero = self.counts.family(leaf, latents).log_prob(torch.zeros_like(leaf))
            (score,) = torch.autograd.grad(log_zero.sum(), [leaf])
        zeros, own = self.value("zeros", outputs, latents), log_zero.detach().exp()
        counted = (1 - zeros) * own
        known = self.counts.information(outputs, latents) - own * score.square()
        return (counted * score).square() / (zeros + counted) + (1 - zeros) * known.clamp(min=0)

    def started(self, inputs: Tensor, targets: Tensor) -> Self:
        some = targets.reshape(len(targets), -1).gt(0).all(1)
        some = some if int(some.sum()) > 1 else torch.ones_like(some)
        counts = self.counts.started(inputs[some.to(inputs.device)], targets[some])
        return super(ZeroInflated, replace(self, counts=counts)).started(inputs, targets)

    def starts(self, inputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        latents = {name: latent.initial.double() for name, latent in self.counts.latents().items()}
        usual = self.counts.family(targets.new_zeros(targets.shape[1:]), latents)
        own = usual.log_prob(targets.new_zeros(targets.shape[1:])).exp()
        share = (targets == 0).double().mean(0)
        return {"zeros": ((share - own) / (1 - own)).clamp(LEAST, MOST)}

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        self.counts.check(outputs, targets)
        super().check(outputs, targets)
