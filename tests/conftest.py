"""Types are checked at run time in tests, and nowhere else; one thread each, so that parallel tests do not fight."""

import torch
from beartype import BeartypeConf
from beartype.claw import beartype_package

# torch.compile cannot read through the wrappers of what it compiles.
beartype_package("posterity", conf=BeartypeConf(claw_skip_package_names=("posterity.core.compiled",)))
torch.set_num_threads(1)
