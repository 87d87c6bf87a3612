"""The numbers that a network or a posterior computes with, by name, and how units lie in them."""

from dataclasses import dataclass

from torch import Tensor, nn

from posterity.compress.ranking import moments
from posterity.compress.units import Reader
from posterity.posteriors.base import FunctionPosterior

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """A network's tensors by name, and the stds of those that are random."""

    mean: Tensors
    std: Tensors

    def gone(self, name: str) -> Tensor:
        """Mark what is 0 in every draw."""
        zero = self.mean[name] == 0
        return zero & (self.std[name] == 0) if name in self.std else zero


def weights_of(model: nn.Module | FunctionPosterior) -> Weights:
    """Return the tensors that a network computes with; of a posterior their means, and stds where they have any."""
    network = model if isinstance(model, nn.Module) else model.network()
    mean = {n: t.detach() for n, t in (*network.named_parameters(), *network.named_buffers())}
    if isinstance(model, nn.Module):
        return Weights(mean, {})
    where, (_, std) = model.problem.coordinates, moments(model)
    return Weights(mean, where.random_layout.changes(std))


def rows(tensor: Tensor) -> Tensor:
    """View a tensor as (rows, all else)."""
    return tensor.reshape(len(tensor), -1)


def columns(tensor: Tensor, reader: Reader) -> Tensor:
    """View a reader's weight as (out, units, repeat, *kernel)."""
    return tensor.view(len(tensor), -1, reader.repeat, *tensor.shape[2:])
