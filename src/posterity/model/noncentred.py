"""Gradients under a non-centred prior, where the network computes with other weights than its coordinates."""

import torch
from torch import Generator, Tensor

from posterity.core.estimators import Estimator, Loss, Pair
from posterity.core.gaussian import noise_like
from posterity.model.coordinates import Coordinates
from posterity.types import PRIOR, Params


class NonCentred(Estimator):
    """Lets any estimator see the weights w = s·z of a prior that is non-centred in z, given one draw of its latents.

    With z ~ N(μ, σ²) and s fixed, w ~ N(s·μ, (s·σ)²): the estimator works on that q, and its gradients are pulled back to
    μ, σ and, through s, to the latents' mean and std (Papaspiliopoulos, Roberts, Sköld 2007 on non-centring).
    """

    def __init__(self, estimator: Estimator, coordinates: Coordinates) -> None:
        super().__init__(estimator.params, estimator.start, layout=estimator.layout)
        self.estimator, self.coordinates = estimator, coordinates

    def write(self, loss: Loss, q: Pair, out: Pair, generator: Generator | None) -> Tensor:
        noise = noise_like(q[1], generator)
        with torch.enable_grad():
            mean, std = (v.detach().requires_grad_() for v in q)
            fixed = torch.zeros_like(q[0][: self.start])
            spread = torch.cat([fixed, std])
            draw = mean + spread * torch.cat([fixed, noise])
            own = self.layout.views(draw)
            weights = (
                self._weights(self.layout.views(mean), own),
                self._weights(self.layout.changes(spread), own, latents=0.0)[self.start :],
            )
        value = self.estimator.write(loss, (weights[0].detach(), weights[1].detach()), out, generator)
        pulled = torch.autograd.grad(weights, [mean, std], (out[0].clone(), out[1].clone()))
        for target, gradient in zip(out, pulled, strict=True):
            target.copy_(gradient)
        return value

    def _weights(self, params: Params, draw: Params, latents: float | None = None) -> Tensor:
        """Transform μ or σ, given the latents of `draw`, which stand in the result with a value of their own if given."""
        own: Params = {n: v for n, v in draw.items() if n.startswith(PRIOR)}
        moved = self.coordinates.computed({**params, **own})
        if latents is not None:
            moved |= {n: torch.full_like(v, latents) for n, v in own.items()}
        return self.layout.flatten(moved)
