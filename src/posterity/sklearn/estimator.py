"""What the two estimators share: a table to inputs, inputs to a posterior, seeds, and what scikit-learn asks of them."""

from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from posterity.decide import calibrate
from posterity.errors import InvalidInput
from posterity.fitting import fit
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.predictive import AnyPredictive
from posterity.sklearn.columns import ColumnEncoder
from posterity.sklearn.rows import Array, Rows, as_often, informed
from posterity.train.engine import Engine
from posterity.types import Likelihood, Prior
from posterity.usual import BATCH, HIDDEN, Usual, for_streams
from posterity.zoo import MLP


class BayesianEstimator(BaseEstimator):  # type: ignore[misc]  # untyped
    """The common part of `BayesianRegressor` and `BayesianClassifier`: everything but the targets.

    `_usual` is what an estimator infers with where nothing else is asked; `usual_prior` is of any other method, and
    `usual_steps` are those of each part of rows that come in parts.
    """

    usual_prior: ClassVar[Prior]
    usual_steps: ClassVar[int]

    def _usual(self, rows: int, steps_per_epoch: int) -> Usual:
        raise NotImplementedError

    # scikit-learn checks nothing before `fit`, so that parameters can be set in any order: they are of any type here.
    def __init__(
        self,
        method: Any = "auto",
        *,
        hidden: Any = None,
        network: Any = None,
        prior: Any = None,
        likelihood: Any = None,
        batch_size: Any = None,
        n_draws: Any = 100,
        calibration: Any = None,
        random_state: Any = None,
        device: Any = "auto",
        verbose: Any = False,
    ):
        self.method = method
        self.hidden = hidden
        self.network = network
        self.prior = prior
        self.likelihood = likelihood
        self.batch_size = batch_size
        self.n_draws = n_draws
        self.calibration = calibration
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.non_deterministic = False
        return tags

    def _held_out(self, X: Any, y: Any, weights: Any, labels: Any = None) -> tuple[Any, Any, Any, Any, Any]:
        """Return training rows, targets and weights, and rows and targets held out for calibration; None where none are asked.

        Args:
            weights: of the rows; those that are held out count alike.
            labels: keep the shares of these in both parts, where each has two rows at least.

        Raises:
            InvalidInput: for a share that is none, or leaves a part empty.
        """
        if self.calibration is None:
            return X, y, weights, None, None
        if not isinstance(self.calibration, float) or not 0 < self.calibration < 1:
            raise InvalidInput(
                f"calibration is {self.calibration!r}; it is the share of rows to hold out, above 0 and below 1: "
                "calibration=0.2. None holds out none."
            )
        if labels is not None and np.unique(labels, return_counts=True)[1].min() < 2:
            labels = None
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        try:
            parts = train_test_split(X, y, weights, test_size=self.calibration, random_state=seed, stratify=labels)
        except ValueError as error:
            raise InvalidInput(f"calibration={self.calibration:g} of {len(y)} rows: {error}") from error
        train, held, targets, held_targets, train_weights, _ = parts
        return train, targets, train_weights, held, held_targets

    def _calibrated(self, level: float) -> Any:
        """Return the conformal prediction of this level from the rows that were held out.

        Raises:
            InvalidInput: where none were, or too few for this level.
        """
        if getattr(self, "held_out_", None) is None:
            raise InvalidInput(
                "No rows were held out to calibrate with. Write calibration=0.2, a share of them, and fit again."
            )
        found, targets = self.held_out_
        return calibrate(found, targets, level)

    def _inputs(self, X: Any, weights: Array | None = None) -> Tensor:
        """Encode a table; with weights of its rows learn how, from each as often as it counts."""
        if weights is not None:
            self.encoder_ = ColumnEncoder().fit(X if (weights == 1).all() else as_often(X, weights))
            self.n_features_in_ = self.encoder_.n_features_in_
            if hasattr(self.encoder_, "feature_names_in_"):
                self.feature_names_in_ = self.encoder_.feature_names_in_
            elif hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
        return torch.from_numpy(self.encoder_.transform(X)).to(self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        """Tables are small, and float64 answers do not hang on the order of rows; Apple's devices have none."""
        return torch.float32 if Engine(device=self.device).torch_device().type == "mps" else torch.float64

    def _infer(self, rows: Rows, width: int, likelihood: Likelihood, streamed: bool = False) -> FunctionPosterior:
        """Infer the posterior of the network with `width` outputs.

        Args:
            streamed: whether it must be one that further rows can go on from; what is there is then the prior, and the start.

        Raises:
            InvalidInput: for options that cannot be used.
        """
        if isinstance(self.method, str) and self.method != "auto":
            raise InvalidInput(f"method is '{self.method}'; it must be 'auto' or made, as MeanField().")
        if self.n_draws < 1:
            raise InvalidInput(f"n_draws is {self.n_draws}; it must be at least 1.")
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        data = rows.data(self.batch_size or BATCH)
        self.choice_ = chosen = self._chosen(len(rows.inputs), data.steps_per_epoch, streamed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed_)
            columns = rows.inputs.shape[1]
            widths = (columns, *(chosen.hidden if self.hidden is None else self.hidden), width)
            network = MLP(widths, shortcut=chosen.shortcut) if self.network is None else self.network(columns, width)
        network = network.to(self._dtype)
        before = getattr(self, "posterior_", None) if streamed else None
        prior = (chosen.prior if self.prior is None else self.prior) if before is None else informed(before)
        found = fit(
            network if before is None else before.network(),
            data,
            likelihood=likelihood,
            prior=prior,
            method=chosen.method,
            engine=Engine(seed=self.seed_, progress=bool(self.verbose), device=self.device),
        )
        if streamed:
            informed(found)  # or refused, by name, before anybody relies on it
        return found

    def _chosen(self, rows: int, steps_per_epoch: int, streamed: bool) -> Usual:
        if not isinstance(self.method, str):
            return Usual(self.method, self.usual_prior, HIDDEN, "It was given.")
        if streamed:
            return for_streams(self.usual_prior, self.usual_steps, steps_per_epoch)
        return self._usual(rows, steps_per_epoch)

    def _begins(self) -> bool:
        """Tell whether `partial_fit` is given its first rows.

        Raises:
            InvalidInput: where rows are to be held out, of which each call would see others.
        """
        if self.calibration is not None:
            raise InvalidInput(
                f"calibration={self.calibration!r} holds out rows of one table, and partial_fit gets many. Set "
                "calibration=None, and calibrate at the end: posterity.calibrate(model.predictive(X), y)."
            )
        return not hasattr(self, "posterior_")

    def _predictive(self, X: Any) -> AnyPredictive:
        """Predict a table in the units that the network was trained in: the same table always gives the same draws."""
        check_is_fitted(self, "posterior_")
        inputs = self._inputs(X).to(self.posterior_.device)
        generator = Generator(device=inputs.device).manual_seed(self.seed_)
        found: AnyPredictive = self.posterior_.predict(inputs, self.n_draws, generator=generator)
        return found


def to_numpy(values: Tensor) -> Array:
    """Return a tensor as a float64 array."""
    found: Array = values.detach().cpu().numpy().astype(np.float64)
    return found
