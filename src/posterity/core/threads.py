"""What several threads share: spare copies of a thing, turns where there is no copy, and the interpreter by stretches."""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, RLock, get_ident
from time import sleep
from typing import Any
from weakref import WeakSet

KEPT = 16  # copies that wait for the next thread; more threads than that make some anew
PATIENCE = 5  # seconds, a hundred thousand times what is done in a brief turn
LOOK, LOOKS, LONG = (
    0.002,
    5,
    0.25,
)  # seconds between two looks at a stretch, how many, and seconds of waiting after them


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


class Stretch:
    """Time in which one thread alone does small things, one after the other, that are mostly the interpreter's work.

    The interpreter has one thread at a time anyhow, and those that meet in it at every call of torch do a third less together
    than one alone does. Who finds another at work looks again every two milliseconds, and is the next after ten: threads
    change a hundred times a second, and not at each of a thousand requests. Nothing but time depends on it. Who has waited in
    vain for a quarter of a second goes on beside the other, whose lock is forgotten: it was long, or interrupted on its way.

    >>> stretch = Stretch()
    >>> with stretch.mine(), stretch.mine():
    ...     stretch.taken
    True
    """

    def __init__(self) -> None:
        self._lock, self._next, self._owner = Lock(), Lock(), 0

    @property
    def taken(self) -> bool:
        return self._lock.locked()

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Let no other thread in; within a stretch of one's own it is nothing."""
        me = get_ident()
        if self._owner == me:
            yield
            return
        lock = self._acquired()
        self._owner = me
        try:
            yield
        finally:
            if self._owner == me:
                self._owner = 0
            lock.release()

    def _acquired(self) -> Any:
        lock, following = self._lock, self._next
        if following.locked() and following.acquire(timeout=LONG):  # somebody has waited for long, and comes first
            following.release()
        for _ in range(LOOKS):
            if lock.acquire(blocking=False):
                return lock
            sleep(LOOK)
        with following:
            if lock.acquire(timeout=LONG):
                return lock
        lock = self._lock = Lock()
        self._next = Lock()
        lock.acquire()
        return lock


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
