"""What a network computes of an example by itself: its output must not depend on what else is in the batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from posterity.errors import InvalidInput
from posterity.model.likelihoods import Categorical
from posterity.model.plain import copied
from posterity.model.priors import Flat
from posterity.model.problem import Problem, call

ALIKE = 1e-3  # relative: rounding of other orders of summation, and of an accelerator's arithmetic, is less
_GRAPH = (
    "Where examples belong together, as the nodes of a graph do, the graph is one example: inputs (1, nodes, features), "
    "targets (1, nodes) with −100 where a label is not known, TensorData(inputs[None], targets[None], batch_size=1) and "
    "likelihood=Categorical('BTC')."
)


def computed_alone(network: nn.Module, inputs: Tensor) -> Tensor:
    """Return the outputs of the first two examples in eval mode: those that each of them has by itself.

    Raises:
        InvalidInput: where the network cannot compute two examples, or one, without the others, or changes its inputs.
    """
    _refuse_half(network)
    _refuse_normalised(network)
    problem = Problem(copied(network).eval(), Flat(), Categorical(), 1)
    rows = inputs[:2].clone()
    with unmoved(), torch.no_grad():
        outputs = _called(problem, rows, inputs)
        if not torch.equal(rows.nan_to_num(), inputs[:2].nan_to_num()):
            raise InvalidInput(
                f"{type(network).__name__} changes its inputs in place, and so the data: write x = x * 2 for x *= 2, and "
                "inplace=False in the activation that comes first."
            )
        refuse_count(outputs, len(rows), network)
        again = call(problem, inputs[:2].clone())
        each = [call(problem, row.clone()) for row in inputs[:2].split(1)]
    refuse_count(each[0], 1, network)
    random = not torch.equal(again.nan_to_num(), outputs.nan_to_num())
    if not random and not alike(torch.cat(each), outputs):
        raise InvalidInput(
            f"{type(network).__name__} computes another output for an example when another stands beside it: its outputs "
            f"depend on how data are cut. {_cure(network)}"
        )
    return outputs


@contextmanager
def unmoved() -> Iterator[None]:
    """Leave torch's random numbers as they are."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        yield


def refuse_count(outputs: Tensor, count: int, network: nn.Module) -> None:
    if outputs.dim() and len(outputs) == count:
        return
    found = f"{len(outputs)} outputs" if outputs.dim() else "a single number"
    squeezed = " Does it call .squeeze()? Name the axis, .squeeze(-1)." if count == 1 else f" {_cure(network)}"
    raise InvalidInput(
        f"{type(network).__name__} returned {found} for {count} example{'s' * (count > 1)}; it must return one row "
        f"for each.{squeezed}"
    )


def _cure(network: nn.Module) -> str:
    """Say how a network comes to compute each example by itself: most often an axis is taken for another."""
    for name, module in network.named_modules():
        if getattr(module, "batch_first", True) is False:
            return (
                f"'{name}' ({type(module).__name__}) takes its second axis for the batch: make it with batch_first=True, and "
                "take the last step of its outputs by outputs[:, -1], not outputs[-1]."
            )
        if isinstance(module, nn.Softmax | nn.LogSoftmax | nn.Softmin) and module.dim == 0:
            return (
                f"'{name}' ({type(module).__name__}) normalises over axis 0, the batch: make it with dim=-1, and leave it out "
                "where it comes last before Categorical, which applies the softmax itself."
            )
    return _GRAPH


def alike(values: Tensor, expected: Tensor) -> bool:
    if values.shape != expected.shape:
        return False
    scale = float(expected.abs().nan_to_num(posinf=0.0).max()) if expected.numel() else 1.0
    return torch.allclose(values.double(), expected.double(), rtol=ALIKE, atol=ALIKE * scale, equal_nan=True)


def _called(problem: Problem, rows: Tensor, inputs: Tensor) -> Tensor:
    """Call the network with two examples; where it takes the whole batch alone, say so."""
    try:
        return call(problem, rows)
    except InvalidInput:
        if len(inputs) == len(rows) or not _takes(problem, inputs):
            raise
    raise InvalidInput(
        f"{type(problem.network).__name__} takes {len(inputs)} examples, and not {len(rows)} of them: it cannot compute one "
        f"without the others. {_cure(problem.network)}"
    )


def _takes(problem: Problem, inputs: Tensor) -> bool:
    try:
        problem.outputs(inputs.clone())
    except Exception:  # whatever it raises
        return False
    return True


def _refuse_half(network: nn.Module) -> None:
    """Refuse weights of half precision before any advice on inputs, which would have to be followed by this."""
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            raise InvalidInput(
                f"The weights '{name}' are {parameter.dtype}, in which small steps and standard deviations are rounded away: "
                "give network.float(), and Engine(precision='bfloat16') to compute its passes in half precision."
            )


def _refuse_normalised(network: nn.Module) -> None:
    """Refuse normalisation by the batch at hand, also in eval mode."""
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise InvalidInput(
                f"{type(module).__name__} '{name}' has no running statistics, so that the output for an example depends on the "
                "others in its batch: use track_running_stats=True."
            )
