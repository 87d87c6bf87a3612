"""θ's coordinates: which of a network's parameters are random, what the prior says of them, and the latents beside them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Size, Tensor, nn

from posterity.core import gaussian
from posterity.core.layout import Layout, bound, trainable
from posterity.errors import InvalidInput
from posterity.model.padding import constants
from posterity.model.priors import normal_form
from posterity.model.selection import NORMALISATION, Where, select
from posterity.types import LIKELIHOOD, PRIOR, Latent, Params, Prior


@dataclass(frozen=True, eq=False)
class Coordinates:
    """One vector θ of P numbers, in this order: free | point | random | latents of the prior | latents of the likelihood.

    - Point coordinates are trainable but not selected: std 0, no KL; their prior's log-density still counts.
    - Free ones are point coordinates without a prior: the scales and shifts of normalisation layers, about which a prior
      that is centred at 0 would say something wrong. Select them by `where=` and they are random, like any others.
    - From `start` on, coordinates are random.
    - Rows of padding are constants (`padding_rows`): no coordinates, and no part of what the prior speaks of.

    With `where=None` and no normalisation layers, θ is the network's parameters in their own order, then the latents.
    """

    params: dict[str, nn.Parameter]  # in θ's order; latents have parameters of their own here
    layout: Layout
    prior: Prior
    latents: dict[str, Latent]  # by full name: 'prior.…', 'likelihood.…'
    free: int  # where the prior begins
    start: int  # where randomness begins
    network: int  # where the network ends
    normal: tuple[Tensor, Tensor] | None  # the prior's mean and std of coordinates free … network − 1, if normal
    noncentred: bool  # whether the prior turns the network's coordinates into other weights

    @classmethod
    def of(
        cls,
        network: nn.Module,
        prior: Prior,
        latents: Mapping[str, Latent],
        where: Where = None,
        *,
        points: bool = True,
        padding: bool = True,
    ) -> "Coordinates":
        """Arrange a network's parameters, and the latents of its prior and of its likelihood (`likelihood.*`).

        Args:
            network, prior, latents, where: see `Problem`.
            points: whether the prior speaks of what is not selected; if not, that is free.
            padding: whether rows of padding are constants.

        Raises:
            InvalidInput: where the selection or the prior does not fit the network.
        """
        params = trainable(network)
        for name in params:
            if name.startswith((PRIOR, LIKELIHOOD)):
                raise InvalidInput(f"The network's parameter '{name}' has a reserved name; rename that module.")
        random = select(network, where)
        rest = set(params) - random
        free = rest & normalisation(network) if points else rest
        point = rest - free
        own = {n: params[n] for part in (free, point, random) for n in params if n in part}
        layout = Layout.of(own, constants(network) if padding else None)
        sizes = dict(zip(layout.names, layout.numels, strict=True))
        shapes = {n: s for n, s in zip(layout.names, layout.part_shapes, strict=True) if n not in free}
        like = next(iter(params.values())).detach()
        starts = prior.initial({n: layout.part(n, params[n].detach()) for n in shapes})
        begun = {n: replace(v, initial=starts.get(n, v.initial)) for n, v in prior.latents(shapes).items()}
        every = {PRIOR + n: latent for n, latent in begun.items()} | dict(latents)
        own |= {n: nn.Parameter(latent.initial.to(like, copy=True)) for n, latent in every.items()}
        layout = Layout.of(own, layout.constants)
        known = {n: p.detach() for n, p in own.items() if n not in free and not n.startswith(LIKELIHOOD)}
        values = {n: layout.part(n, p) for n, p in known.items()}
        prior.log_prob(values)  # a prior that cannot take these parameters says so here
        weights = prior.weights(values)
        counts = [sum(sizes[n] for n in part) for part in (free, point, random)]
        return cls(
            params=own,
            layout=layout,
            prior=prior,
            latents=every,
            free=counts[0],
            start=counts[0] + counts[1],
            network=sum(counts),
            normal=normal_form(prior, shapes, like),
            noncentred=any(weights[n] is not values[n] for n in shapes),
        )

    @property
    def random_layout(self) -> Layout:
        """Where the network's random parameters lie among the random coordinates: of a vector (network − start,)."""
        return self.layout.among(self.random_names)

    @property
    def random_names(self) -> tuple[str, ...]:
        """The names of the network's random parameters, in θ's order."""
        pairs = zip(self.layout.names, self.layout.offsets, strict=True)
        return tuple(n for n, offset in pairs if self.start <= offset < self.network)

    def theta(self) -> Tensor:
        """Return the θ (P,) at which the network computes with its parameters' present values; a copy."""
        values = {n: p.detach() for n, p in self.params.items()}
        return self.layout.flatten(values | {n: values[n] / scale for n, scale in self._scales().items()})

    def unit(self) -> Tensor:
        """Return the weight that one unit of each coordinate is at the start, (P,): s for those of a non-centred prior."""
        ones = {n: torch.ones_like(p) for n, p in self.params.items()}
        return self.layout.flatten(ones | self._scales())

    def units(self, vector: str) -> dict[str, Tensor]:
        """Return `unit` under a vector's name where the prior is non-centred, and nothing where all units are 1.

        With them an optimiser or a sampler takes steps that mean the same change of the weights in both forms.
        """
        return {vector: self.unit()} if self.noncentred else {}

    def _scales(self) -> dict[str, Tensor]:
        """Return what a non-centred prior multiplies its coordinates with, given its latents' present values."""
        if not self.noncentred:
            return {}
        ones = {n: p.detach() if n in self.latents else torch.ones_like(p) for n, p in self.params.items()}
        return {n: scale for n, scale in self.computed(ones).items() if n not in self.latents}

    def of_network(self, params: Params) -> dict[str, Tensor]:
        return {n: p for n, p in params.items() if n not in self.latents}

    def of_prior(self, params: Params) -> dict[str, Tensor]:
        """Leave out what the prior says nothing of: free coordinates, constant rows, and the likelihood's latents."""
        free = set(self._free_names)
        known = {n: p for n, p in params.items() if n not in free and not n.startswith(LIKELIHOOD)}
        return {n: self.layout.part(n, p) for n, p in known.items()} if self.layout.constants else known

    def of_likelihood(self, params: Params) -> dict[str, Tensor]:
        """Return the likelihood's own latents, by the likelihood's names."""
        return {n.removeprefix(LIKELIHOOD): p for n, p in params.items() if n.startswith(LIKELIHOOD)}

    @property
    def _free_names(self) -> tuple[str, ...]:
        return tuple(n for n, offset in zip(self.layout.names, self.layout.offsets, strict=True) if offset < self.free)

    def shapes(self) -> dict[str, Size]:
        """Shapes of the network's parameters that have a prior, without constant rows."""
        return {n: p.shape for n, p in self.of_prior(self.params).items() if n not in self.latents}

    def log_prior(self, theta: Tensor) -> Tensor:
        """Return log p(θ), shape (), in nats: the prior's and that of each latent."""
        params = self.layout.views(theta)
        if self.normal is None:
            total = self.prior.log_prob(self.of_prior(params))
        else:
            total = gaussian.log_prob(theta[self.free : self.network], *self.normal).sum()
        return total + self.log_prob_of_latents(params)

    def bounded_log_prior(self, theta: Tensor) -> Tensor:
        """Return what a search for a maximum takes for `log_prior`; see `Prior.volume`."""
        volume = self.prior.volume(self.of_prior(self.layout.views(theta)))
        return self.log_prior(theta) if volume is None else self.log_prior(theta) + volume

    def log_prob_of_latents(self, params: Params) -> Tensor:
        """Return the log-density of all latents, (), in nats."""
        terms = [latent.log_prob(params[n]) for n, latent in self.latents.items()]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def weights(self, theta: Tensor) -> Tensor:
        """Replace the network's coordinates by the weights that it computes with, (P,): θ itself for a centred prior."""
        return self.layout.flatten(self.computed(self.layout.views(theta))) if self.noncentred else theta

    def pull(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """Turn ∂L/∂weights into ∂L/∂θ, both (P,)."""
        if not self.noncentred:
            return gradient
        leaf = theta.detach().requires_grad_()
        with torch.enable_grad():
            (pulled,) = torch.autograd.grad(self.weights(leaf), [leaf], gradient)
        return pulled

    def bound(self, theta: Tensor) -> AbstractContextManager[None]:
        """Make the network (and the latents) compute with θ inside a `with` block."""
        return bound(self.params, self.layout.views(self.weights(theta)))

    def computed(self, params: Params) -> dict[str, Tensor]:
        """Put the weights that the network computes with in the place of coordinates, by name; constant rows stay."""
        weights = dict(self.prior.weights(self.of_prior(params)))
        for name, rows in self.layout.constants.items():
            if name in weights:
                weights[name] = rows.among(weights[name], params[name])
        return {**params, **weights}


def normalisation(network: nn.Module) -> set[str]:
    """Name the parameters of normalisation layers."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if isinstance(module, NORMALISATION)
        for name, _ in module.named_parameters(recurse=False)
    }
