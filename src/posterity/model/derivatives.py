"""Whether the gradients that a network gives are the derivatives of its loss, which all inference by gradients assumes.

Hooks that scale or reverse gradients, backward passes of one's own (rounding, signs), and tables that are rescaled as they are
read give others. A point may be trained by them, as one likes; a posterior that is inferred by them is that of no model.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from posterity.model.padding import padding_rows

STEP = 1e-5  # of the size of each tensor, in double precision: kinks are rarely so near
SHARE, LEAST = 0.02, 1e-6  # by which two slopes may differ, of the larger, and in nats
SETTINGS = ("max_norm", "scale_grad_by_freq")  # of tables of embeddings; the first rescales only where a row is long


def altered(network: nn.Module, params: Mapping[str, Tensor], loss: Callable[[], Tensor]) -> list[str]:
    """Name the parameters whose gradients are not derivatives of the loss.

    g · v is compared with (L(θ + ε v) − L(θ − ε v)) / 2ε, v normal numbers of each tensor's size: for all at once, and for each
    tensor where that differs. One direction in double precision finds what is wrong unless it is orthogonal by chance.

    Args:
        network: a copy in double precision and eval mode, which is moved and put back.
        params: those to be compared, by name.
        loss: (), computed anew with the same random numbers.
    """
    values = [p.detach().clone() for p in params.values()]
    with torch.enable_grad():
        grads = torch.autograd.grad(loss(), list(params.values()), allow_unused=True)
    generator = torch.Generator().manual_seed(0)
    normals = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in values]
    along = [STEP * (p.square().mean().sqrt() + 0.01) * v for p, v in zip(values, normals, strict=True)]
    for name, rows in padding_rows(network).items():  # constants, which are not moved
        if name in params:
            along[list(params).index(name)][list(rows)] = 0
    slopes = [float((_dense(g) * v).sum()) if g is not None else 0.0 for g, v in zip(grads, along, strict=True)]

    def differs(moved: list[int]) -> bool:
        ends = []
        for sign in (1, -1):
            _put(
                params, [p + sign * v if i in moved else p for i, (p, v) in enumerate(zip(values, along, strict=True))]
            )
            ends.append(float(loss().detach()))
        _put(params, values)
        slope, found = sum(slopes[i] for i in moved), (ends[0] - ends[1]) / 2
        return abs(slope - found) > SHARE * max(abs(slope), abs(found)) + LEAST * STEP

    names = list(params)
    if not differs(list(range(len(names)))):
        return _by_setting(network, names)
    return sorted({names[i] for i in range(len(names)) if differs([i])} | set(_by_setting(network, names)))


def _dense(grad: Tensor) -> Tensor:
    return grad.to_dense() if grad.is_sparse else grad


@torch.no_grad()
def _put(params: Mapping[str, Tensor], values: list[Tensor]) -> None:
    for parameter, value in zip(params.values(), values, strict=True):
        parameter.copy_(value)


def _by_setting(network: nn.Module, names: list[str]) -> list[str]:
    return [
        name
        for prefix, module in network.named_modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and any(getattr(module, s) for s in SETTINGS)
        if (name := f"{prefix}.weight".lstrip(".")) in names
    ]
