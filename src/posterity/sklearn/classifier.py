"""Classification with uncertainty: a Bayesian network behind scikit-learn's interface."""

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _num_samples, check_is_fitted, column_or_1d
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.model.likelihoods import Categorical
from posterity.model.priors import Normal
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.predictive import Classification
from posterity.sklearn.estimator import BayesianEstimator, to_numpy
from posterity.sklearn.rows import Array, Rows, goes_on, sample_weights
from posterity.usual import Usual, for_classes


class BayesianClassifier(ClassifierMixin, BayesianEstimator):  # type: ignore[misc]  # untyped
    """A Bayesian network for classes: p(y = c | x, D) = ∫ softmax(f(θ, x))_c p(θ | D) dθ.

    Columns are cleaned, scaled and encoded inside (`ColumnEncoder`); labels may be whatever scikit-learn takes.

    Args:
        method: any inference method of posterity, made; "auto" is mean field by local reparameterisation, 2,000 steps.
        hidden: widths of the hidden layers; (50,) unless given.
        network: makes another network from the numbers of inputs and of classes.
        prior: of the weights; Normal(0, 1) unless given.
        likelihood: of labels 0, 1, …; `Categorical()` unless given.
        class_weight: how often rows of each class count, by its label, {label: weight}, others once; "balanced": all classes
            alike together, N/(C · rows of the class). Probabilities are then those of such data. None: once.
        batch_size: rows per step; 256, or all of fewer, unless given.
        n_draws: networks drawn for a prediction.
        calibration: share of the rows that are held out of the inference, for `predict_set`: sets of classes that hold the
            truth as often as promised, whatever the posterior is worth (`posterity.decide.conformal`). None holds out none.
        random_state: of the initial weights, the inference, and the draws.
        device, verbose: where it runs; whether it shows its progress.

    Attributes:
        classes_: the labels, in the order of `predict_proba`'s columns.
        choice_: what was inferred with, and why.
        posterior_: the posterior, of a network of encoded columns.
        encoder_: the `ColumnEncoder`.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Raises:
        InvalidInput: from `fit`, for tables and labels that cannot be used.

    >>> import warnings
    >>> from posterity import MeanField
    >>> from posterity.sklearn import BayesianClassifier
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     model = BayesianClassifier(MeanField(epochs=5), random_state=0, device="cpu")
    ...     model = model.fit(x, np.where(x[:, 0] > 0, "yes", "no"))
    >>> model.classes_.tolist(), model.predict_proba(x).shape
    (['no', 'yes'], (40, 2))
    """

    usual_prior = Normal(0, 1)
    usual_steps = 2000

    # As in `BayesianEstimator`; scikit-learn reads the parameters from here.
    def __init__(
        self,
        method: Any = "auto",
        *,
        hidden: Any = None,
        network: Any = None,
        prior: Any = None,
        likelihood: Any = None,
        class_weight: Any = None,
        batch_size: Any = None,
        n_draws: Any = 100,
        calibration: Any = None,
        random_state: Any = None,
        device: Any = "auto",
        verbose: Any = False,
    ):
        super().__init__(
            method,
            hidden=hidden,
            network=network,
            prior=prior,
            likelihood=likelihood,
            batch_size=batch_size,
            n_draws=n_draws,
            calibration=calibration,
            random_state=random_state,
            device=device,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def _usual(self, rows: int, steps_per_epoch: int) -> Usual:
        return for_classes(rows, steps_per_epoch)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Infer the posterior of a table X (N, D) and its labels y (N,), of which row n counts `sample_weight[n]` times."""
        labels = self._labels(y)
        weights = sample_weights(sample_weight, len(labels))
        X, labels, weights, held, held_labels = self._held_out(X, labels, weights, labels)
        check_classification_targets(labels)
        self.classes_ = np.unique(labels[weights > 0])
        self.posterior_ = self._inferred(X, labels, weights)
        self.held_out_ = None if held is None else (self.predictive(held), self._codes(held_labels))
        return self

    @available_if(goes_on)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Go on with new rows, whose prior is the posterior of the rows before; see `BayesianRegressor.partial_fit`.

        Args:
            classes: all labels that will come, in the first call; those of its rows unless given.
        """
        labels = self._labels(y)
        check_classification_targets(labels)
        weights = sample_weights(sample_weight, len(labels))
        begins = self._begins()
        if begins:
            self.classes_ = np.unique(labels if classes is None else column_or_1d(np.asarray(classes)))
        self.posterior_ = self._inferred(X, labels, weights, begins=begins, streamed=True)
        self.held_out_ = None
        return self

    def _labels(self, y: Any) -> Array:
        if y is None:
            raise InvalidInput("This BayesianClassifier requires y to be passed, but the target y is None.")
        labels: Array = column_or_1d(np.asarray(y), warn=True)
        return labels

    def _inferred(
        self, X: Any, labels: Array, weights: Array, begins: bool = True, streamed: bool = False
    ) -> FunctionPosterior:
        """Infer the posterior of rows; columns are learnt where it begins."""
        if begins and _num_samples(X) != len(labels):
            raise InvalidInput(f"X has {_num_samples(X)} rows and y {len(labels)}; each row needs its label.")
        inputs = self._inputs(X, weights if begins else None)
        if len(inputs) != len(labels):
            raise InvalidInput(f"X has {len(inputs)} rows and y {len(labels)}; each row needs its label.")
        if len(self.classes_) < 2:
            raise InvalidInput(
                f"All labels are {self.classes_[0]!r}: one class is nothing to tell apart; give 2 or more."
            )
        codes = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
        if (strange := (self.classes_[codes] != labels) & (weights > 0)).any():
            raise InvalidInput(
                f"Label '{labels[strange][0]}' is none of the classes of the first rows: give all in the first call, "
                "partial_fit(X, y, classes=…)."
            )
        rows = Rows(inputs, torch.from_numpy(codes.astype(np.int64)), self._of_classes(labels, weights))
        likelihood = Categorical() if self.likelihood is None else self.likelihood
        return self._infer(rows, len(self.classes_), likelihood, streamed)

    def _of_classes(self, labels: Array, weights: Array) -> Array:
        """Return the weights of rows times those of their classes."""
        if self.class_weight is None:
            return weights
        seen = weights > 0
        try:
            each = compute_class_weight(
                self.class_weight, classes=np.unique(labels[seen]), y=labels[seen], sample_weight=weights[seen]
            )
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"class_weight={self.class_weight!r}: {error}") from error
        found = dict(zip(np.unique(labels[seen]).tolist(), each.tolist(), strict=True))
        own: Array = weights * np.array([found.get(label, 0.0) for label in labels.tolist()])
        return own

    def _codes(self, labels: Array) -> Tensor:
        """Return the places of held-out labels in `classes_`."""
        places = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
        if (strange := self.classes_[places] != labels).any():
            raise InvalidInput(
                f"Label '{labels[strange][0]}' is in the rows held out for calibration alone: it is too rare to be learnt. "
                "Leave its rows out, or set calibration=None."
            )
        return torch.from_numpy(places.astype(np.int64))

    def predictive(self, X: Any) -> Classification:
        """Return the whole predictive: probabilities, their parts, entropy and mutual information, log p(y)."""
        found = self._predictive(X)
        if not isinstance(found, Classification):
            raise InvalidInput(
                f"This likelihood predicts a {type(found).__name__}; a BayesianClassifier needs one of classes."
            )
        return found

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, (N, C), in the order of `classes_`."""
        found = to_numpy(self.predictive(X).mean)
        probabilities: Array = found / found.sum(axis=1, keepdims=True)
        return probabilities

    def predict_log_proba(self, X: Any) -> Array:
        """Return log `predict_proba`."""
        found: Array = np.log(self.predict_proba(X))
        return found

    def predict(self, X: Any) -> Array:
        """Return the most probable class, (N,)."""
        places = self.predict_proba(X).argmax(axis=1)
        found: Array = self.classes_[places]
        return found

    def predict_set(self, X: Any, level: float = 0.9) -> Array:
        """Return which classes are in each row's set, bool (N, C) in the order of `classes_`; it needs `calibration`.

        With a probability of at least `level`, over rows and calibrations, a set holds the truth.

        Raises:
            InvalidInput: where no rows were held out, or fewer than this level needs.
        """
        check_is_fitted(self, "posterior_")
        found: Array = self._calibrated(level).sets(self.predictive(X)).cpu().numpy()
        return found

    def predict_uncertainty(self, X: Any) -> dict[str, Array]:
        """Return, in nats, the `entropy` of each prediction, and its part that more data could remove, `mutual_information`."""
        found = self.predictive(X)
        return {"entropy": to_numpy(found.entropy), "mutual_information": to_numpy(found.mutual_information)}
