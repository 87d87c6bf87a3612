"""What is printed without training: help, version, lists; none of it waits for torch."""

import json
import subprocess
import sys

import pytest

from posterity.cli import flags
from posterity.cli.kinds import kinds_in
from posterity.methods import AnyMethod
from posterity.model.known import AnyLikelihood
from posterity.model.priors import AnyPrior


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_do_not_import_torch(flag: str) -> None:
    code = (
        "import sys; from posterity.cli.app import run; assert run([sys.argv[1]]) == 0; "
        "sys.exit(3 if {'torch', 'numpy', 'pydantic'} & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("evaluate" in done.stdout) if flag == "--help" else done.stdout.strip() == "0.1.0"


def test_python_m_posterity_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "posterity", "trian"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Did you mean 'train'?" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command", ["train", "prior", "explain", "evaluate", "diagnose", "predict", "report", "demo", "data"]
)
def test_each_command_has_help_and_the_common_flags(call, command: str) -> None:
    said = call(command, "--help")
    assert said.code == 0
    assert all(flag in said.out for flag in ("--json", "--quiet", "--debug"))


@pytest.mark.parametrize("union", [AnyMethod, AnyPrior, AnyLikelihood], ids=["method", "prior", "likelihood"])
def test_help_names_every_kind(call, union: object) -> None:
    kinds = {kind for kind, cls in kinds_in(union).items() if cls.__module__.startswith("posterity.")}
    text = " ".join(call("train", "--help").out.replace("│", " ").split())
    assert kinds - {"ensemble"} <= set(text.translate(str.maketrans(",.:", "   ")).split())


def test_every_flag_stands_for_a_key_that_exists(call) -> None:
    """`train` accepts each flag's key: a wrong one would be refused as unknown before its value is looked at."""
    given = flags.Settings(**dict.fromkeys(_names(), "?"), where=("?",), augment=True)
    for path, (flag, value) in flags.given(given).items():
        words = (flag,) if value is True else (flag, "?")
        said = call("train", "digits", "--method", "mean_field", *words, "--set", "data.validation=2")  # never trains
        assert said.code == 2
        assert "has no key" not in said.err, (path, said.err)


def _names() -> list[str]:
    from dataclasses import fields

    return [f.name for f in fields(flags.Settings) if f.name not in ("set_", "twin", "where", "augment")]


def test_data_lists_and_details(call) -> None:
    assert "uci/concrete" in call("data").out
    assert "CC BY" in call("data", "digits").out
    listed = json.loads(call("data", "--json").out)
    assert {"digits", "mnist"} <= {d["name"] for d in listed["data"]}
    assert json.loads(call("data", "diabetes", "--json").out)["task"] == "regression"
    said = call("data", "digist")
    assert (said.code, said.out) == (2, "")
    assert "Did you mean 'digits'?" in said.err
