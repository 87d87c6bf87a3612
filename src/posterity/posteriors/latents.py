"""What a posterior says of the latents of a problem: a noise level, the scales of a hierarchical prior."""

from dataclasses import dataclass

import torch
from torch import Tensor

from posterity.core.layout import Layout
from posterity.errors import InvalidInput
from posterity.model.coordinates import Coordinates


@dataclass(frozen=True, eq=False)
class LatentDraws:
    """Draws of one latent in its natural units (a std, say), (n, *shape), and their summary."""

    draws: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean over draws, (*shape)."""
        return self.draws.mean(0)

    @property
    def std(self) -> Tensor:
        """Standard deviation over draws, (*shape)."""
        return self.draws.std(0)

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Return the central interval that holds `level` of the draws, each end (*shape)."""
        if not 0 < level < 1:
            raise InvalidInput(f"An interval of level {level} was asked for; it lies between 0 and 1, e.g. 0.9.")
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=self.draws.dtype, device=self.draws.device)
        low, high = self.draws.quantile(ends, dim=0)
        return low, high

    def __repr__(self) -> str:
        if self.draws.dim() > 1:
            return f"LatentDraws({len(self.draws)} draws of shape {tuple(self.draws.shape[1:])})"
        low, high = self.interval()
        return f"LatentDraws(mean {self.mean:.4g}, std {self.std:.3g}, 90 % in [{low:.4g}, {high:.4g}])"


def natural(where: Coordinates, tails: Tensor) -> dict[str, Tensor]:
    """Name the last coordinates of draws, (n, latents), and put them into natural units."""
    shapes = {n: where.params[n] for n in where.latents}
    return {n: where.latents[n].natural(v) for n, v in Layout.of(shapes).views(tails).items()}
