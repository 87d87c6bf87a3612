"""Priors over the network's parameters: exact log-densities, exact draws, no floors. Densities are in nats.

A prior names no network. Here are those made of others, and all of them together; the families are in
`location_scale`, `horseshoe`, `hierarchical` and `informative`.
"""

from collections.abc import Mapping
from functools import reduce
from math import isclose, log
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny, TypeAdapter, model_validator
from torch import Generator, Size, Tensor

from posterity.errors import InvalidInput
from posterity.model import patterns
from posterity.model.adopted import as_own_prior
from posterity.model.hierarchical import Hierarchical as Hierarchical
from posterity.model.horseshoe import Horseshoe as Horseshoe
from posterity.model.informative import Informative
from posterity.model.location_scale import Cauchy as Cauchy
from posterity.model.location_scale import Elementwise
from posterity.model.location_scale import Laplace as Laplace
from posterity.model.location_scale import Normal as Normal
from posterity.model.location_scale import StudentT as StudentT
from posterity.model.patterns import Positive
from posterity.options import STRICT, dataclass
from posterity.types import PRIOR, Latent, Params, Prior

COMPOSED = ConfigDict(extra="forbid", arbitrary_types_allowed=True)  # a part may be a prior of your own


@dataclass(frozen=True, config=STRICT)
class Flat(Prior):
    """No preference: p(w) ∝ 1, an improper prior, for maximum likelihood alone. It cannot be drawn from.

    >>> Flat().log_prob({"w": torch.ones(3)})
    tensor(0.)
    """

    kind: Literal["flat"] = "flat"

    def log_prob(self, params: Params) -> Tensor:
        return next(iter(params.values())).new_zeros(()) if params else torch.zeros(())

    def expected_log_prob(self, mean: Params, std: Params) -> Tensor:
        return self.log_prob(mean)

    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> Params:
        raise InvalidInput("A flat prior is improper: nothing can be drawn from it. Use Normal(0, std).")


@dataclass(frozen=True, config=STRICT)
class ScaleMixture(Elementwise):
    """Two zero-mean normals, p(w) = π N(w; 0, σ₁²) + (1 − π) N(w; 0, σ₂²) (Blundell et al. 2015, eq. 7).

    It is the `Mixture` of these two, under the names that the paper gives their parameters.

    >>> ScaleMixture(0.5, 1.0, 0.0025).log_prob({"w": torch.tensor([40.0])})
    tensor(-801.6121)
    """

    pi: Annotated[float, Field(gt=0, lt=1)] = 0.5
    std1: Positive = 1.0
    std2: Positive = 0.0025
    kind: Literal["scale_mixture"] = "scale_mixture"

    def elementwise(self, w: Tensor, shapes: Mapping[str, Size]) -> Tensor:
        return self._mixture().elementwise(w, shapes)

    def draw(self, like: Tensor, shapes: Mapping[str, Size], generator: Generator | None) -> Tensor:
        return self._mixture().draw(like, shapes, generator)

    def _mixture(self) -> "Mixture":
        return Mixture((Normal(0, self.std1), Normal(0, self.std2)), (self.pi, 1 - self.pi))


Component = Normal | Laplace | StudentT | Cauchy | ScaleMixture | Horseshoe


def _component(value: Any) -> Any:
    """Accept what a file says of a component; whoever has it already passes it as it is."""
    return _COMPONENTS.validate_python(value) if isinstance(value, Mapping) else value


@dataclass(frozen=True, config=COMPOSED)
class Mixture(Elementwise):
    """Each weight comes from one of K families, p(w_i) = Σ_k π_k p_k(w_i), independently of the other weights.

    The log-density is a log-sum-exp, exact however far w lies in the tails; there is no floor under the density.

    Args:
        components: p_1 … p_K, priors with independent coordinates.
        proportions: π_1 … π_K, positive, with the sum 1.

    >>> Mixture((Normal(0, 1), Laplace(0, 0.01)), (0.3, 0.7)).log_prob({"w": torch.tensor([0.0, 3.0])})
    tensor(-3.0641)
    """

    components: tuple[SerializeAsAny[Annotated[Elementwise, BeforeValidator(_component)]], ...]
    proportions: tuple[Positive, ...]
    kind: Literal["mixture"] = "mixture"

    @model_validator(mode="after")
    def _proportioned(self) -> "Mixture":
        if len(self.components) != len(self.proportions) or len(self.components) < 2:
            raise ValueError(
                f"{len(self.components)} components with {len(self.proportions)} proportions were given; a mixture needs two "
                "or more components, with one proportion each"
            )
        if not isclose(sum(self.proportions), 1, abs_tol=1e-6):
            raise ValueError(f"the proportions of a mixture have the sum 1; these have {sum(self.proportions):g}")
        return self

    def elementwise(self, w: Tensor, shapes: Mapping[str, Size]) -> Tensor:
        total = sum(self.proportions)
        pairs = zip(self.components, self.proportions, strict=True)
        return reduce(torch.logaddexp, (p.elementwise(w, shapes) + log(share / total) for p, share in pairs))

    def draw(self, like: Tensor, shapes: Mapping[str, Size], generator: Generator | None) -> Tensor:
        shares = torch.tensor(self.proportions, device=like.device)
        chosen = torch.multinomial(shares, like.numel(), replacement=True, generator=generator)
        draws = torch.stack([p.draw(like, shapes, generator) for p in self.components])
        return draws.gather(0, chosen[None]).squeeze(0)


# Their public names: `posterity.Laplace` is for the method, and a posterior may be a mixture too.
LaplacePrior = Laplace
MixturePrior = Mixture
Part = Component | Mixture | Flat | Hierarchical


def _part(value: Any) -> Any:
    """Accept what a file says of a part; whoever has it already passes it as it is, but never a Product."""
    if isinstance(value, Product) or (isinstance(value, Mapping) and value.get("kind", "product") == "product"):
        raise ValueError(
            "a part of a product is a prior, not another product: write the inner patterns in the outer one"
        )
    return _PARTS.validate_python(value) if isinstance(value, Mapping) else as_own_prior(value)


@dataclass(frozen=True, config=COMPOSED)
class Product(Prior):
    """A prior of its own for each part of the network, p(θ) = Π_k p_k(θ_k).

    Args:
        parts: `{pattern: prior}`; patterns are globs over parameter names, the first that matches a name counts. A prior
            that depends on names or shapes itself (patterns, fan-in, hierarchical groups) sees those of its part alone.

    Raises:
        InvalidInput: from all that takes names, where patterns do not fit them (see `match`), where two parts have
            latents of the same name, or where a part's fan-in needs a weight that another part has.

    >>> prior = Product({"*.bias": Normal(0, 1), "*": Laplace(0, 0.1)})
    >>> prior.log_prob({"fc.weight": torch.zeros(1, 1), "fc.bias": torch.zeros(1)})
    tensor(0.6905)
    """

    parts: Annotated[
        dict[str, SerializeAsAny[Annotated[Prior, BeforeValidator(_part)]]],
        Field(min_length=1),
    ]
    kind: Literal["product"] = "product"

    def assigned(self, shapes: Mapping[str, Size]) -> list[tuple[Prior, dict[str, Size]]]:
        """Return each part with the names and shapes that are its own."""
        chosen = patterns.match({p: p for p in self.parts}, shapes, "parts")
        own = {p: {n: s for n, s in shapes.items() if chosen[n] == p} for p in self.parts}
        for pattern, part in self.parts.items():
            _refuse_lost_fan_in(part, own[pattern], shapes)
        return [(part, own[p]) for p, part in self.parts.items() if own[p]]

    def latents(self, shapes: Mapping[str, Size]) -> Mapping[str, Latent]:
        found: dict[str, Latent] = {}
        for part, own in self.assigned(shapes):
            latents = part.latents(own)
            if twice := found.keys() & latents:
                raise InvalidInput(
                    f"Two parts of the prior call a latent '{min(twice)}'; give one of them a name of its own: "
                    "Hierarchical(name='scale2')."
                )
            found.update(latents)
        return found

    def initial(self, weights: Params) -> Params:
        parts = self.assigned(patterns.shapes_of(weights))
        return {k: v for part, own in parts for k, v in part.initial({n: weights[n] for n in own}).items()}

    def log_prob(self, params: Params) -> Tensor:
        return torch.stack([part.log_prob(own) for part, own in self._divided(params)]).sum()

    def expected_log_prob(self, mean: Params, std: Params) -> Tensor | None:
        terms = [part.expected_log_prob(own, {n: std[n] for n in own if n in std}) for part, own in self._divided(mean)]
        known = [term for term in terms if term is not None]
        return torch.stack(known).sum() if len(known) == len(terms) else None

    def volume(self, params: Params) -> Tensor | None:
        terms = [term for part, own in self._divided(params) if (term := part.volume(own)) is not None]
        return torch.stack(terms).sum() if terms else None

    def weights(self, params: Params) -> Params:
        found: dict[str, Tensor] = {}
        for part, own in self._divided(params):
            found.update(part.weights(own))
        return {n: found[n] for n in params if n in found}

    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> Params:
        found: dict[str, Tensor] = {}
        for part, own in self.assigned(shapes):
            found.update(part.sample(own, generator))
        return {n: found[n] for n in shapes}

    def _divided(self, params: Params) -> list[tuple[Prior, Params]]:
        """Return each part with its own coordinates, and those of its latents."""
        shapes = {n: p.shape for n, p in params.items() if not n.startswith(PRIOR)}
        names = [(part, [*own, *(PRIOR + n for n in part.latents(own))]) for part, own in self.assigned(shapes)]
        return [(part, {n: params[n] for n in own if n in params}) for part, own in names]


AnyPrior = Annotated[Part | Product, Field(discriminator="kind")]
_COMPONENTS = TypeAdapter[Any](Annotated[Component, Field(discriminator="kind")])
_PARTS = TypeAdapter[Any](Annotated[Part, Field(discriminator="kind")])


def as_prior(value: Any) -> Prior:
    """Return a prior as it is, and turn `{pattern: prior}` into their `Product`.

    Raises:
        InvalidInput: for anything else.

    >>> as_prior({"*.bias": Normal(0, 1), "*": Laplace(0, 0.1)}).parts["*"].scale
    0.1
    """
    value = as_own_prior(value)
    if isinstance(value, Prior):
        return value
    if not isinstance(value, Mapping) or not value:
        raise InvalidInput(
            f"A prior of {value!r} was given; expected a Prior, as Normal(0, 0.1), or priors by name pattern, as "
            "{'*.bias': Normal(0, 1), '*': Laplace(0, 0.1)}."
        )
    parts = {pattern: as_own_prior(part) for pattern, part in value.items()}
    for pattern, part in parts.items():
        if not isinstance(pattern, str) or not isinstance(part, Prior) or isinstance(part, Product):
            raise InvalidInput(
                f"The prior's part {pattern!r} is {part!r}; expected a pattern of parameter names with a Prior, as "
                "'*.bias': Normal(0, 1), not a mapping or a Product in its turn."
            )
    return Product(parts)


def normal_form(prior: Prior, shapes: Mapping[str, Size], like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the mean and std of each coordinate, both (P,), where a prior is independent normals; else None."""
    if isinstance(prior, Normal | Informative):
        return prior.resolve(shapes, like)
    if not isinstance(prior, Product):
        return None
    means: dict[str, Tensor] = {}
    stds: dict[str, Tensor] = {}
    for part, own in prior.assigned(shapes):
        form = normal_form(part, own, like)
        if form is None:
            return None
        means.update(patterns.split(form[0], own))
        stds.update(patterns.split(form[1], own))
    return patterns.flatten({n: means[n] for n in shapes}), patterns.flatten({n: stds[n] for n in shapes})


def _refuse_lost_fan_in(part: Prior, own: Mapping[str, Size], shapes: Mapping[str, Size]) -> None:
    """A bias takes its fan-in from the weight beside it, and would silently have 1 without it."""
    lost = [n for n in own if getattr(part, "fan_in", False) and patterns.fan_in(n, own) != patterns.fan_in(n, shapes)]
    if lost:
        raise InvalidInput(
            f"The prior of '{lost[0]}' is divided by √fan-in, but the weight that has it belongs to another part; give "
            f"both to one part, or '{lost[0]}' a scale without fan_in."
        )
