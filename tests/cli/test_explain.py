"""`posterity explain`, and `--where` on its way from the command line into a run and back."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

import posterity
from posterity.cli.config import DataConfig, ModelConfig, RunConfig
from posterity.cli.experiment import prepare
from posterity.core.activation import Flipout
from posterity.methods import MeanField
from posterity.methods.mean_field import MeanFieldInference
from posterity.train.random import NamedStreams
from posterity.types import Budget
from tests.cli.conftest import TINY
from tests.cli.test_mistakes import check_one_line


def explained(call, *flags: object) -> dict:
    said = call("explain", *flags, "--json")
    assert said.code == 0, said.err
    values: dict = json.loads(said.out)
    return values


def test_a_table_for_people(call) -> None:
    said = call("explain", "digits", "--model", "lenet", "--estimator", "local_reparam")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "digits, lenet, local_reparam"
    assert lines[1].split() == ["parameter", "shape", "prior", "std", "estimator", "uses", "KL"]
    assert [line.split()[0] for line in lines[3:-1]] == [
        f"{layer}.{part}" for layer in ("conv1", "conv2", "fc1", "fc2", "fc3") for part in ("weight", "bias")
    ]
    assert lines[-1].startswith("61,706 random and 0 deterministic numbers; the posterior takes 482.1 KiB")
    assert max(map(len, lines)) <= 120


def test_where_estimator_and_prior_are_those_of_the_flags(call) -> None:
    flags = ("--model", "mlp:12", "--prior", "laplace", "--prior.scale", "0.2", "--estimator", "flipout")
    found = explained(call, "digits", *flags, "--where", "layers.1", "--where", "!*.bias", "--initial-std", "0.07")
    rows = {row["name"]: row for row in found["parameters"]}
    assert {n: (row["estimator"], row["why"]) for n, row in rows.items()} == {
        "layers.0.weight": ("deterministic", "not selected"),
        "layers.0.bias": ("deterministic", "not selected"),
        "layers.1.weight": ("flipout", ""),
        "layers.1.bias": ("deterministic", "not selected"),
    }
    assert {row["prior"] for row in rows.values()} == {"Laplace(0, 0.2)"}  # points have one too
    assert rows["layers.1.weight"]["std"] == pytest.approx(0.07)
    assert rows["layers.0.weight"]["std"] is None
    assert (found["random"], found["deterministic"], found["bytes"]) == (120, 790, 2 * 4 * 120)


def test_patterns_of_a_prior_may_speak_of_points_alone(call, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    parts = "[prior.parts.'*.bias']\nkind = 'normal'\nstd = 2.0\n[prior.parts.'*']\nkind = 'normal'\nstd = 0.5\n"
    path.write_text(
        "where = 'layers.1.weight'\n[data]\nname = 'digits'\n[model]\nname = 'mlp:12'\n"
        f"[method]\nkind = 'mean_field'\ninitial = 'relative'\n[prior]\nkind = 'product'\n{parts}"
    )
    found = explained(call, "--config", path)
    rows = {row["name"]: row for row in found["parameters"]}
    assert [rows[n]["prior"] for n in ("layers.1.weight", "layers.1.bias")] == ["Normal(0, 0.5)", "Normal(0, 2)"]
    weight = prepare(RunConfig.model_validate(tomllib.loads(path.read_text()))).network.layers[1].weight
    assert rows["layers.1.weight"]["std"] == pytest.approx(0.02 * weight.abs().clamp_min(5e-4).mean().item(), rel=1e-4)


def test_latents_of_the_likelihood_are_in_it(call) -> None:
    found = explained(call, "diabetes")
    last = found["parameters"][-1]
    assert (last["name"], last["shape"], last["why"]) == ("likelihood.std", [], "latent of the likelihood")
    assert found["random"] == sum(row["numbers"] for row in found["parameters"])


def test_it_tells_what_training_then_does(call) -> None:
    """The estimator that mean field makes for this problem comes to the same conclusions from its first batch."""
    method = MeanField("flipout", epochs=1)
    norm = ModelConfig(name="resnet20", norm="frn")
    experiment = prepare(RunConfig(data=DataConfig(name="digits"), model=norm, method=method))
    inference = MeanFieldInference(experiment.problem, method, Budget(1, 1))
    made: list[Flipout] = []
    original = Flipout.__init__

    def noted(self, *args: object, **named: object) -> None:
        original(self, *args, **named)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flipout, "__init__", noted)
        state = inference.init(NamedStreams(0, "noise"))
    inference.update(state, (experiment.data.inputs[:4], experiment.data.targets[:4]))
    flags = ("--model", "resnet20", "--model.norm", "frn", "--estimator", "flipout")
    found = explained(call, "digits", *flags)
    assert {row["name"] for row in found["parameters"] if row["estimator"] == "flipout"} == made[0].by_rule
    reasons = {row["why"] for row in found["parameters"]}
    assert reasons == {"", "no rule for Tensor.__getitem__"}


@pytest.mark.parametrize("command", ["explain", "train"])
def test_a_pattern_that_matches_nothing_is_one_line_with_the_nearest(call, tmp_path: Path, command: str) -> None:
    out = ("--out", tmp_path / "run") if command == "train" else ()
    said = call(command, "digits", "--where", "fc4.*", *out)
    check_one_line(said, "where=fc4.* matches no trainable parameter", "Did you mean 'fc")
    said = call(command, "digits", "--where", "conv1", "--where", "!conv1.*", *out)
    check_one_line(said, "selects no trainable parameter")
    assert not (tmp_path / "run").exists()


def test_what_has_no_estimator_is_refused(call) -> None:
    check_one_line(call("explain", "digits", "--method", "map"), "explain is for mean field", "'map'")
    check_one_line(call("explain"), "No data set was named")
    check_one_line(call("explain", "digits", "--estimator", "flipuot"), "Did you mean 'flipout'?")


@pytest.fixture(scope="module")
def partial_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from posterity.cli.app import run

    path = tmp_path_factory.mktemp("partial") / "run"
    flags = ("--where", "layers.*", "--where", "!*.bias", "--twin", "--seed", "3")
    assert run(["train", "digits", *TINY, *flags, "--out", str(path)]) == 0
    return path


def test_a_run_keeps_its_selection(call, partial_run: Path) -> None:
    config = tomllib.loads((partial_run / "config.toml").read_text())
    assert config["where"] == ["layers.*", "!*.bias"]
    network = prepare(RunConfig.model_validate(config)).network
    posterior = posterity.load(partial_run / "posterior.safetensors", network)
    assert posterior.problem.coordinates.random_names == ("layers.0.weight", "layers.1.weight")
    draws = posterior.problem.layout.views(torch.stack([posterior.sample(), posterior.sample()]))
    assert {n for n, d in draws.items() if (d[0] != d[1]).any()} == {"layers.0.weight", "layers.1.weight"}
    trained = json.loads((partial_run / "metrics.json").read_text())
    assert trained["model"]["parameters"] == 910 + 64 * 12 + 12 * 10  # means of all, stds of the weights
    assert trained["twin"]["parameters"] == 910
    evaluated = json.loads(call("evaluate", partial_run, "--json").out)
    assert evaluated["model"]["test"] == trained["model"]["test"]
    assert "!*.bias" in (partial_run / "report.html").read_text()


def test_a_run_goes_on_with_its_selection(call, partial_run: Path, tmp_path: Path) -> None:
    """What --resume reads is config.toml, so that is where the selection must be."""
    (partial_run / "posterior.safetensors").rename(tmp_path / "moved.safetensors")
    assert call("train", "--resume", partial_run, "--quiet").code == 0
    config = RunConfig.model_validate(tomllib.loads((partial_run / "config.toml").read_text()))
    network = prepare(config).network
    kept, found = (
        posterity.load(p, network) for p in (tmp_path / "moved.safetensors", partial_run / "posterior.safetensors")
    )
    assert found.problem.coordinates.random_names == kept.problem.coordinates.random_names
    torch.testing.assert_close(found.mean, kept.mean, rtol=0, atol=0)
    assert call("predict", partial_run, _image(tmp_path)).code == 0


def _image(folder: Path) -> Path:
    import numpy as np

    np.save(folder / "one.npy", np.zeros((1, 1, 8, 8), np.float32))
    return folder / "one.npy"
