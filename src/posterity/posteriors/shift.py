"""What becomes of predictions as inputs get worse: they may err more, but should know it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import log
from typing import Any

from torch import Tensor

from posterity.errors import InvalidInput
from posterity.metrics.scores import evaluate
from posterity.model.problem import check_inputs
from posterity.options import require, shown
from posterity.posteriors.asked import check_posterior
from posterity.posteriors.average import USUAL, Averaging
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.predictive import Classification

SEVERITIES = (0, 1, 2, 3, 4, 5)
CLASS_SCORES = ("accuracy", "nll", "ece", "entropy", "mutual_information")
VALUE_SCORES = ("rmse", "nll", "coverage_90", "epistemic_std", "aleatoric_std")


@dataclass(frozen=True)
class Shift:
    """Scores of one posterior at each severity, 0 (nothing) to 5: kind of corruption → score → value per severity."""

    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    count: int  # inputs
    draws: int

    @property
    def mean(self) -> dict[str, tuple[float, ...]]:
        """Each score's mean over the kinds, per severity."""
        kinds = list(self.scores.values())
        return {
            name: tuple(sum(values) / len(kinds) for values in zip(*(kind[name] for kind in kinds), strict=True))
            for name in kinds[0]
        }

    def rescale(self, std: float) -> "Shift":
        """Return the scores of a regression in original units, for targets that were divided by `std`."""
        stds, nll = ("rmse", "epistemic_std", "aleatoric_std"), log(std)
        scores = {
            kind: {
                name: tuple(v * std if name in stds else v + nll if name == "nll" else v for v in values)
                for name, values in own.items()
            }
            for kind, own in self.scores.items()
        }
        return Shift(scores, self.count, self.draws)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON can hold them; `shift_from` reads them."""
        return {"severities": list(SEVERITIES), **asdict(self)}


def shift_from(values: Mapping[str, Any]) -> Shift:
    """Read what `Shift.to_dict` returned, also from JSON, where NaN and infinities are null."""
    scores = {
        kind: {name: tuple(float("nan") if v is None else v for v in row) for name, row in own.items()}
        for kind, own in values["scores"].items()
    }
    return Shift(scores, values["count"], values["draws"])


def under_shift(
    posterior: FunctionPosterior,
    inputs: Tensor,
    targets: Tensor,
    corruptions: Mapping[str, Callable[[Tensor, int], Tensor]],
    averaging: Averaging = USUAL,
) -> Shift:
    """Score a posterior on inputs that are corrupted at severities 0 to 5, after Hendrycks & Dietterich (2019).

    A classification gets accuracy, NLL (nats per example), ECE (15 bins), and the means of entropy and mutual information
    (nats); a regression gets RMSE, NLL, the coverage of 90 % intervals, and the means of epistemic and aleatoric std: see
    `posterity.metrics.scores.evaluate`. Ovadia et al. (2019) ask the same of calibration. All corruptions are met by the
    same drawn functions.

    Args:
        posterior: of the network; call it again for a deterministic twin.
        inputs: (B, ...), as the network takes them; targets: (B,) or (B, D).
        corruptions: by name, a function (inputs, severity 1 … 5) → inputs; `posterity.data.shift.corruptions(dataset)`.
        averaging: number and seed of the functions.

    Raises:
        InvalidInput: without corruptions, and where inputs or targets do not fit.

    >>> from posterity import Categorical, Normal, Problem
    >>> from posterity.data import load
    >>> from posterity.data.shift import corruptions
    >>> from posterity.posteriors.point import Point
    >>> from posterity.zoo import MLP
    >>> digits = load("digits").standardised()
    >>> problem = Problem(MLP((64, 10)), Normal(0, 1), Categorical(), 1437)
    >>> point = Point(problem, problem.theta())
    >>> found = under_shift(point, digits.test_inputs, digits.test_targets, corruptions(digits, ["noise", "blur"]))
    >>> list(found.scores), len(found.scores["blur"]["accuracy"])
    (['noise', 'blur'], 6)
    """
    check_posterior(posterior)
    check_inputs(inputs)
    require(targets=(targets, Tensor), corruptions=(corruptions, Mapping), averaging=(averaging, Averaging))
    for name, corruption in corruptions.items():
        if not callable(corruption):
            raise InvalidInput(
                f"corruptions[{shown(name)}]={shown(corruption)}: must be a function (inputs, severity)."
            )
    if not corruptions:
        raise InvalidInput("There are no corruptions; give some, as posterity.data.shift.corruptions(dataset).")

    def scored(own: Tensor) -> dict[str, float]:
        predictive = averaging.predict(posterior, own)
        names = CLASS_SCORES if isinstance(predictive, Classification) else VALUE_SCORES
        found = evaluate(predictive, targets)
        return {name: found[name] for name in names}

    clean = scored(inputs)
    scores = {}
    for kind, corrupt in corruptions.items():
        rows = [clean, *(scored(corrupt(inputs, severity)) for severity in SEVERITIES[1:])]
        scores[kind] = {name: tuple(row[name] for row in rows) for name in clean}
    return Shift(scores, len(inputs), 1 if posterior.single else averaging.draws)
