"""What the objective of a variational fit reached: the ELBO of the q that was returned, for tables."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from posterity.types import Scores


class Bounds:
    """Listens to fits (`Engine(on_epoch=bounds)`), and says the negative ELBO of what they returned.

        nelbo = E_q[−log p(D | θ)]/N + KL(q‖p)/N,      in nats per datum of the training data, at temperature 1

    as the log has it: averaged over the steps of the epoch that was kept, one draw each. `nelbo_fall` is what it lost over the
    last quarter of the epochs: 0, within the noise of the draws, where the fit has arrived. Of an ensemble the members' means.

    >>> bounds = Bounds()
    >>> bounds("fit", {"epoch": 1, "nll": 0.5, "kl": 1.0})
    >>> bounds("fit", {"epoch": 2, "nll": 0.25, "kl": 1.0})
    >>> bounds.scores()
    {'nelbo': 1.25, 'nelbo_fall': 0.25}
    """

    def __init__(self) -> None:
        self.histories: dict[str, list[dict[str, Any]]] = {}

    def __call__(self, fit: str, row: dict[str, Any]) -> None:
        self.histories.setdefault(fit, []).append(row)

    def scores(self) -> Scores:
        """Return `nelbo` and `nelbo_fall`, or nothing where no fit had a KL."""
        fits = [history for history in self.histories.values() if "kl" in history[-1]]
        if not fits:
            return {}
        return {
            "nelbo": statistics.fmean(nelbo(kept(history)) for history in fits),
            "nelbo_fall": statistics.fmean(fall(history) for history in fits),
        }


def kept(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the row of the epoch that was kept: the best by validation NLL, the last where nothing was held out."""
    looked = [row for row in history if "validation" in row]
    return min(looked, key=lambda row: row["validation"]["nll"]) if looked else history[-1]


def nelbo(row: Mapping[str, Any]) -> float:
    """Return the negative ELBO of an epoch's row, in nats per datum, at temperature 1 whatever the fit's own was."""
    return float(row["nll"] + row["kl"])


def fall(history: Sequence[Mapping[str, Any]]) -> float:
    """Return what the negative ELBO lost over the last quarter of the epochs, of one epoch at least."""
    return nelbo(history[-1 - min(len(history) - 1, max(1, len(history) // 4))]) - nelbo(history[-1])
