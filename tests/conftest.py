"""Types are checked at run time in tests, and nowhere else; one thread each, so that parallel tests do not fight."""

import signal

import torch
from beartype import BeartypeConf
from beartype.claw import beartype_package

# torch.compile cannot read through the wrappers of what it compiles.
beartype_package("posterity", conf=BeartypeConf(claw_skip_package_names=("posterity.core.compiled",)))
torch.set_num_threads(1)
# What runs tests in the background has it ignored, and every process that a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
