"""An inference that owns its state, run by an engine: what a method's `start` returns.

inference = method.start(problem, budget, run)
inference.step(batch) -> Info          moves its state, and says what a person wants to see of the step
inference.state -> {name: tensor}      all that the next step needs; an engine copies it out, and into it on resume
inference.posterior() -> Posterior     of the state as it stands
"""

from typing import Any

import torch

from posterity.errors import InvalidInput
from posterity.model.problem import Problem
from posterity.types import Batch, Budget, Info, State, Streams


class Started:
    """Runs what `method.start` returns as an engine wants it; one with `init` and `update` is run as it is."""

    def __init__(self, method: Any, problem: Problem, budget: Budget) -> None:
        self.method, self.problem, self.budget = method, problem, budget

    def init(self, streams: Streams) -> State:
        self.inference = self.method.start(self.problem, self.budget, streams)
        if hasattr(self.inference, "init"):
            state: State = self.inference.init(streams)
            return state
        missing = [name for name in ("state", "step", "posterior") if not hasattr(self.inference, name)]
        if missing:
            raise InvalidInput(
                f"start of {type(self.method).__name__} returned a {type(self.inference).__name__} without "
                f"{' and '.join(missing)}: an inference has state, step(batch) and posterior()."
            )
        return self._live()

    def update(self, state: State, batch: Batch) -> tuple[State, Info]:
        if hasattr(self.inference, "update"):
            return self.inference.update(state, batch)  # type: ignore[no-any-return]
        info = self.inference.step(batch)
        return self._live(), dict(info or {})

    @torch.no_grad()
    def posterior(self, state: State) -> Any:
        """Return the posterior of a state, the best one say, and leave the inference where it stands."""
        if hasattr(self.inference, "init"):
            return self.inference.posterior(state)
        live = self._live()
        kept = {name: value.clone() for name, value in live.items()}
        _copied(state, live)
        try:
            return self.inference.posterior()
        finally:
            _copied(kept, self._live())

    def _live(self) -> State:
        return dict(self.inference.state)


def _copied(values: State, live: State) -> None:
    for name, value in values.items():
        if live[name] is not value:
            live[name].copy_(value)
