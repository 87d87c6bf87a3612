"""Stretches: one thread at a time, everybody's turn comes, and who was interrupted holds nobody up for long."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Thread, get_ident
from time import perf_counter, sleep

from posterity.core.threads import LONG, Stretch


def test_one_thread_at_a_time_and_everybody_comes() -> None:
    stretch, inside, most, done = Stretch(), 0, 0, Counter[int]()

    def work(_: int) -> None:
        nonlocal inside, most
        with stretch.mine(), stretch.mine():
            inside += 1
            most = max(most, inside)
            sleep(0.001)
            inside -= 1
        done[get_ident()] += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(400)))
    assert most == 1
    assert len(done) == 4
    assert min(done.values()) > 20
    assert not stretch.taken


def test_threads_change_now_and_then_and_not_at_each_request() -> None:
    stretch, order = Stretch(), []

    def work(_: int) -> None:
        with stretch.mine():
            order.append(get_ident())
            sleep(0.0005)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(400)))
    changes = sum(a != b for a, b in pairwise(order))
    assert 2 <= changes < 200


def test_who_never_came_out_holds_up_one_request_alone() -> None:
    stretch = Stretch()
    stretch._lock.acquire()  # by one that was interrupted before it could say so
    seconds = []
    for _ in range(3):
        start = perf_counter()
        with stretch.mine():
            seconds.append(perf_counter() - start)
    assert seconds[0] >= LONG
    assert max(seconds[1:]) < LONG / 2


def test_a_long_stretch_does_not_let_others_wait_for_its_end() -> None:
    stretch, waited = Stretch(), []

    def another() -> None:
        start = perf_counter()
        with stretch.mine():
            waited.append(perf_counter() - start)

    with stretch.mine():
        thread = Thread(target=another)
        thread.start()
        thread.join()
    assert LONG <= waited[0] < 4 * LONG
    assert not stretch.taken
