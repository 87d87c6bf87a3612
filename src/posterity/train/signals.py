"""Ctrl-C and SIGTERM while a run works: the step is finished, and saved, before anything stops."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def finish_step_first() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into a flag while the block runs; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    # Also where it is ignored, as Ctrl-C is by what a script put in the background: who sends it means this run. A handler of
    # another language cannot be put back.
    own = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not None]
    kept = {number: signal.signal(number, note) for number in own}
    try:
        yield stop
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
