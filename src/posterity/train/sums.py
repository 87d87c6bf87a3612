"""Means over the data of an epoch, from what each step says of its batch."""

from collections.abc import Mapping
from math import isfinite

import torch
from torch import Tensor

from posterity.errors import Diverged
from posterity.types import IGNORED, Batch, Info, Scores
from posterity.weighing import of_data, there

ROOTS = ("rmse",)  # what is summed as squares


class Sums:
    """What was added up over the data so far, name by name, and over how many: a batch of B data counts for B.

    >>> sums = Sums()
    >>> sums.add({"nll": torch.tensor(1.0), "accuracy": torch.tensor([2.0, 4.0])}, size=3)
    >>> sums.add({"nll": torch.tensor(5.0), "accuracy": torch.tensor([0.0, 0.0])}, size=1)
    >>> sums.means()
    {'nll': 2.0, 'accuracy': 0.5}
    """

    def __init__(self, sums: Mapping[str, float] | None = None, counts: Mapping[str, float] | None = None) -> None:
        # Checkpoints of earlier versions have no counts in the middle of an epoch: what has none begins anew.
        self._counts: dict[str, Tensor | float] = dict(counts or {})
        self._sums: dict[str, Tensor | float] = {n: v for n, v in (sums or {}).items() if n in self._counts}

    def add(self, info: Info, size: Tensor | int) -> None:
        for name, value in info.items():
            total, count = value.double() if value.dim() else (value.double() * size, size)
            self._sums[name] = self._sums.get(name, 0.0) + total
            self._counts[name] = self._counts.get(name, 0.0) + count

    def finite(self) -> bool:
        """Tell whether each value was finite at each step; one look at the device for all of them."""
        totals = [total for total in self._sums.values() if isinstance(total, Tensor)]
        if len({total.device for total in totals}) > 1:
            return all(bool(total.isfinite()) for total in totals)
        return not totals or bool(torch.stack(totals).isfinite().all())

    def refuse_strange(self, epoch: int, last: int, steps: int) -> None:
        """Raise `Diverged` where the values of the last so many steps were not all finite, whether anybody saw them or not."""
        if not self.finite():
            name, value = next((name, total) for name, total in self.sums.items() if not isfinite(total))
            raise Diverged(
                f"The {name} became {value} in epoch {epoch}, between steps {max(1, last - steps + 1)} and {last}. Use a "
                "smaller learning rate, a smaller initial std, or check the scale of inputs and targets."
            )

    @property
    def sums(self) -> dict[str, float]:
        return {name: float(total) for name, total in self._sums.items()}

    @property
    def counts(self) -> dict[str, float]:
        return {name: float(count) for name, count in self._counts.items()}

    def means(self) -> Scores:
        """Return the means of what was counted at all; the root of what is a sum of squares."""
        counts = self.counts
        pairs = {name: torch.tensor([total, counts[name]], dtype=torch.float64) for name, total in self.sums.items()}
        return {name: float(value) for name, value in means(pairs).items()}


def means(info: Info) -> Info:
    """Turn sums into means, each (); what has nothing to divide by is left out.

    >>> means({"rmse": torch.tensor([18.0, 2.0]), "kl": torch.tensor(0.5), "accuracy": torch.zeros(2)})
    {'rmse': tensor(3.), 'kl': tensor(0.5000)}
    """
    divided = {name: value[0] / value[1] if value.dim() else value for name, value in info.items()}
    known = {name: value for name, value in divided.items() if not info[name].dim() or bool(info[name][1])}
    return {name: value.sqrt() if name in ROOTS and info[name].dim() else value for name, value in known.items()}


def summed(scores: Scores, batch: Batch) -> Info:
    """Turn the scores of a batch into what is summed of them, [total, count] each: an accuracy is one of known labels.

    >>> summed({"nll": 0.5, "accuracy": 1.0}, (torch.zeros(3), torch.tensor([2, IGNORED, IGNORED])))["accuracy"].tolist()
    [1.0, 1.0]
    """
    own, seen = of_data(batch), there(batch[1])
    known = float(seen.sum() if own is None else (own * seen).sum())
    labels = float((batch[1] != IGNORED).sum()) if own is None else known
    counts = {name: labels if name == "accuracy" else known for name in scores}
    totals = {name: (value**2 if name in ROOTS else value) * counts[name] for name, value in scores.items()}
    return {name: torch.tensor([totals[name], counts[name]], dtype=torch.float64) for name in scores}


def objective(means: Scores) -> float:
    """Return what an epoch of training descended, in nats per datum, of its means.

    >>> objective({"nll": 0.5, "log_prior": -1.5}), objective({"nll": 0.5, "nelbo": 3.0})
    (2.0, 3.0)
    """
    return means["nelbo"] if "nelbo" in means else means["nll"] - means.get("log_prior", 0.0)


def monitored(scores: Scores, monitor: str) -> float:
    """Return the validation score that the best state has least of: the first where the likelihood has no density.

    >>> monitored({"nll": 0.5, "rmse": 2.0}, "nll"), monitored({"pinball": 0.1}, "nll")
    (0.5, 0.1)
    """
    return scores[monitor] if monitor in scores else next(iter(scores.values()))
