"""The regularised horseshoe, with its local scales integrated out."""

from math import asinh, atan, log, sqrt
from typing import Literal

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import LOG_2PI, noise_like
from posterity.model.location_scale import Elementwise, Shapes
from posterity.model.patterns import Positive
from posterity.model.special import log_scaled_e1
from posterity.options import STRICT, dataclass


@dataclass(frozen=True, config=STRICT)
class Horseshoe(Elementwise):
    """A horseshoe with the shoulders of a slab: most weights very near zero, the others free up to the slab's width.

    p(w) = H(w) N(w; 0, c²) / Z, H(w) = ∫ N(w; 0, τ²λ²) p(λ) dλ = e^x E₁(x) / (√(2π³) τ), x = w²/(2τ²), where λ is
    half-Cauchy(1), E₁ the exponential integral, τ = `scale` and c = `slab_std` (Carvalho, Polson & Scott 2010 for H;
    Nishimura & Suchard 2022 for the product). It simplifies to

        p(w) = N(w; 0, c²) e^x E₁(x) / (2 I),    I = arctan(k)/k for c > τ, artanh(k)/k for c < τ, k = √|c²/τ² − 1|

    and, with v² = τ²λ²/(c² + τ²λ²), to the mixture w | v ~ N(0, c² v²), p(v) ∝ 1/(1 + (c²/τ² − 1) v²) on (0, 1), which is
    how it is drawn. Tails are the slab's. Piironen & Vehtari (2017) have the same w | v, but leave λ half-Cauchy, where
    multiplying by the slab reweights λ by 1/√(1 + τ²λ²/c²); theirs has no closed form in w.

    The density is infinite at w = 0, as −log |w|. Below the dtype's smallest normal number, where less than 1e-25 of the mass
    lies, it is held constant: log-density and slope are finite everywhere, and the slope at 0 is 0.
    The spike makes zero a mode for every weight: sample, or fit a distribution, rather than maximise.

    Args:
        scale: τ, below which a weight is noise; not a std.
        slab_std: c, the std of the slab.

    >>> Horseshoe(0.1, 2.0).log_prob({"w": torch.tensor([0.001, 0.1, 3.0])})
    tensor(-4.2750)
    """

    scale: Positive = 0.01
    slab_std: Positive = 1.0
    kind: Literal["horseshoe"] = "horseshoe"

    def elementwise(self, w: Tensor, shapes: Shapes) -> Tensor:
        log_x = 2 * w.abs().clamp_min(torch.finfo(w.dtype).tiny).log() - log(2) - 2 * log(self.scale)
        angle, k = self._angle()
        constant = 0.5 * LOG_2PI + log(self.slab_std) + log(2) + (log(angle / k) if k else 0.0)
        return log_scaled_e1(log_x) - 0.5 * (w / self.slab_std).square() - constant

    def draw(self, like: Tensor, shapes: Shapes, generator: Generator | None) -> Tensor:
        angle, k = self._angle()
        v = torch.empty_like(like, dtype=torch.float64).uniform_(
            generator=generator
        )  # near the tangent's pole if c ≫ τ
        if k:
            turn = torch.tan if self.slab_std > self.scale else torch.tanh
            v = (turn(angle * v) / k).clamp_max(1)
        return self.slab_std * v.to(like) * noise_like(like, generator)

    def _angle(self) -> tuple[float, float]:
        """Return kI and k: v = tan(u k I)/k has the density above for uniform u (tanh where c < τ)."""
        ratio = self.slab_std / self.scale
        if ratio >= 1:
            k = sqrt((ratio - 1) * (ratio + 1))
            return atan(k), k
        k = sqrt((1 - ratio) * (1 + ratio))
        return asinh(k / ratio), k
