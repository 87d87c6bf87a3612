"""What a network computes of a few data before it is trained, looked at without leaving a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from posterity.core.layout import substituted
from posterity.model.problem import Problem
from posterity.model.selection import NORMALISATION

ROWS, NUMBERS = 128, 2**21  # at most so many examples, of so many numbers in all
FEW = 16  # examples that are enough to see by which bounds outputs are held
SCALES = (
    1000.0,
    *(10.0,) * 8,
)  # of all weights, each with a random sign: free outputs change sign and leave every bound
FREE = (*NORMALISATION, nn.Embedding, nn.EmbeddingBag)  # layers that take inputs of any scale


@dataclass(frozen=True, eq=False)
class Probe:
    """Outputs of a network at its present weights, and at others.

    Args:
        inputs: of the first layer with weights, whatever the network did to the data before: (B, ...). None where that
            layer takes any scale, or the inputs are not floating-point numbers.
        outputs: (B, D, ...).
        given: whether these inputs are the data's own numbers, whatever their shape.
        scaled: outputs of a few examples with all weights multiplied by a large number of random sign, those that are finite.
    """

    inputs: Tensor | None
    outputs: Tensor
    scaled: tuple[Tensor, ...]
    given: bool = True

    def held(self, low: float, high: float, part: slice = slice(None)) -> bool:
        """Whether outputs (of a part of the columns) stay between two numbers whatever the weights are."""
        every = [values[:, part] for values in (self.outputs, *self.scaled)]
        if len(every) < 3 or not any(bool((v != 0).any()) for v in every):
            return False  # nothing was seen, or a last layer that is zero
        slack = 8 * torch.finfo(self.outputs.dtype).eps
        return all(bool(((v >= low - slack) & (v <= high + slack)).all()) for v in every)


@torch.no_grad()
def probed(problem: Problem, inputs: Tensor) -> Probe:
    """Run the network in eval mode; its modes, buffers and parameters, and torch's random numbers, are what they were.

    What normalises by running statistics does so by the batch's, as it will in training: it has seen no data yet.
    """
    count = max(2, min(ROWS, len(inputs), NUMBERS // max(1, inputs[:1].numel())))
    rows = torch.linspace(0, len(inputs) - 1, count).long().unique().to(inputs.device)
    batch = inputs[rows]
    with _untouched(problem.network):
        for layer in problem.normalisations() if len(batch) > 1 else []:
            layer.training = True
        seen, hooks = _first_inputs(problem.network)
        try:
            outputs = _outputs(problem, batch)
        finally:
            for hook in hooks:
                hook.remove()
        signs = torch.Generator().manual_seed(0)
        few = [_outputs(problem, batch[:FEW], scale, signs) for scale in SCALES]
    first = seen[0] if seen else batch
    floating = first is not None and first.is_floating_point()
    same = first is not None and first.numel() == batch.numel() and torch.equal(first.reshape(-1), batch.reshape(-1))
    return Probe(first if floating else None, outputs, tuple(f for f in few if bool(f.isfinite().all())), same)


def _outputs(problem: Problem, inputs: Tensor, scale: float = 1.0, signs: Generator | None = None) -> Tensor:
    weights = {n: p.detach() for n, p in problem.coordinates.of_network(problem.params).items()}
    if signs is not None:
        weights = {
            n: p * scale * (2 * torch.randint(2, p.shape, generator=signs).to(p) - 1) for n, p in weights.items()
        }
    buffers = {n: b.clone() for n, b in problem.network.named_buffers()}  # what writes to its buffers writes to these
    with substituted(problem.network, {**weights, **buffers}):
        return problem.outputs(inputs)


def _first_inputs(network: nn.Module) -> tuple[list[Tensor | None], list[torch.utils.hooks.RemovableHandle]]:
    """Hook all layers with weights; the first one that is called writes down what it was given."""
    seen: list[Tensor | None] = []

    def look(module: nn.Module, arguments: tuple[object, ...]) -> None:
        if not seen and arguments and isinstance(arguments[0], Tensor):
            unseen = isinstance(module, FREE) or torch._C._functorch.is_functorch_wrapped_tensor(arguments[0])
            seen.append(
                None if unseen else arguments[0].detach()
            )  # under the network's own vmap there is no batch to see

    layers = [m for m in network.modules() if any(True for _ in m.parameters(recurse=False)) or isinstance(m, FREE)]
    return seen, [
        layer.register_forward_pre_hook(look) for layer in layers if layer is not network or not _holds(layer)
    ]


def _holds(module: nn.Module) -> bool:
    return any(True for _ in module.children())


@contextmanager
def _untouched(network: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in network.modules()}
    devices = sorted({p.device.index for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            network.eval()
            yield
        finally:
            for module, mode in training.items():
                module.training = mode
