"""What the processes of tests have imported before they are forked."""

from importlib import import_module

import torch

for name in (
    *("jinja2", "matplotlib.backends.backend_svg", "pytest", "scipy.stats", "sklearn.datasets", "sklearn.metrics"),
    *("torch._dynamo", "posterity.bench", "posterity.cli.train", "posterity.cli.evaluate", "posterity.conformance"),
    *("posterity.fitting", "posterity.report", "posterity.zoo"),
):
    import_module(name)
torch.set_num_threads(1)
