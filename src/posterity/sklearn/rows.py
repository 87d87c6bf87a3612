"""Rows of a table as an inference takes them: each as often as it counts, and an earlier posterior as the prior of new ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.posteriors.base import FunctionPosterior
from posterity.train.batches import TensorData
from posterity.types import Prior
from posterity.weighing import complete

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded inputs (N, D), targets, and weights (N,), as NumPy holds them."""

    inputs: Tensor
    targets: Tensor
    weights: Array

    def data(self, batch_size: int) -> TensorData:
        """Return the rows that count, in batches of at most so many."""
        seen = torch.from_numpy(self.weights > 0)
        own = torch.from_numpy(self.weights)[seen].to(self.inputs.dtype)
        size = min(batch_size, len(own))
        weights = None if bool((own == 1).all()) else own
        return TensorData(self.inputs[seen], self.targets[seen], size, weights=weights)


def sample_weights(given: Any, count: int) -> Array:
    """Return a weight for each of so many rows; 1 where none are given, and one number is that of all.

    Raises:
        InvalidInput: for another shape, weights below zero or not finite, and where all are zero.
    """
    try:
        values: Array = np.array(1.0 if given is None else given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"sample_weight is {type(given).__name__}, no numbers: {error}.") from error
    values = np.full(count, float(values)) if values.ndim == 0 else values
    if values.shape != (count,):
        raise InvalidInput(f"sample_weight has shape {values.shape}; give one weight for each of the {count} rows.")
    if not np.isfinite(values).all() or (values < 0).any():
        raise InvalidInput("Some sample_weight are below zero, NaN or infinite; a weight says how often a row counts.")
    if not values.any():
        raise InvalidInput("All sample_weight are zero: there is nothing to learn from.")
    return values


def as_often(table: Any, weights: Array) -> Any:
    """Return the rows of a table each as often as it counts, see `weighing.complete`."""
    places = torch.arange(len(weights))
    index = complete((places, places, torch.from_numpy(weights)))[1].numpy()
    return _safe_indexing(table, index)


def goes_on(estimator: Any) -> bool:
    """Tell whether further rows can go on from what an estimator has found: of one that has found nothing they begin.

    Raises:
        InvalidInput: where they cannot, with the reason; to scikit-learn's tools `partial_fit` is then not there.
    """
    found = getattr(estimator, "posterior_", None)
    return found is None or informed(found) is not None


def informed(before: FunctionPosterior) -> Prior:
    """Make an earlier posterior the prior of what comes.

    Raises:
        InvalidInput: for one that is no Gaussian over weights which a prior can be made of.
    """
    weights = getattr(before, "weights", before)  # of a linearised one
    if not hasattr(weights, "as_prior"):
        method = before.provenance.get("method", {}).get("kind", "this method")
        raise InvalidInput(
            f"partial_fit takes the posterior of the rows before as the prior of new ones, and what '{method}' gives "
            f"({type(weights).__name__}) is no Gaussian that can be one. Give method=MeanField(), LowRank() or FullRank(), or "
            "fit all rows together."
        )
    prior: Prior = weights.as_prior()
    return prior
