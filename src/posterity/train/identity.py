"""What a run is of, in names and plain values, and how it differs from another: it goes on as the same run, or not at all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from posterity.errors import Mismatch
from posterity.types import Budget

MANY, LONG = 12, 100  # differences in one message, characters of a value
ABSENT = "none"


def _nothing() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, eq=False)
class Identity:
    """What a fit is of. The engine stores it with each checkpoint, and compares it before a run goes on.

    Args:
        values: JSON values, nested by name.
        growing: names, with dots, of numbers that may become larger when a run goes on.
        later: further values, which cost time and are looked at only where there is a checkpoint to write or to compare.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    growing: frozenset[str] = frozenset()
    later: Callable[[], Mapping[str, Any]] = _nothing

    @cached_property
    def flat(self) -> dict[str, Any]:
        """All values, by names with dots."""
        return flattened({**self.values, **self.later()})

    def joined(self, values: Mapping[str, Any], growing: frozenset[str] = frozenset()) -> "Identity":
        """Return the identity with more values."""
        return Identity({**self.values, **values}, self.growing | growing, self.later)

    def of_run(self, name: str, seed: int, inference: object, budget: Budget) -> "Identity":
        """Return the identity of one run of the fit; a run that no fit has described is of its budget, at least."""
        alone = {"inference": type(inference).__name__, "epochs": budget.epochs, "patience": budget.patience}
        own = {} if self.values else {**alone, "steps": budget.steps_per_epoch, "seed": seed}
        return self.joined({**own, "part": name})

    def grown(self, saved: Mapping[str, Any], where: str) -> list[str]:
        """Compare with what a checkpoint says it is of; return what has grown, in words.

        Raises:
            Mismatch: with all that differs otherwise.
        """
        changed = [k for k in {**saved, **self.flat} if saved.get(k) != self.flat.get(k)]
        ordered = sorted(
            changed, key=lambda k: not k.endswith("kind")
        )  # what another kind has otherwise comes after it
        grown = [k for k in ordered if k in self.growing and _larger(self.flat.get(k), saved.get(k))]
        if len(grown) == len(ordered):
            return differences(grown, saved, self.flat)
        lines = differences([k for k in ordered if k not in grown], saved, self.flat)
        more = f"; and {len(lines) - MANY} more" if len(lines) > MANY else ""
        laid = any(k.endswith("epochs") for k in ordered)
        hint = " Only a rate that does not depend on the number of epochs lets a run grow longer." if laid else ""
        raise Mismatch(
            f"{where} is of another run. What differs: {'; '.join(lines[:MANY])}{more}. Go on with what it was trained with, "
            f"or start afresh in another folder.{hint}"
        )


def differences(names: list[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Say what has changed, `name before → after` each.

    >>> differences(["method.lr"], {"method.lr": 0.01}, {"method.lr": 0.02})
    ['method.lr 0.01 → 0.02']
    """
    return [f"{name} {_shown(before.get(name))} → {_shown(after.get(name))}" for name in names]


def flattened(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """Return nested values by names with dots.

    >>> flattened({"method": {"kind": "map", "rates": [1, 2]}, "seed": 0})
    {'method.kind': 'map', 'method.rates': [1, 2], 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{under}{name}"
        if isinstance(value, Mapping):
            flat.update(flattened(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def _larger(after: Any, before: Any) -> bool:
    return isinstance(after, int | float) and isinstance(before, int | float) and after > before


def _shown(value: Any) -> str:
    text = "".join(c if c.isprintable() else " " for c in (ABSENT if value is None else str(value)))
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"
