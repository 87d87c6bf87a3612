"""Fields that several methods share, with their ranges, and what those share that descend by one of torch's optimisers."""

from typing import Annotated, Any, ClassVar

from pydantic import Field

from posterity.core.optimizer import Optimizer
from posterity.methods.base import Method

Epochs = Annotated[int, Field(ge=1)]
Patience = Annotated[int, Field(ge=1)] | None


class Descending(Method):
    """Methods with an `optimizer`, which maximum likelihood beside them has, too."""

    shared: ClassVar[tuple[str, ...]] = ("epochs", "optimizer", "patience")
    optimizer: Any

    @property
    def pace(self) -> str:
        return pace_of(self.optimizer)

    @property
    def growing(self) -> tuple[str, ...]:
        return tuple(self.optimizer.growing)


def pace_of(optimizer: Optimizer) -> str:
    """Say how an optimiser's steps go.

    >>> pace_of(Optimizer(lr=0.01))
    '0.01, cosine, Adam'
    >>> pace_of(Optimizer())
    '0.001 or more, cosine, Adam'
    """
    open_to = " or more" if optimizer.lr is None and optimizer.normalised else ""
    return f"{optimizer.rate:g}{open_to}, {optimizer.schedule}, {optimizer.name}"
