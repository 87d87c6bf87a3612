"""What several threads share: spare copies of a thing that one thread uses at a time, and turns where there is no copy."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import Any
from weakref import WeakSet

KEPT = 16  # copies that wait for the next thread; more threads than that make some anew
PATIENCE = 5  # seconds, a hundred thousand times what is done in a brief turn


class Turn:
    """A lock that a copy, a pickle and a forked child have anew: take it by `with turn.lock`.

    >>> from copy import deepcopy
    >>> turn = Turn()
    >>> with turn.lock:
    ...     deepcopy(turn).lock is turn.lock
    False
    """

    def __init__(self) -> None:
        self.lock = RLock()
        _turns.add(self)

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """Take the lock for some microseconds; who holds it for long was interrupted, and is waited for no more."""
        lock = self.lock
        if not lock.acquire(timeout=PATIENCE):
            lock = self.lock = RLock()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def __reduce__(self) -> tuple[type["Turn"], tuple[()]]:
        return Turn, ()


_turns: WeakSet[Turn] = WeakSet()


def _anew() -> None:
    """Give a forked child locks that nobody holds: the threads that held them are not there."""
    for turn in _turns:
        turn.lock = RLock()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_anew)


class Spares:
    """Copies of a thing that nobody uses: each is taken by one thread, and given back when it is as it was.

    There is nothing to unlock and nothing to put right: who is interrupted does not give back, and the copy is gone. A copy of
    the thing itself, a pickle and a forked child start with none, or with those that nobody used.

    >>> spares = Spares()
    >>> spares.give("as it is", "a copy")
    >>> spares.take("as it is"), spares.take("as it is")
    ('a copy', None)
    """

    def __init__(self) -> None:
        self.turn, self.single = Turn(), False  # whether there can be no copies
        self._free: deque[tuple[Any, Any]] = deque(maxlen=KEPT)

    def __reduce__(self) -> tuple[type["Spares"], tuple[()]]:
        return Spares, ()

    def take(self, mark: Any) -> Any:
        """Return a copy of the thing as `mark` describes it; None where there is none. Older ones are thrown away."""
        while True:
            try:
                made, copy = self._free.pop()  # one step of the interpreter: no two threads get the same
            except IndexError:
                return None
            if made == mark:
                return copy

    def give(self, mark: Any, copy: Any) -> None:
        """Let the next one have a copy."""
        self._free.append((mark, copy))
