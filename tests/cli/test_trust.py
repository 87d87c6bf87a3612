"""Code that a file names is not run unless it is trusted; code that a flag names is the user's own."""

import shutil
from pathlib import Path

import pytest

from posterity.tensors import read, write
from tests.cli.test_mistakes import check_one_line

PLANTED = """
from pathlib import Path
from torch import nn
Path("ran").touch()
def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
CONFIG = '[data]\nname = "digits"\n[model]\nname = "{name}"\n[method]\nkind = "mean_field"\nepochs = 1\n'


@pytest.mark.parametrize("name", ["os:system", "planted_by_a_file:make"])
@pytest.mark.parametrize(
    "command",
    [
        "train --resume evil",
        "train --config evil/config.toml",
        "explain --config evil/config.toml",
        "prior --config evil/config.toml",
    ],
)
def test_a_file_runs_no_code(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted_by_a_file.py").write_text(PLANTED)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/config.toml").write_text(CONFIG.format(name=name))
    check_one_line(call(*command.split(), "--quiet"), name, "--trust")
    assert not (tmp_path / "ran").exists()


def test_what_is_trusted_is_run(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted_by_a_file.py").write_text(PLANTED)
    (tmp_path / "run.toml").write_text(CONFIG.format(name="planted_by_a_file:make"))
    said = call("train", "--config", "run.toml", "--out", "run", "--trust", "--quiet")
    assert said.code == 0, said.err
    assert (tmp_path / "ran").exists()
    assert call("train", "--config", "run.toml", "--model", "mlp:8", "--out", "other", "--quiet").code == 0


@pytest.mark.parametrize("name", ["planted_by_a_file:make", "os:system"])
def test_a_posterior_runs_no_code(
    call, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever opens a run's directory or its file refuses the network that its header names, before it is imported."""
    run, outside = plant(digits_run, tmp_path, name), str(tmp_path / "x.npy")
    monkeypatch.chdir(tmp_path)
    for path in (run, run / "posterior.safetensors"):
        for command in (
            *([command, path] for command in ("evaluate", "report", "diagnose", "ood", "shift", "calibrate", "prune")),
            ["predict", path, outside],
            ["compare", digits_run, path],
            ["acquire", "--run", path, "--pool", outside],
        ):
            check_one_line(call(*command, "--quiet"), name, "--trust")
    assert not (tmp_path / "ran").exists()


def plant(run: Path, folder: Path, name: str) -> Path:
    """Copy a run, with another network's name in the headers of its posteriors and in its configuration."""
    (folder / "planted_by_a_file.py").write_text(PLANTED)
    target = folder / "evil"
    shutil.copytree(run, target)
    for file in target.glob("*.safetensors"):
        header, held = read(file, "posterity")
        header["model"]["name"] = header["config"]["model"]["name"] = name
        write(file, held, "posterity", header)  # whoever plants a name can seal it, too
    config = target / "config.toml"
    config.write_text(config.read_text().replace("mlp:12", name))
    return target


@pytest.mark.parametrize("key", ["config", "model", "data"])
@pytest.mark.parametrize("value", [3, None, [], {}, "x", {"name": 3}, {"name": [], "input_shape": {}}])
def test_a_header_of_any_content_is_one_line(call, digits_run: Path, tmp_path: Path, key: str, value: object) -> None:
    file = tmp_path / "x.safetensors"
    header, held = read(digits_run / "posterior.safetensors", "posterity")
    write(file, held, "posterity", {**header, key: value})
    check_one_line(call("evaluate", file))


@pytest.mark.parametrize("name", ["os:system", "subprocess:run", "builtins:exec", "torch:load", "shutil:rmtree"])
def test_what_makes_no_network_is_not_called(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    check_one_line(call("train", "digits", "--model", name, "--model.command", "touch ran"), name, "was not called")
    (tmp_path / "run.toml").write_text(CONFIG.format(name=name).replace("[method]", 'command = "touch ran"\n[method]'))
    check_one_line(call("train", "--config", "run.toml", "--trust"), name, "was not called")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("noun", ["method", "prior", "likelihood"])
def test_a_kind_of_a_file_is_no_code_without_trust(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noun: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted_by_a_file.py").write_text(PLANTED)
    (tmp_path / "run.toml").write_text(f'[data]\nname = "digits"\n[{noun}]\nkind = "planted_by_a_file:make"\n')
    for command in ("train", "explain", "prior"):
        check_one_line(call(command, "--config", "run.toml"), "'planted_by_a_file:make'", "--trust")
    assert not (tmp_path / "ran").exists()


SCALED = {"input_mean": 0.0, "input_std": 1.0, "target_mean": 0.0, "target_std": 1.0}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("method.temperature", "\x1b[31m"),
        ("method", {"kind": "os:system"}),
        ("remarks", [1]),
        ("data.digests", [1]),
        ("data.scaling", {**SCALED, "input_mean": "x"}),
        ("data.scaling", {**SCALED, "input_mean": [[1.0], [1.0, 2.0]]}),
        ("data.scaling", {**SCALED, "input_std": -1.0}),
        ("data.scaling", {**SCALED, "target_mean": float("nan")}),
        ("model.name", "mlp:999999999-999999999"),
        ("model.name", "mlp:900000-900000"),
        ("model.name", f"mlp:{'9' * 5000}"),
        ("model.name", "mlp:" + "-".join("1" * 5000)),
    ],
)
def test_what_a_command_takes_from_a_header_is_checked(
    call, digits_run: Path, tmp_path: Path, path: str, value: object
) -> None:
    """Whoever edits a header can seal it again; and no memory is taken for a network that the file is not of."""
    tensors, header = read(digits_run / "posterior.safetensors", "posterity")[::-1]
    table, _, key = path.rpartition(".")
    (header[table] if table else header)[key] = value
    write(tmp_path / "x.safetensors", tensors, "posterity", header)
    check_one_line(call("evaluate", tmp_path / "x.safetensors", "--quiet"))
