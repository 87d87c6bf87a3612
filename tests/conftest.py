"""Types are checked at run time in tests, and nowhere else; one thread each, so that parallel tests do not fight."""

import multiprocessing
import os
import signal

import torch
from beartype import BeartypeConf
from beartype.claw import beartype_package

# Called in every step of every fit, where checks take a third of the time: they are checked by the test of all methods in
# tests/unit/test_dependencies.py, and wherever POSTERITY_CHECKED=all.
STEPS = ("core", "train", "model", "methods.watching", "methods.mean_field", "methods.chain")
# torch.compile cannot read through the wrappers of what it compiles.
UNCHECKED = ("core.compiled",) if os.environ.get("POSTERITY_CHECKED") == "all" else STEPS
beartype_package(
    "posterity", conf=BeartypeConf(claw_skip_package_names=tuple(f"posterity.{name}" for name in UNCHECKED))
)
torch.set_num_threads(1)
# Processes that tests start are forked from one that has imported the package, see tests/processes.py.
multiprocessing.get_context("forkserver").set_forkserver_preload(["tests.imported"])
# What runs tests in the background has it ignored, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
