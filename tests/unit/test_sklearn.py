"""The estimators: scikit-learn's own checks, tables of strangers, units, and the tools of the ecosystem around them."""

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

from posterity import (
    MAP,
    Ensemble,
    Gaussian,
    Laplace,
    MeanField,
    Microcanonical,
    Normal,
    Optimizer,
    SampledEnsemble,
    usual,
)
from posterity.decide import calibrate
from posterity.errors import InvalidInput
from posterity.likelihoods import LogNormal, NegativeBinomial, StudentT
from posterity.posteriors.mixture import Mixture
from posterity.sklearn import BayesianClassifier, BayesianRegressor, ColumnEncoder

pytestmark = pytest.mark.filterwarnings("ignore")
FAST = MAP(epochs=150, optimizer=Optimizer(lr=0.01))
QUICK = MAP(epochs=3)
CHECKED = MAP(epochs=25, optimizer=Optimizer(lr=0.05))  # what scikit-learn's checks ask to be learnt is simple


def line(count: int = 120, noise: float = 0.3, seed: int = 0) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 3))
    return x, x @ [1.0, -2.0, 0.5] + noise * generator.normal(size=count)


OF_PARTS = ("check_fit_score_takes_y", "check_n_features_in_after_fitting", "check_estimators_partial_fit_n_features")


@pytest.mark.parametrize(
    "estimator",
    [ColumnEncoder(), BayesianRegressor(CHECKED, device="cpu"), BayesianClassifier(CHECKED, device="cpu")],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learns_own_checks(estimator: Any) -> None:
    # A point is no posterior to go on from, and MAP is quick: these checks are made of mean field below.
    refused = {name: "partial_fit refuses methods without a Gaussian posterior, by name" for name in OF_PARTS[1:]}
    found = check_estimator(estimator, on_fail=None, on_skip=None, expected_failed_checks=refused)
    assert len(found) > 40
    assert [(row["check_name"], row["exception"]) for row in found if row["status"] == "failed"] == []
    # Array API input needs a variable of the environment that is read when SciPy is imported.
    assert {row["check_name"] for row in found if row["status"] == "skipped"} <= {"check_array_api_input"}


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [BayesianRegressor(), BayesianClassifier()], ids=lambda one: type(one).__name__)
def test_scikit_learns_own_checks_by_the_defaults(estimator: Any) -> None:
    drawn = "rows that are there twice and rows of weight 2 make other batches, and draws of one posterior"
    refused = {"check_sample_weight_equivalence_on_dense_data": drawn}
    found = check_estimator(estimator, on_fail=None, on_skip=None, expected_failed_checks=refused)
    assert [(row["check_name"], row["exception"]) for row in found if row["status"] == "failed"] == []


@pytest.mark.parametrize("unit", [2e5, 1e-6])
def test_answers_are_in_the_units_of_the_targets(unit: float) -> None:
    x, y = line()
    plain = BayesianRegressor(FAST, random_state=0, device="cpu").fit(x, y)
    scaled = BayesianRegressor(FAST, random_state=0, device="cpu").fit(x, 3 * unit + unit * y)
    for of_plain, of_scaled, start in (
        (plain.predict(x), scaled.predict(x), 3 * unit),
        (plain.predict(x, return_std=True)[1], scaled.predict(x, return_std=True)[1], 0.0),
        (plain.predict_interval(x), scaled.predict_interval(x), 3 * unit),
        (plain.predict_quantiles(x), scaled.predict_quantiles(x), 3 * unit),
        (plain.sample(x, 7), scaled.sample(x, 7), 3 * unit),
    ):
        np.testing.assert_allclose(of_scaled, start + unit * of_plain, rtol=1e-3, atol=1e-3 * unit)


def test_conformal_intervals_and_sets_hold_whatever_the_posterior_is_worth() -> None:
    x, y = line(400, noise=1.0)
    new, truth = line(2000, noise=1.0, seed=1)
    sure = Gaussian(std=0.01)  # in units of the standardised targets: far less than the noise
    model = BayesianRegressor(
        FAST, network=nn.Linear, likelihood=sure, calibration=0.3, random_state=0, device="cpu"
    ).fit(x, y)
    assert (model.posterior_.problem.num_data, len(model.held_out_[1])) == (280, 120)
    for level in (0.5, 0.9):
        lower, upper = model.predict_interval(new, level).T
        low, high = calibrate(*model.held_out_, level).coverage_interval(0.999, num_test=2000)
        assert low <= ((lower <= truth) & (truth <= upper)).mean() <= high
    names, later = (np.where(values > 0, "yes", "no") for values in (y, truth))
    classifier = BayesianClassifier(FAST, network=nn.Linear, calibration=0.3, random_state=0, device="cpu").fit(
        x, names
    )
    sets = classifier.predict_set(new, 0.9)
    assert sets.shape == (2000, 2)
    held = sets[np.arange(2000), np.searchsorted(classifier.classes_, later)].mean()
    assert held >= calibrate(*classifier.held_out_, 0.9).coverage_interval(0.999, num_test=2000)[0]
    assert 1 < sets.sum(axis=1).mean() < 1.9


def test_calibration_that_cannot_be_says_what_to_write() -> None:
    x, y = line(30)
    quick = BayesianRegressor(QUICK, device="cpu")
    with pytest.raises(InvalidInput, match=r"above 0 and below 1: calibration=0.2"):
        clone(quick).set_params(calibration=20).fit(x, y)
    with pytest.raises(InvalidInput, match="these are 2"):
        clone(quick).set_params(calibration=0.2).fit(x, np.stack([y, y], 1))
    with pytest.raises(InvalidInput, match="6 calibration examples are too few"):
        clone(quick).set_params(calibration=0.2).fit(x, y).predict_interval(x)
    labels = np.array(["a", "b"] * 15)
    with pytest.raises(InvalidInput, match=r"Write calibration=0.2"):
        BayesianClassifier(QUICK, device="cpu").fit(x, labels).predict_set(x)
    labels[10] = "z"  # a row that this seed holds out
    with pytest.raises(InvalidInput, match="'z' is in the rows held out"):
        BayesianClassifier(QUICK, calibration=0.4, random_state=3, device="cpu").fit(x, labels)


@pytest.mark.parametrize("likelihood", [NegativeBinomial(), LogNormal(), StudentT()], ids=lambda one: one.kind)
def test_counts_prices_and_outliers_are_predicted_in_their_own_units(likelihood: Any) -> None:
    x, y = line(600)
    generator = np.random.default_rng(0)
    unit = 2e5 if likelihood.kind == "log_normal" else 3.0
    targets = {
        "negative_binomial": lambda: generator.negative_binomial(4, 4 / (4 + 5 * np.exp(0.3 * y))).astype(float),
        "log_normal": lambda: unit * np.exp(0.3 * y),
        "student_t": lambda: unit * (y + generator.standard_t(3, 600)),
    }[likelihood.kind]()
    model = BayesianRegressor(FAST, network=nn.Linear, likelihood=likelihood, random_state=0, device="cpu")
    model.fit(x[:400], targets[:400])
    new, truth = x[400:], targets[400:]
    mean, std = model.predict(new, return_std=True)
    assert mean.shape == std.shape == (200,)
    assert np.corrcoef(mean, truth)[0, 1] > 0.4
    lower, upper = model.predict_interval(new, 0.9).T
    assert 0.84 < ((lower <= truth) & (truth <= upper)).mean() <= 1
    np.testing.assert_allclose(model.predict_quantiles(new, [0.05, 0.95]), np.stack([lower, upper], 1))
    drawn = model.sample(new, 3000)
    assert drawn.shape == (200, 3000)
    assert abs(((drawn >= lower[:, None]) & (drawn <= upper[:, None])).mean() - 0.92) < 0.04
    if likelihood.kind == "negative_binomial":
        assert (drawn % 1 == 0).all()
        assert (drawn >= 0).all()


def test_intervals_hold_what_they_promise() -> None:
    x, y = line(400)
    model = BayesianRegressor(
        MeanField(epochs=150, optimizer=Optimizer(lr=0.02)),
        network=nn.Linear,
        likelihood=Gaussian(),
        batch_size=100,
        random_state=0,
        device="cpu",
    ).fit(x, y)
    new, truth = line(2000, seed=1)
    lower, upper = model.predict_interval(new, 0.9).T
    held = ((lower <= truth) & (truth <= upper)).mean()
    assert 0.86 < held < 0.95
    drawn = model.sample(new[:5], 4000)
    np.testing.assert_allclose(np.quantile(drawn, [0.05, 0.95], axis=1).T, model.predict_interval(new[:5]), atol=0.05)
    np.testing.assert_allclose(model.predict_quantiles(new, [0.05, 0.95]), model.predict_interval(new, 0.9))
    mean, std = model.predict(new, return_std=True)
    assert (std > 0).all()
    np.testing.assert_allclose(drawn.mean(axis=1), mean[:5], atol=5 * std[:5].max() / 4000**0.5)
    np.testing.assert_allclose(drawn.std(axis=1), std[:5], rtol=0.06)


def test_several_targets_have_scales_of_their_own() -> None:
    x, y = line()
    both = np.stack([y, 1000 * y + 5], axis=1)
    model = BayesianRegressor(FAST, random_state=0, device="cpu").fit(x, both)
    assert model.predict(x).shape == (120, 2)
    assert model.predict_interval(x).shape == (120, 2, 2)
    assert model.sample(x, 3).shape == (120, 2, 3)
    assert (((model.predict(x) - both) / both.std(axis=0)) ** 2).mean() < 0.2


def frames() -> list[Any]:
    return [pytest.param("pandas", id="pandas"), pytest.param("polars", id="polars")]


def table(library: str, rows: int = 90) -> tuple[Any, Any]:
    """A table as people have them: numbers with gaps, texts, truth values and dates; the target depends on all."""
    module = pytest.importorskip(library)
    generator = np.random.default_rng(3)
    size = generator.normal(50, 20, rows)
    colour = generator.choice(["red", "blue", "green"], rows)
    new = generator.random(rows) < 0.5
    days = np.datetime64("2020-01-01") + generator.integers(0, 900, rows).astype("timedelta64[D]")
    y = size / 20 + 2.0 * (colour == "red") + new
    holes = [None if i % 10 == 0 else float(v) for i, v in enumerate(size)]
    colours = [None if i % 17 == 0 else str(v) for i, v in enumerate(colour)]
    columns = {"size": holes, "colour": colours, "new": new.tolist(), "sold": [day.item() for day in days]}
    frame = module.DataFrame(columns)
    if library == "pandas":
        frame["sold"] = module.to_datetime(frame["sold"])
    return frame, y


@pytest.mark.parametrize("library", frames())
def test_a_frame_as_people_have_them(library: str) -> None:
    frame, y = table(library)
    model = BayesianRegressor(FAST, random_state=0, device="cpu").fit(frame, y)
    assert model.feature_names_in_.tolist() == ["size", "colour", "new", "sold"]
    assert model.encoder_.kinds_ == {"size": "number", "colour": "category", "new": "number", "sold": "date"}
    assert model.score(frame, y) > 0.8
    shuffled = frame[["sold", "new", "colour", "size"]]
    np.testing.assert_array_equal(model.predict(shuffled), model.predict(frame))
    with pytest.raises(ValueError, match="colour"):
        model.predict(frame[["sold", "new", "size"]])


def test_frames_of_two_libraries_are_the_same_table() -> None:
    encoded = [ColumnEncoder().fit_transform(table(library)[0]) for library in ("pandas", "polars")]
    np.testing.assert_allclose(encoded[0], encoded[1], atol=1e-5)


def test_missing_cells_unknown_categories_and_constant_columns() -> None:
    cells = np.array([[1.0, "a", 7.0], [np.nan, "b", 7.0], [3.0, None, 7.0]], dtype=object)
    encoder = ColumnEncoder().fit(cells)
    names = encoder.get_feature_names_out().tolist()
    assert names == ["x0", "x2", "x0 is missing", "x1 = (missing)", "x1 = a", "x1 = b"]
    encoded = encoder.transform(cells)
    assert encoded.shape == (3, len(names))
    assert np.isfinite(encoded).all()
    assert encoded[1, 0] == 0.0  # the median of 1 and 3 is the mean of the filled column
    unknown = encoder.transform(np.array([[2.0, "zebra", 9.0]], dtype=object))
    assert unknown[0, 3:].tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(unknown).all()


@pytest.mark.parametrize("value", [np.inf, 1e308])
def test_numbers_that_are_too_large_are_refused_by_the_name_of_their_column(value: float) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"fine": [1.0, 2.0, 3.0], "price": [1.0, value, 2.0]})
    with pytest.raises(InvalidInput, match=r"'price' is (inf|1e\+308) in row 1"):
        BayesianRegressor(QUICK).fit(frame, [1.0, 2.0, 3.0])


def test_a_column_that_changes_its_kind_is_refused_and_a_number_may_be_a_category() -> None:
    pandas = pytest.importorskip("pandas")
    encoder = ColumnEncoder().fit(pandas.DataFrame({"a": [1.0, 2.0], "b": ["1", "x"]}))
    with pytest.raises(InvalidInput, match="'a' was one of numbers in training and now holds 'text'"):
        encoder.transform(pandas.DataFrame({"a": ["text", "2"], "b": ["1", "x"]}))
    as_number = encoder.transform(pandas.DataFrame({"a": [1.0, 2.0], "b": [1, 1]}))
    assert as_number[:, -2:].tolist() == [[1.0, 0.0], [1.0, 0.0]]
    with pytest.raises(InvalidInput, match="'a' 2 times"):
        ColumnEncoder().fit(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


def test_dates_have_seasons() -> None:
    days = np.array([["2021-01-01"], ["2021-07-01"], ["2022-01-01"]], dtype="datetime64[D]")
    encoder = ColumnEncoder().fit(days)
    assert encoder.kinds_ == {"x0": "date"}
    wave = encoder.get_feature_names_out().tolist().index("cosine of the year of x0")
    encoded = encoder.transform(days)[:, wave]
    assert encoded[0] == pytest.approx(encoded[2], abs=0.01)
    assert abs(encoded[0] - encoded[1]) > 1.5
    assert not any("day of" in name for name in encoder.get_feature_names_out())


def test_labels_of_any_kind_and_their_probabilities() -> None:
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = BayesianClassifier(FAST, random_state=0, device="cpu").fit(x, names)
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    probabilities = model.predict_proba(x)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert set(model.predict(x)) <= set(names)
    assert model.score(x, names) > 0.9
    parts = model.predict_uncertainty(x)
    assert (parts["mutual_information"] <= parts["entropy"] + 1e-6).all()
    with pytest.raises(InvalidInput, match="one class"):
        BayesianClassifier(QUICK).fit(x, np.zeros(len(x)))


def test_in_the_tools_of_scikit_learn(tmp_path: Any) -> None:
    x, y = line(60)
    model = BayesianRegressor(QUICK, random_state=0, device="cpu")
    pipeline = make_pipeline(FunctionTransformer(), model)
    found = GridSearchCV(pipeline, {"bayesianregressor__hidden": [(4,), (8, 4)]}, cv=2).fit(x, y)
    assert found.best_params_["bayesianregressor__hidden"] in [(4,), (8, 4)]
    assert cross_val_predict(clone(model), x, y, cv=3).shape == (60,)
    fitted = model.fit(x, y)
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copied.predict(x), fitted.predict(x))
    assert clone(fitted).get_params()["method"] == QUICK
    assert not hasattr(clone(fitted), "posterior_")


def test_methods_networks_likelihoods_and_priors_of_ones_own() -> None:
    x, y = line(60)
    made: list[tuple[int, int]] = []

    def network(inputs: int, outputs: int) -> nn.Module:
        made.append((inputs, outputs))
        return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs))

    for method in (MeanField(epochs=3), Ensemble(QUICK, 2), Laplace(QUICK)):
        for likelihood in (None, Gaussian()):
            if likelihood is None and isinstance(method, Laplace):
                continue
            model = BayesianRegressor(
                method, network=network, likelihood=likelihood, prior=Normal(0, 1), random_state=0, device="cpu"
            ).fit(x, y)
            assert model.predict(x, return_std=True)[1].shape == (60,)
            assert made[-1] == (3, 2 if likelihood is None else 1)
    with pytest.raises(InvalidInput, match="'auto' or made"):
        BayesianRegressor("mean_field").fit(x, y)


def test_a_seed_gives_the_same_answers_and_nobodys_numbers_are_used_up() -> None:
    x, y = line(60)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (
        BayesianRegressor(MeanField(epochs=3), random_state=seed, device="cpu").fit(x, y).predict(x)
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_auto_samples_a_small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    short = SampledEnsemble(2, 60, sampler=Microcanonical(warmup=30, draws=20, steps=5))
    monkeypatch.setattr(usual, "SampledEnsemble", lambda: short)
    x, y = line(100)
    model = BayesianRegressor(random_state=0, device="cpu").fit(x, y)
    assert isinstance(model.posterior_, Mixture)
    assert model.score(x, y) > 0.8


@pytest.mark.slow
def test_auto_says_nothing_where_it_has_arrived() -> None:
    x, y = line(100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BayesianRegressor(random_state=0, device="cpu").fit(x, y)
    new, truth = line(1000, seed=1)
    assert model.score(new, truth) > 0.95
