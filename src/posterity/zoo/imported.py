"""Networks that are code of the user's own: `module:callable`, imported and called, where it is a maker of networks."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from posterity.importing import Wanted, makes
from posterity.importing import imported as imported_as
from posterity.importing import one_line as one_line

NETWORK = Wanted(
    "Network",
    "my_networks:make",
    nn.Module,
    lambda value: isinstance(value, nn.Module),
    "neither a module nor a callable; nothing says that it makes a torch.nn.Module. Name a class of modules, a "
    "function of your own, or one whose annotation says so: def make() -> nn.Module",
    any_class=False,
)


def imported(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Import what `module:callable` names, also from the current directory, and return the network that it makes.

    Raises:
        InvalidInput: where there is no such name, where it is no maker of networks (before it is called), and where it fails.
    """
    made: nn.Module = imported_as(NETWORK, name, options)
    return copy.deepcopy(made)


def makes_networks(found: Any) -> bool:
    """Tell, without calling it, whether a callable may be called as a maker of networks.

    >>> import os, shutil, torch
    >>> [makes_networks(made) for made in (nn.Linear, os.system, exec, torch.load, shutil.rmtree, dict)]
    [True, False, False, False, False, False]
    """
    return makes(found, NETWORK)
