"""One number, fitted on validation data, that makes all predictions more or less sure: temperature scaling of a posterior."""

from collections.abc import Callable
from math import exp, log, sqrt
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.options import STRICT, dataclass
from posterity.predict.checks import class_labels
from posterity.predict.decomposition import precise
from posterity.predict.predictive import Classification, Regression

AnyPredictive = Classification | Regression
LOWEST, HIGHEST = 0.05, 20.0
SCAN = 13  # temperatures looked at before the best is refined
GOLDEN = (sqrt(5) - 1) / 2
TOLERANCE = 1e-6  # of log T


@dataclass(frozen=True, config=STRICT)
class Temperature:
    """A predictive made T times less sure of itself; T = 1 changes nothing, T > 1 mends predictions that are too sure.

        classes   p_T(y | x) = (1/n) Σ_s softmax(f_s(x) / T)_y
        values    y − μ̄(x) is T times as large: μ̄ + T (μ_s − μ̄) and T σ_s for the drawn means and stds

    Every drawn function is tempered, before the average: the result is again a mean of n functions' probabilities, with
    entropies and their parts. The most probable class of one function stays; that of their average may change, where
    functions disagree. With one draw it is the scaling of Guo et al. (2017), who temper the one network that they have; the
    mean's own logits are not what is divided here. For values, the mean stays and every quantile's distance from it is
    stretched (a predictive std T times as large).

    Args:
        value: T.
        task: 'classification' or 'regression'.
    """

    value: Annotated[float, Field(gt=0)]
    task: Literal["classification", "regression"]

    @property
    def at_limit(self) -> bool:
        """Whether the data want to go further than a temperature may: they do not determine it.

        >>> Temperature(LOWEST, "classification").at_limit, Temperature(1.0, "classification").at_limit
        (True, False)
        """
        return not 1.001 * LOWEST < self.value < HIGHEST / 1.001

    @classmethod
    def fit(cls, predictive: AnyPredictive, targets: Tensor) -> "Temperature":
        """Find the T with the highest log-likelihood of validation targets, T̂ = argmax_T Σ_i log p_T(y_i | x_i).

        A scan over log T, then golden sections; T is between 0.05 and 20, and one of these where the data want to go further
        (all validation examples right, say). Use data that the posterior was not trained on.

        Args:
            predictive: `Classification` or `Regression` of validation inputs. targets: (B,), or as its mean for values.

        Raises:
            InvalidInput: for another predictive, or targets that do not fit it.

        >>> sure = Classification(torch.tensor([[[0.99, 0.01]] * 4]))
        >>> print(f"{Temperature.fit(sure, torch.tensor([0, 0, 0, 1])).value:.4f}")  # log 99 / log 3
        4.1827
        """
        task = _task(predictive)
        if not len(targets):
            raise InvalidInput("There are no validation targets to fit a temperature on.")
        nll = (
            _class_nll(predictive, targets)
            if isinstance(predictive, Classification)
            else _value_nll(predictive, targets)
        )
        return cls(exp(_minimise(nll, log(LOWEST), log(HIGHEST))), task)

    def apply(self, predictive: AnyPredictive) -> AnyPredictive:
        """Return the predictive at this temperature.

        Raises:
            InvalidInput: for a predictive of the other task.

        >>> tempered = Temperature(2.0, "classification").apply(Classification(torch.tensor([[[0.9, 0.1]]])))
        >>> tempered.mean  # 0.9 : 0.1 = 9 : 1 has become 3 : 1
        tensor([[0.7500, 0.2500]])
        """
        if _task(predictive) != self.task:
            raise InvalidInput(
                f"This temperature is for {self.task}; it was given a {type(predictive).__name__} predictive."
            )
        return self._classes(predictive) if isinstance(predictive, Classification) else self._values(predictive)

    def _classes(self, predictive: Classification) -> Classification:
        """Temper log-probabilities: they are the outputs up to a constant, which softmax takes away."""
        log_probs = (_log_probs(predictive) / self.value).log_softmax(-1)
        outputs = None if predictive.outputs is None else predictive.outputs / self.value
        return Classification(log_probs.exp(), outputs, log_probs)

    def _values(self, predictive: Regression) -> Regression:
        centre, square = predictive.mean, self.value**2
        means = centre + self.value * (predictive.means - centre)
        return Regression(means, square * predictive.noise, square * predictive.function_variances)


def _task(predictive: AnyPredictive) -> Literal["classification", "regression"]:
    match predictive:
        case Classification():
            return "classification"
        case Regression():
            return "regression"
    raise InvalidInput(f"Cannot temper a {type(predictive).__name__}. Choices: Classification, Regression.")


def _log_probs(predictive: Classification) -> Tensor:
    return predictive.probs.log() if predictive.log_probs is None else predictive.log_probs


def _class_nll(predictive: Classification, targets: Tensor) -> Callable[[float], float]:
    """Return log T ↦ −mean log p_T(y | x), in float64, where neighbouring temperatures can be compared."""
    known = precise(_log_probs(predictive))
    if known.dim() != 3:
        raise InvalidInput(
            f"A temperature is fitted on one label per input; got sites, shape {tuple(known.shape)}. Make each site an input: "
            "Classification(probs.flatten(1, -2))."
        )
    labels = class_labels(targets, *known.shape[1:]).to(known.device)
    own = known.gather(-1, labels.expand(len(known), -1).unsqueeze(-1)).squeeze(-1)
    if lost := int((own.amax(0) == -torch.inf).sum()):
        raise InvalidInput(
            f"{lost} of {labels.numel()} labels have probability 0 here, at any temperature. Give predictions with their "
            "log-probabilities, as `posterior.predict` makes them, or leave these examples out."
        )

    def nll(log_value: float) -> float:
        value = exp(log_value)
        log_prob = own / value - (known / value).logsumexp(-1)
        return log(len(known)) - log_prob.logsumexp(0).mean().item()

    return nll


def _value_nll(predictive: Regression, targets: Tensor) -> Callable[[float], float]:
    """Return log T ↦ −mean log p_T(y | x), in float64."""
    exact = Regression(precise(predictive.means), precise(predictive.variances))

    def nll(log_value: float) -> float:
        return -Temperature(exp(log_value), "regression").apply(exact).log_prob(targets).mean().item()

    return nll


def _minimise(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the argument of the least value that a scan finds, refined between its neighbours by golden sections."""
    scan = torch.linspace(low, high, SCAN, dtype=torch.float64).tolist()
    best = min(range(SCAN), key=lambda i: function(scan[i]))
    a, b = scan[max(best - 1, 0)], scan[min(best + 1, SCAN - 1)]
    c, d = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    at_c, at_d = function(c), function(d)
    while b - a > TOLERANCE:
        if at_c < at_d:
            b, d, at_d = d, c, at_c
            c = b - GOLDEN * (b - a)
            at_c = function(c)
        else:
            a, c, at_c = c, d, at_d
            d = a + GOLDEN * (b - a)
            at_d = function(d)
    return float((a + b) / 2)
