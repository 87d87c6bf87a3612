"""Files and flags laid over each other; every mistake named."""

import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from time import process_time

import pytest

from posterity.cli.experiment import batch_size, prepare
from posterity.cli.flags import Settings, given, undotted
from posterity.cli.merge import merge
from posterity.errors import InvalidInput
from posterity.methods import KINDS, MLE, Ensemble, MeanField
from posterity.model.priors import Hierarchical, LaplacePrior, Normal, ScaleMixture, StudentT
from tests.cli.test_mistakes import check_one_line

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
        ({"seed": str(2**70)}, ["--seed 1180591620717411303424", "at most"]),
        ({"epochs": str(2**70)}, ["--epochs 1180591620717411303424", "at most"]),
        ({"prior_std": "inf"}, ["--prior-std inf", "finite"]),
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


OURS = [kind for kind, cls in KINDS.items() if cls.__module__.startswith("posterity.")]  # other tests make theirs known
COMPOSED = [
    *({"kind": kind} for kind in OURS if kind not in ("ensemble", "refine")),
    *({"kind": "ensemble", "method": {"kind": kind}} for kind in OURS if kind != "ensemble"),
    *({"kind": "refine", "method": {"kind": kind}} for kind in OURS if kind != "refine" and KINDS[kind]().keeps_start),
    {"kind": "ensemble", "method": {"kind": "refine", "method": {"kind": "laplace"}, "after": {"kind": "mle"}}},
    {"kind": "laplace", "method": "none"},
]


def values_of(table: dict, key: str) -> list[object]:
    """All that a table and those within it have for a key."""
    inner = [one for value in table.values() if isinstance(value, dict) for one in values_of(value, key)]
    return [*([table[key]] if key in table else []), *inner]


@pytest.mark.parametrize("method", COMPOSED, ids=str)
@pytest.mark.parametrize(("flag", "value"), [("epochs", "77"), ("lr", "0.0077"), ("schedule", "constant")])
def test_a_flag_reaches_every_method_that_has_such_a_thing(method: dict, flag: str, value: str) -> None:
    """It is in the configuration, once, and all else is as without it; or it is refused with the method's name."""
    file = {"data": {"name": "digits"}, "method": {**method, "method": None} if "none" in method.values() else method}
    plain = merge(file, {}).model_dump(mode="json")["method"]
    if not values_of(plain, flag):
        with pytest.raises(InvalidInput, match=f"--{flag}: method '.*' has no key '{flag}'"):
            merged(file, **{flag: value})
        return
    found = merged(file, **{flag: value}).model_dump(mode="json")["method"]
    before = values_of(plain, flag)[0]
    wanted = float(value) if before is None else type(before)(value)  # a rate that is left open is None
    assert values_of(found, flag).count(wanted) - values_of(plain, flag).count(wanted) == (0 if before == wanted else 1)
    assert changed(plain, found) <= {flag}


def changed(a: dict, b: dict) -> set[str]:
    """The keys whose values differ."""
    return {
        key
        for name in a.keys() | b.keys()
        for key in (
            changed(a[name], b[name])
            if isinstance(a.get(name), dict) and isinstance(b.get(name), dict)
            else {name}
            if a.get(name) != b.get(name)
            else set()
        )
    }


NESTED: dict = {}
for _ in range(200):
    NESTED = {"a": NESTED}


@pytest.mark.parametrize("noun", ["method", "prior", "likelihood", "data", "model", "engine", "seed", "where", "twin"])
@pytest.mark.parametrize(
    "value",
    [
        *(5, -1, 2**70, 1.5, float("nan"), float("inf"), True, "x", "\x1b[31m", "x" * 10_000, [], [1], {}, {"a": 1}),
        *({"kind": 3}, {"kind": []}, {"kind": {}}, {"kind": "x"}, {"kind": None}, {"name": 3}, {"name": []}, NESTED),
        *(date(2026, 1, 1), {"kind": date(2026, 1, 1)}, [{"kind": "mle"}], {"kind": "mle", "epochs": True}),
        *({"kind": "mle", "epochs": "3"}, {"kind": "mle", "epochs": []}, {"kind": "mle", "optimizer": 3}),
        *({"kind": "ensemble", "method": 3}, {"kind": "laplace", "method": []}, {"kind": "normal", "std": True}),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_value_of_any_type_is_right_or_one_line(noun: str, value: object) -> None:
    flags = ({}, {"epochs": "3", "lr": "0.1"}, {"ensemble": "2"}, {"prior_std": "1", "method": "map"})
    for settings in flags:
        try:
            merged({"data": {"name": "digits"}, noun: value}, **settings)
        except InvalidInput as error:
            text = str(error)
        else:
            continue
        assert len(text.splitlines()) == 1
        assert len(text) < 1500
        assert "Input should" not in text
        assert "pydantic" not in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "no TOML"),
        (b"seed = 1\nseed = 2\n", "no TOML"),
        (b"a = " + b"[" * 5000, "no TOML"),
        (b"a." * 5000 + b"a = 1", "more than 32 parts"),
        (b"seed = " + b"9" * 5000, ""),
        (b"#" * 2_000_000, "larger"),
        (b"[data]\nname = 1979-05-27\n", "text"),
        (b"[data]\nname = 'digits'\n[method]\nkind = 'mle'\nepochs = true\n", "number"),
        (b"[data]\nname = 'digits'\n[method]\nkind = 'mle'\nepochs = '3'\n", "without quotes"),
        (b"[data]\nname = 'digits'\n[[method]]\nkind = 'mle'\n", "table"),
        (b"seed = nan\n", "finite"),
        (b"data.name = 'digits'\ndata = 3\n", "no TOML"),
    ],
)
def test_a_file_of_any_content_is_one_line(call, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    for command in ("train", "explain", "prior"):
        check_one_line(call(command, "--config", tmp_path / "run.toml"), words)


@pytest.mark.parametrize(
    "item",
    ["method=3", "data=3", "..=3", "=3", "method.method=3", "prior.std.x.y=3", "method.kind.x=3", 'a"b=1', "seed.x=1"],
)
def test_a_key_of_any_form_is_one_line(call, item: str) -> None:
    check_one_line(call("train", "digits", "--set", item))


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 400_000) + " = 1",
        "[" + ".".join(["'a'"] * 200_000) + "]",
        ".".join(['"\\""'] * 200_000) + " = 1",
        f'[model]\n[model."{"A" * 400_000}"]\n' + "".join(f"a{i} = {{}}\n" for i in range(40_000)) + "b = nan",
        f"seed = 0x{'f' * 20_000}",
        f"[prior]\nkind = [0x{'f' * 20_000}]",
    ],
    ids=["key", "header", "texts", "long and wide", "digits", "digits of a kind"],
)
def test_a_configuration_made_to_hurt_is_one_line(call, tmp_path: Path, text: str) -> None:
    """Dotted keys take the square of their length, and digits cannot be written: both are refused at once."""
    (tmp_path / "run.toml").write_text(text)
    started = process_time()
    check_one_line(call("explain", "digits", "--config", tmp_path / "run.toml", "--quiet"), "run.toml")
    assert process_time() - started < 10


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_no_configuration_and_is_not_waited_for(call, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.toml")
    check_one_line(call("explain", "digits", "--config", tmp_path / "run.toml", "--quiet"), "run.toml", "pipe")
