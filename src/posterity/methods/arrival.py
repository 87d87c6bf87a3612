"""Whether a fit has arrived: small functions of what an inference watched, each of which says one thing or nothing.

A run's rows hold the means of each epoch and what the inference `watched` at its end. Trends are those of the last third of
the epochs: a line by least squares, whose change is compared with its own standard error; of fewer than four, the last two.
The constants below were set between fits that had arrived and fits that had not, on digits, diabetes and conjugate models.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Self

import numpy as np

from posterity.types import LIKELIHOOD, PRIOR, Row

LEAST = 4  # rows of a line
PART = 3  # the last of so many parts of the rows
NOISE = 2.5  # standard errors that a trend exceeds
NATS = (0.02, 0.1)  # per datum: the least that counts of an objective, and what counts whatever its size
SHARE = 0.05  # of an objective's size, a latent's value: what counts between these two
STILL = 0.5  # share of stds near their start
NEAR = 0.1  # |log(std/start)| that is near
PULLED, CARRIED = (
    0.2,
    0.3,
)  # the mean of m/√v that is a pull, and the one that says by itself that stds are on their way


class Remark(str):
    """A sentence, and the kind of thing that it says, by which the same remark on several members is recognised.

    >>> Remark("stds", "stds have hardly moved").kind
    'stds'
    """

    kind: str

    def __new__(cls, kind: str, text: str) -> Self:
        remark = super().__new__(cls, text)
        remark.kind = kind
        return remark

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # str's own has one
        return self.kind, str(self)


@dataclass(frozen=True)
class Trend:
    """What changed over the last part of a run: change ± error, from the line's start to its end."""

    start: float
    end: float
    error: float
    epochs: int

    @property
    def change(self) -> float:
        return self.end - self.start

    def clear(self, least: float) -> bool:
        """Whether the change is more than noise, and more than `least`."""
        return abs(self.change) > max(least, NOISE * self.error)


def trend(values: Sequence[float]) -> Trend | None:
    """Return the trend of the last third of a run's values; None where they are too few, or not finite.

    >>> found = trend([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    >>> found.epochs, round(found.change, 3), round(found.error, 3)
    (4, -3.0, 0.0)
    """
    part = values[-max(LEAST, -(-len(values) // PART)) :]
    if len(part) < 2 or not np.isfinite(part).all():
        return None
    return Trend(float(part[-2]), float(part[-1]), 0.0, 2) if len(part) < LEAST else line(part)


def line(values: Sequence[float]) -> Trend:
    """Fit a straight line to three values or more; the error is that of its rise from the first to the last.

    >>> found = line([1.0, 2.0, 3.0, 4.0])
    >>> found.start, found.end
    (1.0, 4.0)
    """
    part = np.asarray(values, dtype=float)
    at = np.arange(len(part)) - (len(part) - 1) / 2
    slope = (at * part).sum() / (at**2).sum()
    rest = part - part.mean() - slope * at
    error = np.sqrt((rest**2).sum() / (len(part) - 2) / (at**2).sum()) * (len(part) - 1)
    ends = part.mean() + slope * np.array([at[0], at[-1]])
    return Trend(float(ends[0]), float(ends[1]), float(error), len(part))


def falling(rows: Sequence[Row], objective: str = "nelbo") -> list[Remark]:
    """Say that the objective still fell when the run ended."""
    found = trend(_objective(rows, objective))
    if found is None or found.change > 0 or not found.clear(counts(found.end)):
        return []
    return [
        Remark(
            "objective",
            f"The {_NAMES[objective]} still fell: from {found.start:.3g} to {found.end:.3g} nats per datum over the last "
            f"{found.epochs} of {len(rows)} epochs. Train longer (epochs={3 * len(rows)}), or with another lr.",
        )
    ]


def moving_divergence(rows: Sequence[Row]) -> list[Remark]:
    """Say that the KL to the prior still moved."""
    found = trend([row["kl"] for row in rows])
    if found is None or not found.clear(max(counts(rows[-1]["nelbo"]), counts(found.end))):
        return []
    return [
        Remark(
            "kl",
            f"The KL to the prior still moved: from {found.start:.3g} to {found.end:.3g} nats per datum over the last "
            f"{found.epochs} of {len(rows)} epochs, so that the posterior's width is not settled. Train longer.",
        )
    ]


def moving_latents(rows: Sequence[Row]) -> list[Remark]:
    """Say which noise levels and scales still moved, the fastest first."""
    watched = [row["watched"] for row in rows if "watched" in row]
    moved: list[tuple[float, str, Trend]] = []
    for name in watched[-1] if watched else ():
        values = [numbers[name] for numbers in watched]
        if not name.startswith((LIKELIHOOD, PRIOR)) or not all(v > 0 for v in values):
            continue
        found = trend([log(v) for v in values])
        if found is not None and found.clear(SHARE):
            moved.append((abs(found.change), name, found))
    return [
        remark
        for start, what in ((LIKELIHOOD, "noise level"), (PRIOR, "scale of the prior"))
        if (remark := _moving(what, [m for m in moved if m[1].startswith(start)], len(rows)))
    ]


def still_stds(rows: Sequence[Row], advice: str = "a larger std_lr") -> list[Remark]:
    """Say that most stds are where they started, or that all are on their way: a schedule may end before they arrive.

    Near their start they are said to be where they are pulled away from there, or belong to a fit that has not settled;
    nothing pulls at those that converged there by chance. Rows without `still` have a start that is no guess, rows without
    `pull` an optimiser that does not remember it.
    """
    last = rows[-1].get("watched", {}) if rows else {}
    share, pull = last.get("still", 0.0), last.get("pull")
    started = share >= STILL and (pull is None or pull >= PULLED or bool(falling(rows)))
    if started:
        where = f"{100 * share:.0f} % of the stds are within {100 * NEAR:.0f} % of where they started"
        what = "is its start, not inferred"
    elif pull is not None and pull >= CARRIED:
        where, what = "The stds still went one way at every step when the run ended", "is not inferred yet"
    else:
        return []
    return [
        Remark(
            "stds",
            f"{where} (their typical size is {last['stds']:.3g} times the start's): the width of this posterior {what}. "
            f"Train longer, or with {advice}.",
        )
    ]


def near_point(rows: Sequence[Row], best: int | None, objective: str = "nelbo") -> list[Remark]:
    """Say that validation chose an epoch at which the objective was far from where it went, or was going."""
    if best is None or not rows or best >= rows[-1]["epoch"]:
        return []
    values = _objective(rows, objective)
    at, end = values[best - 1], values[-1]
    if at - end < counts(end) and not falling(rows, objective):
        return []
    stds = rows[best - 1].get("watched", {}).get("stds")
    width = "" if stds is None else f", where the stds are {stds:.3g} times those of the start"
    return [
        Remark(
            "validation",
            f"Validation chose epoch {best} of {rows[-1]['epoch']}{width}, and the {_NAMES[objective]} was {at:.3g} nats per "
            f"datum ({end:.3g} at the last epoch, still falling or lower): a near-point, whose width is not the posterior's. "
            "For the posterior use patience=None and monitor='nelbo', and train longer.",
        )
    ]


def variational(rows: Sequence[Row], best: int | None, advice: str = "a larger std_lr") -> list[Remark]:
    """Say all of the above of a method that descends the nelbo."""
    if not rows:
        return []
    early = near_point(rows, best)
    upto = rows if best is None else rows[:best]
    if early:  # which says how wide the stds are, too
        return [*moving_latents(upto), *early]
    return [*falling(rows), *moving_divergence(rows), *still_stds(upto, advice), *moving_latents(upto)]


def point(rows: Sequence[Row], best: int | None) -> list[Remark]:
    """Say all of the above of a method that descends to a point: where validation chose it, that is where it belongs."""
    if not rows:
        return []
    chosen = best is not None and best < rows[-1]["epoch"]
    return moving_latents(rows[:best]) + ([] if chosen else falling(rows, "log_prior"))


def merged(members: Sequence[Iterable[str]]) -> list[Remark]:
    """Gather the remarks on members: one of each kind, with the numbers of those that it is said of.

    >>> merged([[Remark("stds", "Stds are 3 % wider.")], [], [Remark("stds", "Stds are 4 % wider.")]])
    ['Members 1 and 3 of 3: Stds are 3 % wider.']
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for number, remarks in enumerate(members, 1):
        for remark in remarks:
            found.setdefault(getattr(remark, "kind", str(remark)), []).append((number, str(remark)))
    return [
        Remark(kind, f"{_numbered([n for n, _ in said], len(members))}: {said[0][1]}") for kind, said in found.items()
    ]


_NAMES = {"nelbo": "negative ELBO", "log_prior": "negative log joint", "nll": "nll"}


def _objective(rows: Sequence[Row], name: str) -> list[float]:
    """Return the objective of each epoch: the nelbo, or the nll with the log prior that a point descends with it."""
    return [row["nll"] - row["log_prior"] if name == "log_prior" else row[name] for row in rows]


def counts(value: float) -> float:
    """Return the change of an objective, in nats per datum, that counts at this value."""
    least, most = NATS
    return min(max(least, SHARE * abs(value)), most)


def _moving(what: str, moved: list[tuple[float, str, Trend]], epochs: int) -> Remark | None:
    if not moved:
        return None
    _, name, found = max(moved)
    start, end = np.exp([found.start, found.end])
    more = f" (and {len(moved) - 1} more)" if len(moved) > 1 else ""
    return Remark(
        f"moving {what}",
        f"The {what} {name}{more} still moved: from {start:.3g} to {end:.3g} over the last {found.epochs} of {epochs} epochs. "
        "Train longer, or start nearer to it.",
    )


def _numbered(numbers: Sequence[int], count: int) -> str:
    if len(numbers) == count:
        return f"All {count} members"
    *first, last = map(str, numbers)
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"Member{'s' if first else ''} {listed} of {count}"
