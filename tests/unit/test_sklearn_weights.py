"""The estimators with rows and classes that count differently, rows that come in parts, and targets that are missing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn import config_context
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator

from posterity import SGLD, Gaussian, HeteroscedasticGaussian, MeanField, Optimizer, SampledEnsemble
from posterity.errors import InvalidInput
from posterity.sklearn import BayesianClassifier, BayesianRegressor
from tests.unit.test_sklearn import FAST, OF_PARTS, QUICK, line

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("estimator", [BayesianRegressor, BayesianClassifier])
def test_checks_of_partial_fit_are_passed_by_a_method_that_has_a_gaussian(estimator: Any) -> None:
    made = estimator(MeanField(epochs=2), hidden=(4,), n_draws=4, device="cpu")
    checks = {check.func.__name__: check for _, check in estimator_checks_generator(made)}
    for name in OF_PARTS:
        checks[name](made)


def test_what_was_learnt_is_the_prior_of_what_comes() -> None:
    x, y = line(90)
    method = MeanField("local_reparam", epochs=150, optimizer=Optimizer(lr=0.03, schedule="cosine"))
    plain = {"hidden": (), "likelihood": Gaussian(std=0.3), "random_state": 0, "device": "cpu"}
    parts = BayesianRegressor(method, **plain).partial_fit(x[:30], y[:30])
    for start in (30, 60):
        parts.partial_fit(x[start : start + 30], y[start : start + 30])
    whole = BayesianRegressor(method, **plain).fit(x, y)
    found, expected = (model.predict(x, return_std=True) for model in (parts, whole))
    np.testing.assert_allclose(found[0], expected[0], atol=0.1)
    squares = parts.encoder_.transform(x).astype(np.float64) ** 2
    std = (squares.sum(0) / 0.3**2 + 3) ** -0.5  # of mean field: 1/√ of the exact precision's diagonal
    np.testing.assert_allclose(parts.posterior_.std[:3], std, rtol=0.15)
    with pytest.raises(InvalidInput, match="'sgld' gives.*MeanField"):
        BayesianRegressor(SGLD(epochs=8, draws=2), hidden=(), device="cpu").partial_fit(x, y)
    fitted = BayesianRegressor(SGLD(epochs=8, draws=2), hidden=(), device="cpu").fit(x, y)
    assert not hasattr(fitted, "partial_fit")
    with pytest.raises(AttributeError) as refused:
        fitted.partial_fit(x, y)
    assert "'sgld' gives" in str(refused.value.__cause__)
    with pytest.raises(InvalidInput, match="calibration=0.2 holds out"):
        BayesianRegressor(method, calibration=0.2).partial_fit(x, y)
    labels = np.where(x[:, 0] > 0, "yes", "no")
    model = BayesianClassifier(QUICK, device="cpu")
    with pytest.raises(InvalidInput, match="Label 'maybe' is none of the classes.*classes="):
        model.set_params(method=MeanField(epochs=1)).partial_fit(x, labels).partial_fit(x[:2], ["maybe", "no"])


def test_weights_of_rows_and_classes_go_through_the_tools_of_scikit_learn() -> None:
    x, y = line(60)
    weights = np.arange(60) % 3
    plain = {"random_state": 0, "device": "cpu", "hidden": (4,)}
    with config_context(enable_metadata_routing=True):
        model = BayesianRegressor(QUICK, **plain).set_fit_request(sample_weight=True)
        steps = make_pipeline(FunctionTransformer(), model.set_score_request(sample_weight=True))
        search = GridSearchCV(steps, {"bayesianregressor__n_draws": [2, 3]}, cv=2, refit=True)
        search.fit(x, y, sample_weight=weights)
    found = search.best_estimator_[-1]
    assert found.posterior_.problem.num_data == weights.sum()
    again = BayesianRegressor(QUICK, n_draws=found.n_draws, **plain).fit(x.repeat(weights, 0), y.repeat(weights))
    np.testing.assert_allclose(found.predict(x), again.predict(x))
    assert found.score(x, y, sample_weight=weights) == pytest.approx(
        again.score(x.repeat(weights, 0), y.repeat(weights))
    )
    labels = np.where(np.arange(60) % 6 == 0, "rare", "usual")
    balanced, plainly = (
        BayesianClassifier(FAST, class_weight=w, **plain).fit(x, labels).predict_proba(x).mean(0)[0]
        for w in ("balanced", None)
    )
    assert plainly < 0.3 < 0.4 < balanced
    by_hand = BayesianClassifier(QUICK, class_weight={"rare": 3}, **plain).fit(x, labels)
    rows = np.where(labels == "rare", 3, 1)
    repeated = BayesianClassifier(QUICK, **plain).fit(x.repeat(rows, 0), labels.repeat(rows))
    # Columns are encoded by the rows as they are, whatever their classes count for.
    assert by_hand.posterior_.problem.num_data == repeated.posterior_.problem.num_data == 80
    with pytest.raises(InvalidInput, match="class_weight="):
        BayesianClassifier(QUICK, class_weight="even", **plain).fit(x, labels)
    with pytest.raises(InvalidInput, match="All sample_weight are zero"):
        BayesianRegressor(QUICK).fit(x, y, sample_weight=np.zeros(60))


def test_the_sampled_ensemble_takes_weights() -> None:
    """By the method that "auto" is, made short: it had refused weights by an error of torch."""
    x, y = line(60)
    weights = np.random.default_rng(0).uniform(size=60)
    method = SampledEnsemble(members=2, training=50, sampler=replace(SampledEnsemble().sampler, warmup=5, draws=5))
    plain = {"random_state": 0, "hidden": (4,), "device": "cpu"}
    found = BayesianRegressor(method, likelihood=HeteroscedasticGaussian(), **plain).fit(x, y, sample_weight=weights)
    assert found.posterior_.problem.num_data == pytest.approx(weights.sum())


def test_missing_targets_are_left_out() -> None:
    x, y = line(60)
    several = np.stack([y, 10 * y], 1)
    several[3, 0] = several[5] = np.nan
    model = BayesianRegressor(QUICK, random_state=0, hidden=(4,), device="cpu").fit(x, several)
    assert model.posterior_.problem.num_data == 59
    np.testing.assert_allclose(model.target_mean_, np.nanmean(several, axis=0))
    with pytest.raises(InvalidInput, match="All targets are NaN"):
        BayesianRegressor(QUICK).fit(x, np.full(60, np.nan))
