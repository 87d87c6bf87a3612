"""What a run infers with where nothing is named: the estimators' choice for tables, and the usual defaults elsewhere."""

import pytest

from posterity.cli.experiment import prepare, twin_of
from posterity.cli.merge import merge
from posterity.cli.usual import usual
from posterity.errors import InvalidInput

CHOICE = "few enough for chains"


def prepared(data, **flags):
    values = {"data.name": ("DATA", str(data))}
    return prepare(merge({}, values | {key.replace("__", "."): (f"--{key}", v) for key, v in flags.items()}), usual)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    path = tmp_path_factory.mktemp("classes") / "tips.csv"
    rows = (f"{i},{i % 7},{'yes' if i % 3 else 'no'}" for i in range(60))
    path.write_text("\n".join(["a,b,tipped", *rows]))
    return path


def test_a_table_of_numbers_gets_what_the_regressor_takes():
    experiment = prepared("diabetes")
    config = experiment.config
    assert (config.method.kind, config.prior.std, config.prior.fan_in) == ("sampled_ensemble", 1.5, True)
    assert config.model.options == {"shortcut": True}
    assert (config.model.name, config.likelihood.kind) == ("mlp:16-16-16-16", "heteroscedastic")
    assert config.data.batch_size == 256
    assert any(CHOICE in note for note in experiment.dataset.notes)


def test_a_table_of_classes_gets_what_the_classifier_takes(classes):
    config = prepared(classes).config
    assert (config.method.kind, config.method.estimator, config.model.name) == (
        "mean_field",
        "local_reparam",
        "mlp:50",
    )
    assert config.likelihood.kind == "categorical"


@pytest.mark.parametrize(
    ("flags", "kinds"),
    [
        ({"method__kind": "map"}, ("map", "normal", "mlp:50", "gaussian")),
        ({"method__epochs": "3"}, ("mean_field", "normal", "mlp:50", "gaussian")),
        ({"where": "last_layer"}, ("mean_field", "normal", "mlp:50", "gaussian")),
        (
            {"prior__kind": "student_t"},
            ("sampled_ensemble", "student_t", "mlp:16-16-16-16", "heteroscedastic"),
        ),
        ({"model__name": "mlp:8"}, ("sampled_ensemble", "normal", "mlp:8", "heteroscedastic")),
        ({"likelihood__kind": "student_t"}, ("sampled_ensemble", "normal", "mlp:16-16-16-16", "student_t")),
    ],
)
def test_what_is_named_stays(flags, kinds):
    experiment = prepared("diabetes", **flags)
    config = experiment.config
    assert (config.method.kind, config.prior.kind, config.model.name, config.likelihood.kind) == kinds
    assert any(CHOICE in note for note in experiment.dataset.notes) == (config.method.kind == "sampled_ensemble")


def test_its_twin_is_trained_by_as_many_steps_as_a_member():
    experiment = prepared("diabetes")
    twin = twin_of(experiment.config, experiment.data.steps_per_epoch)
    assert twin.epochs * experiment.data.steps_per_epoch == experiment.config.method.training
    assert twin.optimizer == experiment.config.method.optimizer


def test_images_have_defaults_of_their_own():
    config = prepared("digits").config
    assert (config.method.kind, config.model.name) == ("mean_field", "lenet")


def test_a_run_that_was_chosen_for_is_read_back_as_it_is(tmp_path):
    from posterity.cli import config as files

    config = prepared("diabetes").config
    files.write(config, tmp_path / "config.toml")
    again = merge(files.read(tmp_path / "config.toml"), {}, "config.toml")
    assert prepare(again, usual).config == config


def test_minutes_make_longer_chains_and_are_refused_where_they_would_change_nothing(classes):
    config = prepared("diabetes", minutes="10").config
    sampler = config.method.sampler
    assert (sampler.warmup, sampler.draws, sampler.steps, config.minutes) == (480, 320, 50, None)
    assert prepared("diabetes").config.method.sampler.draws == 80
    for data, flags in ((classes, {}), ("diabetes", {"method__kind": "map"})):
        with pytest.raises(InvalidInput, match="--minutes 2 is for tables of numbers"):
            prepared(data, minutes="2", **flags)
    with pytest.raises(InvalidInput, match="minutes"):
        prepared("diabetes", minutes="-1")
