"""Modes of torch functions that are off afterwards, also where an interrupt came in the middle of switching one on or off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch.overrides import TorchFunctionMode

Mode = TypeVar("Mode", bound=TorchFunctionMode)


@contextmanager
def entered(mode: Mode) -> Iterator[Mode]:
    """Have a mode see torch's functions while the block runs.

    `with mode:` alone leaves it on for the rest of the thread's life where Ctrl-C falls into torch's own entry, and takes off
    another one where it falls into a function that the mode has just met: torch has then lost the mode.

    >>> from torch.overrides import _len_torch_function_stack
    >>> with entered(TorchFunctionMode()):
    ...     _len_torch_function_stack()
    1
    >>> _len_torch_function_stack()
    0
    """
    try:
        torch._C._push_on_torch_function_stack(mode)
        yield mode
    finally:
        try:
            _take_off(mode)
        finally:  # the interrupt came in the middle of that
            _take_off(mode)


def _take_off(mode: TorchFunctionMode) -> None:
    """Take a mode off torch's stack, wherever it lies in it; those above it stay."""
    depth = range(torch._C._len_torch_function_stack())
    if any(torch._C._get_function_stack_at(level) is mode for level in depth):
        above = []
        while (top := torch._C._pop_torch_function_stack()) is not mode:
            above.append(top)
        for other in reversed(above):
            torch._C._push_on_torch_function_stack(other)
