"""Regression with intervals: a Bayesian network behind scikit-learn's interface."""

from collections.abc import Sequence
from math import ceil
from numbers import Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import _safe_indexing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _num_samples, check_array, check_is_fitted, column_or_1d
from torch import Generator, Tensor

from posterity.errors import InvalidInput
from posterity.model.likelihoods import HeteroscedasticGaussian
from posterity.model.priors import Normal
from posterity.posteriors.base import FunctionPosterior
from posterity.predict.general import General
from posterity.predict.predictive import Classification, Regression
from posterity.sklearn.estimator import BayesianEstimator, to_numpy
from posterity.sklearn.rows import Array, Rows, goes_on, sample_weights
from posterity.usual import Usual, for_numbers


class BayesianRegressor(RegressorMixin, BayesianEstimator):  # type: ignore[misc]  # untyped
    """A Bayesian network for real targets: p(y | x, D) = ∫ N(y; f(θ, x), σ(θ, x)²) p(θ | D) dθ.

    Columns are cleaned, scaled and encoded inside (`ColumnEncoder`); targets are standardised, and every answer is in their own
    units. The network says its noise σ for each row, unless `likelihood` says otherwise.

    Args:
        method: any inference method of posterity, made; "auto" is a sampled ensemble for up to 50,000 rows, and a chain of
            stochastic gradients beyond (`posterity.usual`); in `partial_fit` mean field, which can be a prior.
        minutes: of "auto", how much is computed, about, for 1,000 rows on one core: longer chains fit smooth tables of little
            noise closer. No clock is asked.
        hidden: widths of the hidden layers; those of "auto", or (50,) beside another method, unless given.
        network: makes another network from the numbers of inputs and of outputs (two for each target: its mean and its raw
            noise, see `HeteroscedasticGaussian`; one with `Gaussian()`).
        prior: of the weights; that of "auto", or Normal(0, 1/√fan-in) beside another method, unless given.
        likelihood: `HeteroscedasticGaussian()` unless given; `Gaussian()` has one learnt noise level for each target. Its
            numbers are in units of the standardised targets; of counts, shares and positive numbers
            (`posterity.likelihoods`) in those of the targets, which are then left as they are.
        batch_size: rows per step; 256, or all of fewer, unless given.
        n_draws: networks drawn for a prediction.
        calibration: share of the rows that are held out of the inference, so that `predict_interval` is conformal: its
            intervals hold as promised whatever the posterior is worth (`posterity.decide.conformal`). None holds out none, and
            intervals are the posterior's.
        random_state: of the initial weights, the inference, and the draws.
        device, verbose: where it runs; whether it shows its progress.

    Attributes:
        choice_: what was inferred with, and why.
        posterior_: the posterior, of a network of encoded columns and standardised targets.
        encoder_: the `ColumnEncoder`.
        target_mean_, target_std_: of the training rows.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    Raises:
        InvalidInput: from `fit`, for tables and targets that cannot be used.

    >>> import warnings
    >>> from posterity import MeanField
    >>> from posterity.sklearn import BayesianRegressor
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> y = 1000 + 200 * x[:, 0]
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     model = BayesianRegressor(MeanField(epochs=5), random_state=0, device="cpu").fit(x, y)
    >>> mean, std = model.predict(x, return_std=True)
    >>> lower, upper = model.predict_interval(x, 0.9).T
    >>> mean.shape, bool((std > 0).all()), bool((lower < mean).all() and (mean < upper).all())
    ((40,), True, True)
    """

    usual_prior = Normal(0, 1, fan_in=True)
    usual_steps = 7500

    # As in `BayesianEstimator`; scikit-learn reads the parameters from here.
    def __init__(
        self,
        method: Any = "auto",
        *,
        minutes: Any = 1.0,
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
        self.minutes = minutes

    def _usual(self, rows: int, steps_per_epoch: int) -> Usual:
        if (
            isinstance(self.minutes, bool)
            or not isinstance(self.minutes, Real)
            or not 0.1 <= float(self.minutes) <= 1440
        ):
            raise InvalidInput(f"minutes={self.minutes!r}: expected a number from 0.1 to 1440.")
        return for_numbers(rows, steps_per_epoch, float(self.minutes))

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Infer the posterior of a table X (N, D) and its targets y, (N,) or (N, T).

        Args:
            sample_weight: (N,), how often each row counts: a power of its likelihood; once unless given.
        """
        weights = sample_weights(sample_weight, len(_targets(y)))
        X, y, weights, held, held_targets = self._held_out(X, y, weights)
        targets = _targets(y)
        if held is not None and targets.ndim == 2 and targets.shape[1] > 1:
            raise InvalidInput(
                f"calibration={self.calibration:g} is for one target; these are {targets.shape[1]}. Fit one model to each."
            )
        self.posterior_ = self._inferred(X, targets, weights)
        self.held_out_ = None
        if held is not None:
            own = _targets(held_targets).reshape(-1)
            known = ~np.isnan(own)
            self.held_out_ = (
                self.predictive(_safe_indexing(held, np.flatnonzero(known))),
                torch.from_numpy(own[known]),
            )
        return self

    @available_if(goes_on)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Go on with new rows, whose prior is the posterior of the rows before: p(θ | D₁, D₂) ∝ p(D₂ | θ) p(θ | D₁).

        The first call says how columns are encoded and targets scaled, and its rows should be typical of what will come. What
        is known of a noise level that is learnt beside the network is not handed on: it is learnt anew from each part.

        Raises:
            InvalidInput: where the method's posterior is no Gaussian over the weights, by name.
            AttributeError: where `fit` has found one that is none, for the same reason.
        """
        targets = _targets(y)
        begins = self._begins()
        self.posterior_ = self._inferred(X, targets, sample_weights(sample_weight, len(targets)), begins, streamed=True)
        self.held_out_ = None
        return self

    def _inferred(
        self, X: Any, targets: Array, weights: Array, begins: bool = True, streamed: bool = False
    ) -> FunctionPosterior:
        """Infer the posterior of rows; columns and units are learnt where it begins."""
        if begins and _num_samples(X) != len(targets):
            raise InvalidInput(f"X has {_num_samples(X)} rows and y {len(targets)}; each row needs its target.")
        inputs = self._inputs(X, weights if begins else None)
        if len(inputs) != len(targets):
            raise InvalidInput(f"X has {len(inputs)} rows and y {len(targets)}; each row needs its target.")
        likelihood = HeteroscedasticGaussian() if self.likelihood is None else self.likelihood
        if begins:
            self._learn_units(targets, weights, getattr(likelihood, "own_units", False))
        count = 1 if targets.ndim == 1 else targets.shape[1]
        if count != np.size(self.target_mean_):
            raise InvalidInput(f"The first rows had {np.size(self.target_mean_)} targets each; these have {count}.")
        standardised = torch.from_numpy((targets - self.target_mean_) / self.target_std_).to(self._dtype)
        width = getattr(likelihood, "width", int)(count)  # of a stranger: one for each
        self._column = targets.ndim == 2 and count == 1
        rows = Rows(inputs, standardised[:, 0] if self._column else standardised, weights)
        return self._infer(rows, width, likelihood, streamed)

    def _learn_units(self, targets: Array, weights: Array, own: bool) -> None:
        """Take mean and std of the targets that are known, each as often as it counts; `own`: they stay as they are."""
        if (weights > 0).sum() < 2:
            raise InvalidInput("One row, n_samples = 1, has no spread to learn a noise from; give at least 2 samples.")
        counts = np.where(np.isnan(targets), 0.0, weights.reshape(-1, *[1] * (targets.ndim - 1)))
        if not counts.sum(axis=0).all():
            raise InvalidInput("All targets are NaN, of one column at least: there is nothing to learn from.")
        known = np.nan_to_num(targets)
        self.target_mean_ = np.average(known, axis=0, weights=counts)
        spread = np.sqrt(np.average((known - self.target_mean_) ** 2, axis=0, weights=counts))
        # What varies by no more than rounding is constant: it has no scale of its own, and is left in its units.
        self.target_std_ = np.where(spread > 1e-12 * np.abs(known).max(axis=0), spread, 1.0)[()]
        if own:
            self.target_mean_, self.target_std_ = np.zeros_like(self.target_mean_), np.ones_like(self.target_std_)

    def predictive(self, X: Any) -> Regression | General:
        """Return the whole predictive, in units of the targets: mean, aleatoric, epistemic, quantiles, log p(y).

        Raises:
            InvalidInput: for a likelihood of classes.
        """
        found = self._predictive(X)
        if isinstance(found, Classification):
            raise InvalidInput("This likelihood is one of classes, for which there is BayesianClassifier.")
        mean, std = (torch.as_tensor(np.squeeze(value)) for value in (self.target_mean_, self.target_std_))
        if isinstance(found, Regression):
            return _precise(found).rescale(mean, std)
        return found if (mean == 0).all() and (std == 1).all() else found.rescale(mean, std)

    def predict(self, X: Any, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Return the predictive mean, (N,) or (N, T), and with `return_std` its standard deviation, noise included."""
        found = self.predictive(X)
        mean = self._shaped(to_numpy(found.mean))
        return (mean, self._shaped(to_numpy(found.std))) if return_std else mean

    def predict_interval(self, X: Any, level: float = 0.9) -> Array:
        """Return the interval that holds the target with probability `level`: (N, 2), or (N, T, 2).

        The central one of the posterior; after a fit with `calibration` the conformal one.

        Raises:
            InvalidInput: where fewer rows were held out than this level needs.
        """
        check_is_fitted(self, "posterior_")
        if self.held_out_ is None:
            lower, upper = self.predictive(X).interval(level)
        else:
            lower, upper = self._calibrated(level).intervals(self.predictive(X))
        return np.stack([self._shaped(to_numpy(lower)), self._shaped(to_numpy(upper))], axis=-1)

    def predict_quantiles(self, X: Any, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> Array:
        """Return quantiles of the predictive: (N, Q), or (N, T, Q)."""
        found = self.predictive(X).quantile(torch.tensor(list(quantiles), dtype=torch.float64))
        return np.stack([self._shaped(to_numpy(values)) for values in found], axis=-1)

    def sample(self, X: Any, n_samples: int = 100, random_state: Any = None) -> Array:
        """Draw targets, each of a drawn network with its noise: (N, n_samples), or (N, T, n_samples)."""
        found = self.predictive(X)
        seed = self.seed_ if random_state is None else int(np.random.default_rng(random_state).integers(2**31))
        return np.stack([self._shaped(to_numpy(values)) for values in _drawn(found, n_samples, seed)], axis=-1)

    def _shaped(self, values: Array) -> Array:
        return values[:, None] if self._column else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags


def _drawn(found: Regression | General, count: int, seed: int) -> Tensor:
    """Draw targets, (count, N[, T]), each of a function drawn anew."""
    if isinstance(found, General):
        generator = Generator().manual_seed(seed)
        values = found.sample(ceil(count / found.count), generator)
        return values[torch.randperm(len(values), generator=generator)[:count]]
    generator = Generator(device=found.means.device).manual_seed(seed)
    which = torch.randint(len(found.means), (count,), generator=generator, device=found.means.device)
    means, stds = found.means[which], found.variances[which].sqrt()
    return means + stds * torch.randn(means.shape, generator=generator, dtype=means.dtype, device=means.device)


def _targets(y: Any) -> Array:
    """Check targets: (N,) or (N, T) finite numbers; NaN is missing."""
    if y is None:
        raise InvalidInput("This BayesianRegressor requires y to be passed, but the target y is None.")
    values = check_array(y, ensure_2d=False, dtype=None, allow_nd=False, input_name="y", ensure_all_finite="allow-nan")
    if values.dtype.kind not in "biuf":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"Unknown label type: targets of kind {values.dtype} are no numbers ({error}). For names of classes there is "
                "BayesianClassifier."
            ) from error
    values = values.astype(np.float64)
    found: Array = (
        values
        if values.ndim == 2 and values.shape[1] > 1
        else (values if values.ndim == 2 and _is_frame(y) else column_or_1d(values, warn=True))
    )
    return found


def _is_frame(y: Any) -> bool:
    return hasattr(y, "columns")


def _precise(found: Regression) -> Regression:
    """Hold numbers in float64: units of the targets may be far from 1."""
    functions = torch.as_tensor(found.function_variances).double().cpu()
    return Regression(found.means.double().cpu(), found.noise.double().cpu(), functions)
