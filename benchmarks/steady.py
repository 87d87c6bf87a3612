"""What makes times comparable: interleaved repeats in random order, medians, and an allocator that keeps freed memory.

glibc returns some of the freed memory at each step or not, by chance, which moves LeNet's times by 40 %, the deterministic
step's as much as the others'. It reads its variables when a process starts, so `keep_memory` starts the script anew.
"""

import gc
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TOP_PAD_": str(2**28),
}


def keep_memory() -> None:
    """Start this script anew with an allocator that keeps freed memory, unless it has been."""
    if any(os.environ.get(k) != v for k, v in KEEP_MEMORY.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})


def medians(calls: Mapping[str, Callable[[], object]], warm_up: int, repeats: int) -> dict[str, float]:
    """Return median milliseconds; every repeat times each call once, in an order of its own.

    A fixed order would charge each call for the memory that the one before it has left behind.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.disable()
    order, shuffler = list(calls), random.Random(0)
    for _ in range(repeats):
        shuffler.shuffle(order)
        for name in order:
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
    gc.enable()
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def peak() -> float:
    """Return the peak resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured_apart(script: str, *arguments: str) -> float:
    """Return the number that a script prints in a fresh process, where freed memory goes back and is not counted twice."""
    environment = {k: v for k, v in os.environ.items() if k not in KEEP_MEMORY}
    command = [sys.executable, script, *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
