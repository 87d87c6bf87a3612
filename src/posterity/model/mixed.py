"""The likelihood of real numbers of which there may be several kinds for the same inputs: a mixture density network."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch import distributions as dist

from posterity.core.gaussian import softplus
from posterity.errors import InvalidInput
from posterity.model.classes import refuse_unlike_one
from posterity.model.columns import Positive
from posterity.options import STRICT, dataclass
from posterity.types import Likelihood, Params

# Of the quadrature of the curvature: stds from each component's mean, panels between, and nodes of each.
FAR, PANELS, NODES = 8.0, 32, 3


@dataclass(frozen=True, config=STRICT)
class MixtureDensity(Likelihood):
    """Real numbers of K kinds, whose shares, means and stds the network says (Bishop 1994): outputs (..., B, 3K).

        p(y | f) = Σ_k softmax(a)_k N(y; place_k + unit · m_k, std_k²),   std_k = unit · (least + softplus(r_k))

    Outputs are a (K), then m (K), then r (K); targets (B,), in any units.

    Args:
        components: K.
        least: of a std, in units of `unit`: keeps a density finite where a component sits on an example.
        unit: None: `fit` takes the targets' std; 1 where nobody has seen the data.
        places: of each component where m is 0, which keeps them apart; None: `fit` takes the targets' quantiles (k + ½)/K.

    >>> of = MixtureDensity(2, least=0.0, unit=1.0, places=(-1.0, 1.0))(torch.zeros(3, 6), {})
    >>> of.mean, of.stddev
    (tensor([0., 0., 0.]), tensor([1.2167, 1.2167, 1.2167]))
    """

    own_units: ClassVar[bool] = True
    components: Annotated[int, Field(ge=1)] = 3
    least: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-2
    unit: Positive | None = None
    places: tuple[float, ...] | None = None
    kind: Literal["mixture_density"] = "mixture_density"

    def __post_init__(self) -> None:
        if self.places is not None and len(self.places) != self.components:
            raise InvalidInput(
                f"MixtureDensity(places=…) has {len(self.places)} numbers for {self.components} components."
            )

    def width(self, targets: int) -> int:
        return 3 * self.components * targets

    def started(self, inputs: Tensor, targets: Tensor) -> Self:
        y = targets.detach().cpu().double().reshape(-1).numpy()
        middles = (np.arange(self.components) + 0.5) / self.components
        places = tuple(np.quantile(y, middles).tolist()) if self.places is None else self.places
        unit = (float(y.std()) or 1.0) if self.unit is None else self.unit
        return replace(self, unit=unit, places=places)

    def __call__(self, outputs: Tensor, latents: Params) -> dist.MixtureSameFamily:
        return self._mixed(*self._parts(outputs)[:3])

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Tensor:
        """E[s sᵀ] of the scores s of all 3K outputs, (B, 3K, 3K), by Gauss–Legendre panels between all components' places."""
        logits, means, stds, slopes = (part.double() for part in self._parts(outputs))
        steps = torch.linspace(-FAR, FAR, PANELS + 1, dtype=torch.float64, device=outputs.device)
        ends = (means.unsqueeze(-1) + stds.unsqueeze(-1) * steps).flatten(-2).sort(-1).values
        nodes, weights = (ends.new_tensor(part) for part in np.polynomial.legendre.leggauss(NODES))
        widths = ends.diff(dim=-1).unsqueeze(-1) / 2
        y = (ends[..., :-1].unsqueeze(-1) + widths * (1 + nodes)).flatten(-2).unsqueeze(-1)  # (B, nodes, 1)
        density = self._mixed(*(part.unsqueeze(-2) for part in (logits, means, stds))).log_prob(y.squeeze(-1)).exp()
        weights = (widths * weights).flatten(-2) * density
        shares = logits.softmax(-1)
        z = (y - means.unsqueeze(-2)) / stds.unsqueeze(-2)
        belongs = (logits.log_softmax(-1) - stds.log()).unsqueeze(-2).sub(0.5 * z.square()).softmax(-1)
        by_mean, by_raw = belongs * z / stds.unsqueeze(-2), belongs * (z.square() - 1) * (slopes / stds).unsqueeze(-2)
        scores = torch.cat([belongs - shares.unsqueeze(-2), by_mean * self._unit, by_raw], -1)
        return torch.einsum("...n,...ni,...nj->...ij", weights, scores, scores).to(outputs)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        count = 3 * self.components
        needed = (
            f"MixtureDensity of {self.components} components needs outputs (B, {count}): logits, means and raw stds"
        )
        refuse_unlike_one(outputs, targets, count, needed)

    @property
    def _unit(self) -> float:
        return 1.0 if self.unit is None else self.unit

    def _parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits, means, stds, and the slopes of the stds in the outputs."""
        logits, shifts, raw = outputs.chunk(3, -1)
        even = np.linspace(-1, 1, self.components) if self.components > 1 else np.zeros(1)
        places = outputs.new_tensor((even * self._unit).tolist() if self.places is None else self.places)
        stds = self._unit * (self.least + softplus(raw))
        return logits, places + self._unit * shifts, stds, self._unit * raw.sigmoid()

    def _mixed(self, logits: Tensor, means: Tensor, stds: Tensor) -> dist.MixtureSameFamily:
        return dist.MixtureSameFamily(
            dist.Categorical(logits=logits, validate_args=False),
            dist.Normal(means, stds, validate_args=False),
            validate_args=False,
        )
