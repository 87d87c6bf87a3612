"""Networks by name on the command line: all of them listed, and images of the size that each takes."""

import json
from pathlib import Path

import numpy as np
import pytest

from posterity.cli.config import DataConfig, ModelConfig, RunConfig
from posterity.cli.experiment import prepare
from posterity.errors import InvalidInput
from posterity.methods import MLE
from posterity.zoo import IMAGE_NETWORKS


def config(name: str, image_size: int | None = None, **options: object) -> RunConfig:
    data = DataConfig(name="digits", image_size=image_size)
    return RunConfig(data=data, model=ModelConfig(name=name, **options), method=MLE(epochs=1))


def test_help_names_every_network(call) -> None:
    text = " ".join(call("train", "--help").out.replace("│", " ").split())
    assert set(IMAGE_NETWORKS) <= set(text.replace(",", " ").split())


@pytest.mark.parametrize(
    ("name", "side"),
    [("lenet", 32), ("alexnet", 32), ("alexnet_half", 32), ("3conv3fc", 32), ("small_cnn", 28), ("resnet20", 8)],
)
def test_images_come_in_the_size_that_the_network_takes(name: str, side: int) -> None:
    experiment = prepare(config(name))
    assert experiment.dataset.input_shape == experiment.data.inputs.shape[1:] == (1, side, side)
    assert type(experiment.network) is IMAGE_NETWORKS[name]


def test_a_size_that_the_network_can_take_is_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", x=np.random.default_rng(0).random((40, 2, 12, 10)), y=np.arange(40) % 2)
    own = RunConfig(data=DataConfig(name=str(tmp_path / "own.npz")), model=ModelConfig(name="resnet20"))
    assert prepare(own).dataset.input_shape == (2, 12, 10)


def test_a_size_that_is_asked_for_is_kept() -> None:
    assert prepare(config("resnet20", 12)).dataset.input_shape == (1, 12, 12)
    with pytest.raises(InvalidInput, match=r"'alexnet' takes inputs of shape \(C, 32, 32\), got \(1, 28, 28\)"):
        prepare(config("alexnet", 28))


def test_a_residual_network_is_trained_saved_and_loaded(call, tmp_path: Path) -> None:
    flags = ("--model", "resnet20", "--model.norm", "frn", "--epochs", "1", "--batch", "64", "--predictive-draws", "2")
    said = call("train", "digits", *flags, "--quiet", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    trained = json.loads((tmp_path / "run" / "metrics.json").read_text())
    evaluated = json.loads(call("evaluate", tmp_path / "run", "--json").out)
    assert evaluated["model"]["test"] == trained["model"]["test"]
    said = call("train", "digits", "--model", "resnet20", "--model.norm", "frm", "--out", tmp_path / "other")
    assert said.code == 2
    assert "Did you mean 'frn'?" in said.err
