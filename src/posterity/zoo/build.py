"""Networks by name: from a command line, and again from a saved posterior."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any

from torch import nn

from posterity.errors import InvalidInput, unknown
from posterity.text import short
from posterity.zoo.alexnet import AlexNet, AlexNetHalf
from posterity.zoo.cnn import SmallCNN, ThreeConvThreeFC
from posterity.zoo.images import ImageNetwork
from posterity.zoo.imported import imported, one_line
from posterity.zoo.lenet import LeNet
from posterity.zoo.mlp import MLP
from posterity.zoo.resnet import ResNet20

DEFAULT_HIDDEN = (800, 800)
DIGITS, LAYERS = 9, 256  # of a hidden width, and how many: names come from files, too
IMAGE_NETWORKS: Mapping[str, type[ImageNetwork]] = MappingProxyType(
    {
        "lenet": LeNet,
        "alexnet": AlexNet,
        "alexnet_half": AlexNetHalf,
        "3conv3fc": ThreeConvThreeFC,
        "small_cnn": SmallCNN,
        "resnet20": ResNet20,
    }
)
NAMES = (*IMAGE_NETWORKS, "mlp", "mlp:WIDTH-WIDTH", "module:callable")


@dataclass(frozen=True)
class NetworkSpec:
    """All that is needed to build a network once more; it goes into JSON and back.

    >>> import json
    >>> spec = NetworkSpec("mlp:50", (13,), 1, {"activation": "tanh"})
    >>> NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    True
    >>> spec.build().widths
    (13, 50, 1)
    """

    name: str  # as `build` takes it
    input_shape: tuple[int, ...]  # of one input, without the batch
    num_outputs: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """Build the network, with fresh weights. Raises `InvalidInput`."""
        return build(self.name, self.input_shape, self.num_outputs, **self.options)

    @property
    def imports_code(self) -> bool:
        """Whether building it imports and calls code that is not this library's."""
        return imports_code(self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as what JSON can hold."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "num_outputs": self.num_outputs,
            "options": dict(self.options),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "NetworkSpec":
        """Read what `to_dict` wrote. Raises `InvalidInput` for missing, unknown or ill-typed entries."""
        known = {"name", "input_shape", "num_outputs", "options"}
        if extra := sorted(set(values) - known):
            raise unknown("entry of a network's specification", extra[0], known)
        if missing := sorted(known - {"options"} - set(values)):
            raise InvalidInput(f"A network's specification lacks {', '.join(missing)}.")
        name, shape, outputs = values["name"], values["input_shape"], values["num_outputs"]
        options = values.get("options", {})
        if not isinstance(name, str) or not _is_count(outputs) or not isinstance(options, Mapping):
            raise InvalidInput(f"A network's specification has an entry of the wrong type: {dict(values)}.")
        if not isinstance(shape, list | tuple) or not all(_is_count(size) for size in shape):
            raise InvalidInput(f"A network's input_shape must be a list of whole numbers above 0, got {shape!r}.")
        return cls(name, tuple(shape), outputs, dict(options))


def imports_code(name: str) -> bool:
    """Say whether a network's name is that of code that would be imported and called.

    >>> imports_code("my_module:make"), imports_code("mlp:50-20")
    (True, False)
    """
    return ":" in name and not name.startswith("mlp:")


def build(name: str, input_shape: tuple[int, ...], num_outputs: int, **options: Any) -> nn.Module:
    """Build a network for inputs (B, *input_shape) and outputs (B, num_outputs).

    `name` is one of `IMAGE_NETWORKS`, for images; `mlp` (two hidden layers of 800), `mlp:50` or `mlp:800-800` (hidden
    widths); or `module:callable`. Options are the further arguments of the network's class, `activation` for each. A
    `module:callable` is imported, also from the current directory, and called with the options (none: no arguments);
    where it names a module instance, a copy of that is taken. Raises `InvalidInput`.

    >>> build("mlp:50-20", (1, 8, 8), 10).widths
    (64, 50, 20, 10)
    >>> build("resnet20", (3, 32, 32), 10, norm="frn").in_channels
    3
    """
    if name in IMAGE_NETWORKS:
        return _image_network(name, tuple(input_shape), num_outputs, options)
    if name == "mlp" or name.startswith("mlp:"):
        return _made(name, MLP, ((prod(input_shape), *_hidden(name), num_outputs),), options)
    if ":" in name:
        return imported(name, options)
    raise unknown("network", name, NAMES)


def image_side(name: str) -> int | None:
    """Return the one height and width, in pixels, that a network needs of its images; None where others will do.

    >>> image_side("lenet"), image_side("resnet20"), image_side("mlp:50")
    (32, None, None)
    """
    network = IMAGE_NETWORKS.get(name)
    return None if network is None or network.larger else network.side


def rebuild(spec: Mapping[str, Any], *, trust: bool = False) -> nn.Module:
    """Build the network of a saved specification (`NetworkSpec.to_dict`), with fresh weights.

    A specification `module:callable` runs whatever code that names, so it needs `trust`. Raises `InvalidInput`.

    >>> rebuild({"name": "mlp:50", "input_shape": [13], "num_outputs": 1}).widths
    (13, 50, 1)
    """
    network = NetworkSpec.from_dict(spec)
    if network.imports_code and not trust:
        raise InvalidInput(
            f"The saved network is '{network.name}', code that would be imported and run: "
            "build the network yourself, or say that you trust it (trust=True)."
        )
    return network.build()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _image_network(name: str, input_shape: tuple[int, ...], num_outputs: int, options: Mapping[str, Any]) -> nn.Module:
    network = IMAGE_NETWORKS[name]
    if len(input_shape) != 3 or not network.takes(input_shape[1:]):
        raise InvalidInput(
            f"'{name}' takes inputs of shape {network.expected('C')}, got {input_shape}: use image_size={network.side}."
        )
    return _made(name, network, (num_outputs, input_shape[0]), options)


def _made(
    name: str, network: Callable[..., nn.Module], sizes: tuple[Any, ...], options: Mapping[str, Any]
) -> nn.Module:
    """Call a network's class with what the data decide, its first arguments, and with options, the others."""
    known = list(inspect.signature(network).parameters)[len(sizes) :]
    for option in options:
        if option not in known:
            raise unknown(f"option of '{name}'", option, known)
    try:
        return network(*sizes, **options)
    except TypeError as error:
        raise InvalidInput(f"Network '{name}': an option is of the wrong type ({one_line(error)}).") from error
    except RuntimeError as error:  # more numbers than there is memory for, or than can be counted
        raise InvalidInput(f"Network '{name}' cannot be built at this size ({one_line(error)}).") from error


def _hidden(name: str) -> tuple[int, ...]:
    if name == "mlp":
        return DEFAULT_HIDDEN
    parts = name.removeprefix("mlp:").split("-")
    whole = all(part.isascii() and part.isdigit() and len(part) <= DIGITS and int(part) > 0 for part in parts)
    if not whole or len(parts) > LAYERS:
        raise InvalidInput(
            f"Network '{short(name)}': expected hidden widths above 0 with hyphens between, as mlp:50 or mlp:800-800; "
            f"{LAYERS} at most."
        )
    return tuple(map(int, parts))
