"""Files and flags laid over each other; every mistake named."""

from dataclasses import replace

import pytest

from posterity.cli.experiment import batch_size, prepare
from posterity.cli.flags import Settings, given, undotted
from posterity.cli.merge import merge
from posterity.errors import InvalidInput
from posterity.methods import MLE, Ensemble, MeanField
from posterity.model.priors import Hierarchical, LaplacePrior, Normal, ScaleMixture, StudentT

FILE = {"data": {"name": "digits"}, "method": {"kind": "mean_field", "epochs": 7, "draws": 2}}


def merged(file: dict, *extra: str, **settings: str):
    return merge(file, given(Settings(set_=extra, **settings)))


def test_flags_override_the_file() -> None:
    config = merged(FILE, epochs="3", lr="0.5", seed="9")
    assert config.method == MeanField(epochs=3, draws=2, optimizer=replace(MeanField().optimizer, lr=0.5))
    assert config.seed == 9
    assert FILE["method"]["epochs"] == 7  # the file's own values are left alone


def test_another_method_keeps_what_it_shares() -> None:
    assert merged(FILE, method="mle").method == MLE(epochs=7)


def test_ensemble_wraps_and_its_flags_reach_the_member() -> None:
    wrapped = merged(FILE, ensemble="3", draws="4").method
    assert isinstance(wrapped, Ensemble)
    assert (wrapped.n, wrapped.method) == (3, MeanField(epochs=7, draws=4))
    again = merged({**FILE, "method": {"kind": "ensemble", "n": 2, "method": {"kind": "mle"}}}, epochs="5").method
    assert isinstance(again, Ensemble)
    assert (again.n, again.method) == (2, MLE(epochs=5))
    deep = merged({"data": {"name": "digits"}}, "method.reinitialise=false", method="ensemble", epochs="4").method
    assert isinstance(deep, Ensemble)
    assert (deep.reinitialise, deep.method) == (False, MLE(epochs=4))


def test_a_prior_flag_alone_means_a_plain_normal_prior() -> None:
    assert merged(FILE).prior == Normal(0, 0.3)
    assert merged(FILE, prior="normal").prior == Normal(0, 0.3)
    assert merged(FILE, prior_std="0.3").prior == Normal(0, 0.3)
    assert merged(FILE, "prior.fan_in=true").prior == Normal(fan_in=True)
    assert merged(FILE, "prior.pi=0.25", prior="scale_mixture").prior == ScaleMixture(pi=0.25)


PRODUCT = {"kind": "product", "parts": {"*.bias": {"kind": "normal", "std": 1.0}, "*": {"kind": "laplace"}}}


def test_another_prior_keeps_what_it_shares() -> None:
    assert merged({**FILE, "prior": PRODUCT}, prior="normal").prior == Normal()
    assert merged({**FILE, "prior": {"kind": "laplace", "scale": 0.7}}, prior="student_t").prior == StudentT(scale=0.7)
    hierarchical = merged({**FILE, "prior": {"kind": "laplace", "scale": 0.7}}, prior="hierarchical").prior
    assert hierarchical == Hierarchical()  # whose scale is a prior of its own, not a number
    assert (
        merged({**FILE, "likelihood": {"kind": "gaussian", "std": 0.5}}, likelihood="categorical").likelihood
        is not None
    )


def test_a_pattern_of_names_is_a_quoted_key() -> None:
    product = merged({**FILE, "prior": PRODUCT}, 'prior.parts."*.bias".std=3').prior
    assert product.parts == {"*.bias": Normal(0, 3.0), "*": LaplacePrior()}
    with pytest.raises(InvalidInput, match="above 0"):
        merged({**FILE, "prior": PRODUCT}, 'prior.parts."*.bias".std=-3')


def test_one_key_of_the_optimiser_leaves_the_others_as_the_method_has_them() -> None:
    own = MeanField().optimizer
    assert merged(FILE, lr="0.01").member.optimizer == replace(own, lr=0.01)
    assert merged(FILE, schedule="linear", method="mle").member.optimizer == replace(MLE().optimizer, schedule="linear")
    assert merged(FILE, ensemble="2", lr="0.01").member.optimizer == replace(own, lr=0.01)
    assert (
        merged({**FILE, "method": {"kind": "mean_field", "optimizer": {"name": "SGD"}}}).member.optimizer.lr == own.lr
    )


def test_network_options_are_typed() -> None:
    assert merged(FILE, "model.depth=4", "model.activation=tanh").model.options == {"depth": 4, "activation": "tanh"}


def test_dotted_flags() -> None:
    assert undotted(["--prior.fan-in", "--epochs", "3"]) == ["--set", "prior.fan_in=true", "--epochs", "3"]
    assert undotted(["--method.std-lr", "-1"]) == ["--set", "method.std_lr=-1"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": "-1"}, ["--epochs -1", "at least 1"]),
        ({"epochs": "1.5"}, ["--epochs 1.5", "whole number"]),
        ({"lr": "0"}, ["--lr 0", "above 0"]),
        ({"lr": "nan"}, ["--lr nan"]),
        ({"validation": "1"}, ["--validation 1", "below 1"]),
        ({"seed": "x"}, ["--seed x", "whole number"]),
        ({"batch": "0"}, ["--batch 0", "at least 1"]),
        ({"prior_std": "-2"}, ["--prior-std -2", "above 0"]),
        ({"temperature": "-0.1"}, ["--temperature -0.1", "at least 0"]),
        ({"ensemble": "0"}, ["--ensemble 0", "at least 1"]),
        ({"predictive_draws": "0"}, ["--predictive-draws 0", "at least 1"]),
        ({"method": "mean_feild"}, ["'mean_feild'", "Did you mean 'mean_field'?"]),
        ({"estimator": "flip"}, ["--estimator", "Did you mean 'flipout'?"]),
        ({"prior": "norml"}, ["'norml'", "Did you mean 'normal'?"]),
        ({"schedule": "cosin"}, ["--schedule", "Did you mean 'cosine'?"]),
        ({"precision": "float"}, ["--precision", "Did you mean 'float32'?"]),
        ({"method": "map", "estimator": "flipout"}, ["--estimator", "method 'map' has no key 'estimator'"]),
        ({"set_": ("prior.fanin=1",)}, ["prior.fanin", "Did you mean 'fan_in'?"]),
        ({"set_": ("sede=1",)}, ["Did you mean 'seed'?"]),
        ({"set_": ("method.antithetic=true",)}, ["pairs"]),
        ({"set_": ("nonsense",)}, ["KEY=VALUE"]),
        (
            {"prior": "hierarchical", "set_": ("prior.scale=half_normal",)},
            ["--prior.scale half_normal", "say its kind"],
        ),
        ({"prior": "hierarchical", "set_": ("prior.scale.kind=half",)}, ["'half'", "half_normal"]),
    ],
)
def test_a_wrong_flag_is_named_with_its_value_and_what_is_allowed(settings: dict, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        merge({"data": {"name": "digits"}}, given(Settings(**settings)))
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sead": 1}, ["run.toml", "'sead'", "Did you mean 'seed'?"]),
        ({"data": {"name": "digits", "splt": 1}}, ["'splt'", "Did you mean 'split'?"]),
        ({"method": {"kind": "mean_field", "epoch": 3}}, ["'epoch'", "Did you mean 'epochs'?"]),
        ({"method": {"kind": "mle", "optimizer": {"rate": 3}}}, ["'rate'", "lr"]),
        ({"method": {"kind": "mean_field", "epochs": -3}}, ["method.epochs in run.toml -3", "at least 1"]),
        (
            {"method": {"kind": "ensemble", "method": {"kind": "mle", "epochs": 0}}},
            ["method.method.epochs", "at least 1"],
        ),
        ({"likelihood": {"std": 1.0}}, ["likelihood.kind in run.toml", "gaussian"]),
        ({"prior": {"kind": "normal", "std": {"*.bias": -1.0}}}, ["above 0"]),
        ({"data": {}}, ["data.name in run.toml", "missing"]),
    ],
)
def test_a_wrong_key_in_a_file_is_named(change: dict, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        merge({**FILE, **change}, {})
    assert all(word in str(caught.value) for word in words), caught.value


def test_data_must_be_named() -> None:
    with pytest.raises(InvalidInput, match="posterity train digits"):
        merge({}, {})


@pytest.mark.parametrize(
    ("count", "settings", "expected"),
    [
        (60_000, {}, 128),
        (1_437, {}, 33),  # 1,293.3 examples are trained on, in 40 steps
        (1_437, {"validation": "0"}, 36),
        (300, {}, 8),
        (1_437, {"method": "sghmc"}, 128),
        (1_437, {"method": "cyclical"}, 128),
    ],
)
def test_few_examples_come_in_small_batches(count: int, settings: dict, expected: int) -> None:
    config = merge({"data": {"name": "digits"}}, given(Settings(**settings)))
    assert batch_size(config, count) == expected


def test_the_batch_that_was_chosen_is_written_down() -> None:
    assert prepare(merge({"data": {"name": "diabetes"}}, {})).config.data.batch_size == 8
    assert prepare(merge({"data": {"name": "diabetes", "batch_size": 200}}, {})).config.data.batch_size == 200
