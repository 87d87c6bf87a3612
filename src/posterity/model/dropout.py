"""Dropout with masks that the caller holds: a network is run unmodified, and hooks drop values where its layers would.

A site is a layer by name with a rate: of a dropout layer the output is masked, of a linear or convolution layer the input. A
convolution's mask has one value per channel, a linear layer's one per feature, also where there are several tokens: dropping
them is then a draw of the weights, W·diag(z) (Gal & Ghahramani 2016, §3), the same wherever an example meets W.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from posterity.errors import InvalidInput
from posterity.model.problem import Problem

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
ALPHA = (nn.AlphaDropout, nn.FeatureAlphaDropout)
ELEMENTWISE = (nn.Dropout, nn.AlphaDropout)
SELU_FLOOR = -1.7580993408473766  # SELU's limit at −∞, −λα (Klambauer et al. 2017)


def dropout_rates(problem: Problem, rate: float | None) -> dict[str, float]:
    """Return the rate of each site by its name: the network's dropout layers, or layers that get dropout for the purpose.

    A rate overrides those of the network's dropout layers. Where it has none, each random linear or convolution layer but
    the network's first one, in the order of `named_modules`, gets its inputs dropped at this rate.

    Raises:
        InvalidInput: where nothing would be dropped, or a layer drops everything.

    >>> from posterity import Gaussian, Normal
    >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    >>> dropout_rates(Problem(network, Normal(0, 1), Gaussian(), 10), 0.1)
    {'2': 0.1}
    """
    modules = dict(problem.network.named_modules())
    rates = {n: p if rate is None else rate for n, p in own_rates(problem.network).items()}
    if not rates and rate is not None:
        random = {id(problem.params[n]) for n in problem.coordinates.random_names}
        layers = [n for n, m in modules.items() if isinstance(m, LAYERS)]
        rates = {n: rate for n in layers[1:] if any(id(p) in random for p in modules[n].parameters())}
    rates = {n: p for n, p in rates.items() if p > 0}
    if everything := [n for n, p in rates.items() if p >= 1]:
        raise InvalidInput(
            f"Dropout layer '{everything[0]}' has the rate 1, which leaves nothing; give it one below 1."
        )
    if not rates:
        name = type(problem.network).__name__
        if rate is None:
            raise InvalidInput(
                f"{name} has no dropout layer with a rate above 0: give one, MCDropout(rate=0.1), or add nn.Dropout to it."
            )
        raise InvalidInput(
            f"{name} has no random linear or convolution layer after its first one, before which to drop anything; "
            "put nn.Dropout where you want it."
        )
    return rates


def own_rates(network: nn.Module) -> dict[str, float]:
    """Return the rates of a network's own dropout layers, by name."""
    return {n: m.p for n, m in network.named_modules() if isinstance(m, _DropoutNd)}


@runtime_checkable
class Masks(Protocol):
    """Where the masks of a network's sites come from."""

    def begin(self) -> None:
        """Note that a forward pass begins."""

    def __call__(self, site: str, keep: float, inputs: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return zeros and ones, (1 or B, *shape), with the mean `keep`, for the next call of a site."""


class FreshMasks:
    """A mask of its own for each example and each call: what dropout is in training."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def begin(self) -> None:
        """Keep nothing."""

    def __call__(self, site: str, keep: float, inputs: Tensor, shape: tuple[int, ...]) -> Tensor:
        return inputs.new_empty((len(inputs), *shape)).bernoulli_(keep, generator=self.generator)


class HeldMasks:
    """One mask for all examples and all batches: with it the network is one function.

    Each site has a generator of its own, so that its masks do not depend on which others were called before. A site that is
    called several times in a forward pass has one mask for each of its calls.
    """

    def __init__(self, seeds: Mapping[str, int], device: torch.device) -> None:
        self._generators = {n: Generator(device).manual_seed(seed) for n, seed in seeds.items()}
        self._kept: dict[tuple[str, int], Tensor] = {}
        self._calls: Counter[str] = Counter()

    def begin(self) -> None:
        self._calls.clear()

    def __call__(self, site: str, keep: float, inputs: Tensor, shape: tuple[int, ...]) -> Tensor:
        call = site, self._calls[site]
        self._calls[site] += 1
        if call not in self._kept:
            self._kept[call] = inputs.new_empty((1, *shape)).bernoulli_(keep, generator=self._generators[site])
        return self._kept[call]


@contextmanager
def masked(network: nn.Module, rates: Mapping[str, float], masks: Masks) -> Iterator[None]:
    """Drop values at the sites inside the block, whatever mode the network is in; afterwards it is as it was.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(2, 1))
    >>> with masked(network, {"1": 0.5}, HeldMasks({"1": 0}, torch.device("cpu"))):
    ...     len({value.item() for value in network(torch.ones(9, 2))})
    1
    """
    modules = dict(network.named_modules())
    own = {m: m.training for m in modules.values() if isinstance(m, _DropoutNd)}
    batch: list[int] = []

    def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
        masks.begin()
        batch[:] = [len(args[0])]

    def drop(site: str, module: nn.Module, values: Tensor) -> Tensor:
        _refuse_other_rows(site, values, batch[0])
        keep = 1 - rates[site]
        return _dropped(module, values, masks(site, keep, values, _mask_shape(module, values)), keep)

    handles = [network.register_forward_pre_hook(begin)]
    try:
        for site in rates:
            if modules[site] in own:
                handles.append(modules[site].register_forward_hook(partial(_after, partial(drop, site))))
            else:
                handles.append(modules[site].register_forward_pre_hook(partial(_before, partial(drop, site))))
        for module in own:
            module.eval()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in own.items():
            module.train(mode)


def _before(drop: Any, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (drop(module, args[0]), *args[1:])


def _after(drop: Any, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Any:
    return drop(module, output)


def _mask_shape(module: nn.Module, values: Tensor) -> tuple[int, ...]:
    """The shape of one example's mask: it is broadcast where a layer's weight meets several places or tokens."""
    places = (1,) * (values.dim() - 2)
    if isinstance(module, nn.Linear):
        return (*places, values.shape[-1])
    return tuple(values.shape[1:]) if isinstance(module, ELEMENTWISE) else (values.shape[1], *places)


def _dropped(module: nn.Module, values: Tensor, mask: Tensor, keep: float) -> Tensor:
    """Drop, and scale to keep the mean; alpha dropout drops to SELU's floor and keeps mean 0 and variance 1."""
    if not isinstance(module, ALPHA):
        return values * mask / keep
    scale = float((keep * (1 + (1 - keep) * SELU_FLOOR**2)) ** -0.5)
    return scale * (values * mask + SELU_FLOOR * (1 - mask) - SELU_FLOOR * (1 - keep))


def _refuse_other_rows(site: str, values: Tensor, batch: int) -> None:
    if values.dim() < 2 or (batch and len(values) % batch):
        raise InvalidInput(
            f"Dropout at '{site}' meets values of shape {tuple(values.shape)} for a batch of {batch}; examples must come "
            "first, so that all of them can share one mask. Use batch_first=True, or transpose after the dropout."
        )
