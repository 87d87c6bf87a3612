"""What data are, in a line of text: their shape and a SHA-256 of their numbers, so that other data are told from the same."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import numpy
import torch
from torch import Generator, Tensor

from posterity.tensors import memory

SHOWN = 16  # hexadecimal digits
SMALL = 2**16  # bytes of what may be a counter
VIEWED = 16  # inputs whose augmentation is compared
DEPTH = 4  # data sets inside of data sets, and lists inside of those


def digest(values: Tensor | numpy.ndarray) -> str:
    """Return the shape, the type and a digest of a tensor's or an array's numbers.

    >>> digest(torch.zeros(2, 3))
    '2 × 3 float32, sha256 9d908ecfb6b256de'
    >>> digest(torch.zeros(2, 3)) == digest(torch.zeros(3, 2).T), digest(torch.zeros(2)) == digest(torch.ones(2))
    (True, False)
    """
    tensor = values if isinstance(values, Tensor) else None
    shape = " × ".join(f"{size:,}" for size in values.shape) or "one"
    kind = str(values.dtype).removeprefix("torch.")
    return f"{shape} {kind}, sha256 {sha256(_bytes(values if tensor is None else tensor)).hexdigest()[:SHOWN]}"


def seal(values: Tensor) -> int:
    """Return 63 bits of the SHA-256 of a tensor's numbers: what a tensor of whole numbers can hold of it.

    >>> seal(torch.zeros(3)) == seal(torch.zeros(3)), seal(torch.zeros(3)) == seal(torch.tensor([0.0, 0.0, 1e-9]))
    (True, False)
    """
    return int.from_bytes(sha256(_bytes(values)).digest()[:8], "little") >> 1


def contents(value: Any) -> str | None:
    """Return one digest of all tensors, arrays and numbers that a data set, a list or a mapping holds; None of none.

    >>> from torch.utils.data import TensorDataset
    >>> contents(TensorDataset(torch.zeros(2), torch.ones(2)))
    '2 parts, sha256 26c9b5728241c21d'
    >>> contents(object()) is None
    True
    """
    return _joined(map(digest, _parts(value, DEPTH)))


def of_loaders(training: Any, validation: Any, first: Callable[[], Any]) -> dict[str, str | None]:
    """Return digests of what loaders' data sets hold in memory, and of the first batch.

    The batch tells what the data set does not hold: samplers, collations, streams that are drawn. What changes by taking it,
    as a counter does, is none of the data.

    Args:
        training: a loader, or a list of batches.
        validation: likewise, or None.
        first: gives the first batch; it is asked twice, and of a batch that is another each time nothing is known.
    """
    before = [digest(part) if part.nbytes <= SMALL else None for part in _held(training)]
    batch, again = contents(first()), contents(first())
    after = [digest(part) for part in _held(training)]
    if len(before) == len(after):
        after = [now for then, now in zip(before, after, strict=True) if then in (None, now)]
    known = {"training": _joined(after), "validation": _joined(map(digest, _held(validation)))}
    return {**known, "first batch": batch if batch == again else None}


def of_augmentation(augment: Any, inputs: Tensor) -> dict[str, str | None]:
    """Return an augmentation's name, and what it makes of a few inputs: no name tells one lambda from another."""
    if augment is None:
        return {"augment": None}
    one, again = (digest(augment(inputs[:VIEWED].clone(), Generator().manual_seed(0))) for _ in range(2))
    name = getattr(augment, "__qualname__", type(augment).__qualname__)
    return {"augment": name, "augmented": one if one == again else None}


def _held(loader: Any) -> Iterator[Tensor | numpy.ndarray]:
    return _parts(getattr(loader, "dataset", loader), DEPTH)


def _joined(digests: Iterable[str]) -> str | None:
    lines = list(digests)
    return f"{len(lines):,} parts, sha256 {sha256(''.join(lines).encode()).hexdigest()[:SHOWN]}" if lines else None


def _parts(value: Any, depth: int) -> Iterator[Tensor | numpy.ndarray]:
    if isinstance(value, Tensor | numpy.ndarray):
        yield value
    elif not depth or isinstance(value, str | bytes | type) or callable(value):
        return
    elif isinstance(value, Mapping):
        yield from (part for one in value.values() for part in _parts(one, depth - 1))
    elif isinstance(value, list | tuple):
        numbers = [one for one in value if isinstance(one, int | float)]
        if numbers:
            yield numpy.array(numbers, dtype=numpy.float64)
        yield from (part for one in value for part in _parts(one, depth - 1))
    else:
        yield from (part for one in getattr(value, "__dict__", {}).values() for part in _parts(one, depth - 1))


def _bytes(values: Tensor | numpy.ndarray) -> Any:
    """Return the numbers as a buffer, without copying them where they lie in order."""
    if isinstance(values, Tensor):
        if values.layout != torch.strided:
            values = values.to_dense()
        return memory(values.detach().cpu().contiguous())
    if values.dtype.hasobject:
        return repr(values.tolist()).encode()
    return numpy.ascontiguousarray(values).reshape(-1).view(numpy.uint8)
