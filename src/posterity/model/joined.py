"""The prior of a network that was made Bayesian part by part: each part keeps its own."""

from collections.abc import Collection, Mapping, Sequence

from pydantic import Field
from torch import Size

from posterity.model.priors import COMPOSED, Product
from posterity.options import dataclass
from posterity.types import Prior


@dataclass(frozen=True, config=COMPOSED)
class Joined(Product):
    """A product whose parts have the parameters of these exact names, p(θ) = Π_k p_k(θ_k)."""

    names: dict[str, frozenset[str]] = Field(default_factory=dict)

    @classmethod
    def of(cls, conversions: Sequence[tuple[Prior, Collection[str]]], shapes: Mapping[str, Size]) -> "Joined":
        """Join priors, each with the names that it was given; the parts of a product become parts of their own."""
        parts: list[tuple[Prior, frozenset[str]]] = []
        for prior, names in conversions:
            own = {n: s for n, s in shapes.items() if n in names}
            divided = prior.assigned(own) if isinstance(prior, Product) else [(prior, own)]
            parts += [(part, frozenset(theirs)) for part, theirs in divided]
        numbered = {str(number): part for number, part in enumerate(parts, 1)}
        return cls({k: prior for k, (prior, _) in numbered.items()}, names={k: own for k, (_, own) in numbered.items()})

    def assigned(self, shapes: Mapping[str, Size]) -> list[tuple[Prior, dict[str, Size]]]:
        divided = [(part, {n: s for n, s in shapes.items() if n in self.names[k]}) for k, part in self.parts.items()]
        return [(part, own) for part, own in divided if own]
