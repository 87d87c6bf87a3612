"""Types are checked at run time in tests, and nowhere else; one thread each, so that parallel tests do not fight."""

import torch
from beartype.claw import beartype_package

beartype_package("posterity")
torch.set_num_threads(1)
