"""Where a result was made: versions, processor, and the commit of the code."""

import os
import platform
import subprocess
import time
from functools import lru_cache
from pathlib import Path

import torch

from posterity.bench.study import Record


def provenance() -> Record:
    """Return what a reader needs to trust or to repeat a number, as plain JSON values."""
    return {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


@lru_cache
def machine() -> str:
    """Name the processor and the versions of Python and torch."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


@lru_cache
def commit() -> str | None:
    """Return the commit of the source, where it lies in a Git checkout; `+` stands for changes since."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
