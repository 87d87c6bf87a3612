"""Informative priors: what an earlier posterior, or trained weights, say of the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Size, Tensor, nn

from posterity.core import gaussian
from posterity.core.layout import Layout, difference, trainable
from posterity.errors import InvalidInput, Mismatch
from posterity.model import patterns
from posterity.model.padding import constants
from posterity.options import shown
from posterity.types import Params, Prior


@dataclass(frozen=True, eq=False)
class _Part:
    """The prior of the parameters that it was asked about, in their order.

    With A = D^(−½) factor = U S Vᵀ and D = diag(std²), the covariance is D^½ (I + A Aᵀ) D^½, so that for z = D^(−½) (w − mean)
    the quadratic form is |z − U Uᵀ z|² + Σ_k (Uᵀ z)_k² / (1 + S_k²), and log|I + A Aᵀ| = Σ_k log(1 + S_k²): Woodbury's identity
    as a sum of squares, which loses no digits where the factor is much wider than the std.
    """

    mean: Tensor
    std: Tensor
    factor: Tensor | None
    basis: Tensor | None  # U (P, K)
    spread: Tensor  # 1 + S², (K,)
    log_det: Tensor  # of the covariance's square root, ()
    precision: Tensor  # diagonal of the inverse covariance, (P,)

    @classmethod
    def of(cls, mean: Tensor, std: Tensor, factor: Tensor | None) -> "_Part":
        log_std = std.log().sum()
        if factor is None:
            return cls(mean, std, None, None, std.new_ones(0), log_std, std.square().reciprocal())
        basis, singular, _ = torch.linalg.svd(factor / std[:, None], full_matrices=False)
        squared = singular.square()
        log_det = log_std + 0.5 * torch.log1p(squared).sum()
        explained = (basis.square() * (squared / (1 + squared))).sum(-1)
        precision = (1 - explained).clamp_min(0) / std.square()
        return cls(mean, std, factor, basis, 1 + squared, log_det, precision)

    def log_prob(self, w: Tensor) -> Tensor:
        z = (w - self.mean) / self.std
        square = z.square().sum() if self.basis is None else self._square(z, self.basis)
        return -0.5 * (square + w.numel() * gaussian.LOG_2PI) - self.log_det

    def _square(self, z: Tensor, basis: Tensor) -> Tensor:
        within = basis.T @ z
        return (z - basis @ within).square().sum() + (within.square() / self.spread).sum()


@dataclass(frozen=True, eq=False)
class Informative(Prior):
    """p(w) = N(w; mean, diag(std²) + factor·factorᵀ): an earlier posterior, or a neighbourhood of trained weights.

    It is asked by name. Parameters that it knows of but is not asked about (those of a norm layer, of another part of a
    `Product`, an earlier posterior's noise level) are integrated out, which for a normal is to leave them out.

    Args:
        mean, std: one number for each coordinate of `layout`, (P,), std positive.
        layout: names and shapes of the parameters that they belong to, without rows of padding, which are no unknowns.
        factor: low-rank part of the covariance, (P, K), or None.

    Raises:
        InvalidInput: where shapes do not fit `layout`, or values are not finite, or a std is not positive.
        Mismatch: where it is asked about a parameter that `layout` does not have, or has with another shape.

    >>> layout = Layout.of({"w": torch.zeros(2)})
    >>> prior = Informative(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5]), layout)
    >>> prior.log_prob({"w": torch.tensor([1.0, 2.0])})
    tensor(-0.4516)
    """

    mean: Tensor
    std: Tensor
    layout: Layout
    factor: Tensor | None = None
    _parts: dict[object, _Part] = field(default_factory=dict, init=False, repr=False)  # by what was asked

    def __post_init__(self) -> None:
        kinds = {"mean": Tensor, "std": Tensor, "layout": Layout, "factor": Tensor | None}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise InvalidInput(
                    f"Informative({name}={shown(getattr(self, name))}): must be a {'Layout' if kind is Layout else 'tensor'}; "
                    "Informative.at(network, std) and Informative.of(posterior) make them."
                )
        wanted = {"mean": (self.layout.size,), "std": (self.layout.size,), "factor": (self.layout.size, "K")}
        for name, value in self.tensors().items():
            if value.shape[:1] != wanted[name][:1] or value.dim() != len(wanted[name]):
                raise InvalidInput(
                    f"The prior's {name} has shape {tuple(value.shape)}; its layout of {self.layout.size} coordinates needs "
                    f"({', '.join(map(str, wanted[name]))})."
                )
            if not value.isfinite().all():
                raise InvalidInput(f"The prior's {name} holds NaN or infinite values.")
        if not (self.std > 0).all():
            raise InvalidInput(
                f"The prior's smallest std is {float(self.std.min()):g}; it must be positive: std.clamp_min(1e-3), say."
            )

    @classmethod
    def at(cls, network: nn.Module, std: float | Mapping[str, float]) -> "Informative":
        """Put the mean at a network's present trainable weights: N(w; w_now, std²), MOPED's prior (Krishnan et al. 2020).

        Args:
            network: trained, or pretrained; its weights are copied.
            std: a number, or `{pattern: number}` as in `Normal`.

        >>> Informative.at(nn.Linear(2, 1), {"bias": 1.0, "weight": 0.1}).std
        tensor([0.1000, 0.1000, 1.0000])
        """
        own = Layout.of(trainable(network), constants(network))
        params = {n: own.part(n, p.detach()) for n, p in trainable(network).items()}
        layout, mean = Layout.of(params), patterns.flatten(params)
        shapes = layout.named_shapes()
        return cls(mean, patterns.expand(patterns.per_name(std, shapes, "std"), shapes, mean), layout)

    def log_prob(self, params: Params) -> Tensor:
        w = patterns.flatten(params)
        return self._part(patterns.shapes_of(params), w).log_prob(w)

    def sample(self, shapes: Mapping[str, Size], generator: Generator | None = None) -> Params:
        like = patterns.empty_like(shapes, generator)
        part = self._part(shapes, like)
        drawn = part.mean + part.std * gaussian.noise_like(like, generator)
        if part.factor is not None:
            drawn = drawn + part.factor @ gaussian.noise_like(part.factor[0], generator)
        return patterns.split(drawn, shapes)

    def expected_log_prob(self, mean: Params, std: Params) -> Tensor:
        center, stds = patterns.flatten(mean), patterns.flatten({n: std[n] for n in mean})
        part = self._part(patterns.shapes_of(mean), center)
        return part.log_prob(center) - 0.5 * (stds.square() * part.precision).sum()

    def resolve(self, shapes: Mapping[str, Size], like: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the mean and std of each named coordinate, both (P,); None where a factor correlates them."""
        part = self._part(shapes, like)
        return None if part.factor is not None else (part.mean, part.std)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file has to hold, beside the names and shapes of `layout`."""
        found = {"mean": self.mean, "std": self.std}
        return found if self.factor is None else {**found, "factor": self.factor}

    @classmethod
    def from_tensors(cls, layout: Layout, tensors: Mapping[str, Tensor]) -> "Informative":
        return cls(tensors["mean"], tensors["std"], layout, tensors.get("factor"))

    def _part(self, shapes: Mapping[str, Size], like: Tensor) -> _Part:
        """Pick out what is asked about, once for each set of names, dtype and device."""
        key = tuple(shapes.items()), like.dtype, like.device
        if key not in self._parts:
            own = self.layout.named_shapes()
            if any(own.get(n) != s for n, s in shapes.items()):
                raise Mismatch(difference(Layout(tuple(shapes), tuple(shapes.values())), own))
            rows = self.layout.views(torch.arange(self.layout.size, device=self.mean.device))
            chosen = patterns.flatten({n: rows[n] for n in shapes})
            mean, std = self.mean[chosen].to(like), self.std[chosen].to(like)
            self._parts[key] = _Part.of(mean, std, None if self.factor is None else self.factor[chosen].to(like))
        return self._parts[key]
