"""Files that no run wrote: posteriors saved from Python and weights of plain networks, on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from posterity import Engine, Gaussian, Laplace, MeanField, fit
from posterity.cli.weights import load_weights, read_weights
from posterity.data import load
from posterity.errors import CorruptFile, InvalidInput, Mismatch

CODE = """
from torch import nn

def make(hidden=9):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 10))

def line():
    return nn.Linear(2, 1)
"""
SAID = ("--model", "outside_networks:make", "--data", "digits")


def network(hidden: int = 9) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 10))


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """A plain network, trained by a loop of its own."""
    digits = load("digits").standardised()
    torch.manual_seed(0)
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(digits.train_inputs), digits.train_targets).backward()
        optimizer.step()
    return module.eval()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: nn.Module) -> Path:
    """A folder with the networks' code, the weights, and two posteriors saved from Python."""
    (tmp_path / "outside_networks.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    return tmp_path


def expected(trained: nn.Module) -> tuple[float, float]:
    digits = load("digits").standardised()
    with torch.no_grad():
        outputs = trained(digits.test_inputs)
    right = (outputs.argmax(1) == digits.test_targets).double().mean()
    return float(right), float(nn.functional.cross_entropy(outputs, digits.test_targets))


def test_a_plain_network_is_evaluated_as_a_point(call, folder: Path, trained: nn.Module) -> None:
    accuracy, nll = expected(trained)
    save_file(trained.state_dict(), folder / "weights.safetensors")
    torch.save({"state_dict": nn.DataParallel(trained).state_dict(), "epoch": 3}, folder / "checkpoint.ckpt")
    for file in ("weights.pt", "weights.safetensors", "checkpoint.ckpt"):
        said = call("evaluate", file, *SAID, "--json")
        assert said.code == 0, said.err
        found = json.loads(said.out)["model"]
        assert found["method"] == "Network as it is"
        assert found["test"]["accuracy"] == pytest.approx(accuracy)
        assert found["test"]["nll"] == pytest.approx(nll, rel=1e-5)
        assert found["test"]["mutual_information"] == 0


@pytest.mark.parametrize("kind", [pytest.param("posterior", marks=pytest.mark.slow), "weights"])
def test_every_tool_works_on_a_lone_file(call, folder: Path, trained: nn.Module, kind: str) -> None:
    digits, file = load("digits").standardised(), "weights.pt"
    if kind == "posterior":
        data = digits.train_inputs, digits.train_targets
        fit(trained, data, method=Laplace(None, "diag"), engine=Engine(progress=False)).save("own.safetensors")
        file = "own.safetensors"
    np.save("inputs.npy", np.zeros((2, 8, 8), np.float32))
    few = ("--limit", "24", "--draws", "2")
    commands = {
        "evaluate": ("--draws", "4"),
        "ood": few,
        "shift": (*few, "--kinds", "noise"),
        "calibrate": ("--draws", "4"),
        "diagnose": ("--draws", "25"),
    }
    for command, flags in commands.items():
        said = call(command, file, *SAID, *flags, "--json", "--quiet")
        assert said.code == 0, (command, said.err)
        assert json.loads(said.out)
    said = call("predict", file, "inputs.npy", *SAID, "--draws", "4", "--json")
    assert said.code == 0, said.err
    assert len(json.loads(said.out)["predictions"]) == 2
    said = call("report", file, *SAID, "--out", "page.html")
    assert said.code == 0, said.err
    page = (folder / "page.html").read_text()
    assert "Learning rate" not in page  # nobody knows it
    assert f"posterity report {file} --model outside_networks:make --data digits" in page


def test_promises_are_made_of_one_half_of_the_test_data_and_checked_on_the_other(call, folder: Path) -> None:
    said = call("calibrate", "weights.pt", *SAID)
    assert said.code == 0, said.err
    assert "180 held-out examples, 180 test examples" in said.out
    assert "a random half of the test examples" in said.err
    said = call("calibrate", "weights.pt", *SAID, "--data.validation", "0.1")
    assert "144 held-out examples, 360 test examples" in said.out


def test_a_posterior_is_diagnosed_with_the_data_it_is_of(call, folder: Path) -> None:
    digits = load("digits").standardised()
    data = digits.train_inputs[:500], digits.train_targets[:500]
    fit(network(), data, method=MeanField(epochs=1), engine=Engine(progress=False)).save("part.safetensors")
    assert call("evaluate", "part.safetensors", *SAID, "--quiet").code == 0
    said = call("diagnose", "part.safetensors", *SAID)
    assert said.code == 2
    assert "1,437 training examples, and the posterior is of 500" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("weights.pt",), "Add --model NAME and --data NAME"),
        (("weights.pt", "--model", "outside_networks:make"), "Add --data NAME"),
        (("weights.pt", *SAID, "--model.hidden", "4"), r"1.weight: (9, 64) in the file, (4, 64) in the network"),
        (("weights.pt", *SAID[:-1], "diggits"), "Did you mean 'digits'"),
        (("weights.pt", "--model", "outside_networks:mak", *SAID[2:]), "Did you mean 'make'"),
        (("weights.pt", *SAID, "--method.epochs", "3"), "--method.epochs has no meaning"),
        (("whole.pt", *SAID), "network.state_dict()"),
        (("nothing.pt", *SAID), "There is no run or posterior file"),
        (("numbers.pt", *SAID), "no state_dict"),
        (("nan.pt", *SAID), "NaN"),
        (("cut.pt", *SAID), "holds no weights that can be read"),
    ],
)
def test_mistakes_are_answered_before_anything_runs(
    call, folder: Path, trained: nn.Module, arguments: tuple[str, ...], message: str
) -> None:
    torch.save(nn.Linear(2, 2), folder / "whole.pt")
    torch.save([1, 2], folder / "numbers.pt")
    torch.save({n: v * float("nan") if v.dim() == 2 else v for n, v in trained.state_dict().items()}, folder / "nan.pt")
    (folder / "cut.pt").write_bytes((folder / "weights.pt").read_bytes()[:99])
    said = call("evaluate", *arguments)
    assert said.code == 2
    assert message in said.err


def test_a_run_says_of_itself_what_it_is(call, digits_run: Path) -> None:
    said = call("evaluate", digits_run, "--model", "lenet")
    assert said.code == 2
    assert "--model is for files that no run wrote" in said.err
    assert call("evaluate", digits_run, "--data", "digits", "--draws", "2", "--quiet").code == 0
    assert call("ood", digits_run, "--data", "digits").code == 2


def test_code_that_only_a_file_names_is_not_run(call, folder: Path) -> None:
    flags = ("--weights", "weights.pt", "--method", "map", "--epochs", "1", "--quiet")
    assert call("train", "digits", *SAID[:2], *flags, "--out", "run").code == 0
    said = call("evaluate", "run/posterior.safetensors")
    assert said.code == 2
    assert "Add --trust" in said.err


def test_a_curvature_is_put_around_weights_from_a_file(call, folder: Path, trained: nn.Module) -> None:
    flags = ("--method", "laplace", "--method.method", "none", "--method.structure", "diag", "--quiet")
    said = call("train", "digits", *SAID[:2], "--weights", "weights.pt", *flags, "--out", "run")
    assert said.code == 0, said.err
    from posterity.cli.saved import open_run

    found = open_run(Path("run"), trust=True)
    assert torch.equal(found.posterior.problem.layout.views(found.posterior.mean)["4.weight"], trained[4].weight)
    again = call(
        "train", "--config", "run/config.toml", "--trust", "--out", "again", "--quiet"
    )  # which trains nothing either
    assert again.code == 0, again.err
    first, second = (json.loads(Path(run, "metrics.json").read_text())["model"] for run in ("run", "again"))
    assert first["test"] == second["test"]
    assert "as they were given" in Path("run/report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--method", "laplace", "--method.method", "none"), "--weights FILE"),
        (("--weights", "weights.pt", "--ensemble", "2"), "--method.reinitialise false"),
        (
            ("--weights", "weights.pt", "--method", "laplace", "--method.method", "none", "--twin"),
            "the network is its own twin",
        ),
        (("--weights", "nothing.pt"), "There is no file of weights"),
        (("--weights", "weights.pt", "--model.hidden", "4"), "is of another network than Sequential"),
    ],
)
def test_weights_that_would_be_lost_are_refused(call, folder: Path, flags: tuple[str, ...], message: str) -> None:
    said = call("train", "digits", *SAID[:2], *flags, "--epochs", "1", "--out", "run")
    assert said.code == 2
    assert message in said.err
    assert not Path("run").exists()


def test_a_plain_network_of_values_gets_its_own_noise(call, folder: Path, table: Path) -> None:
    """y = 1000 + 50 a − 20 b with noise of std 5, by its exact coefficients in the units of the file."""
    line = nn.Linear(2, 1)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[50.0, -20.0]]))
        line.bias.fill_(1000.0)
    torch.save(line.state_dict(), folder / "line.pt")
    said = ("--model", "outside_networks:line", "--data", str(table))
    refused = call("evaluate", "line.pt", *said)
    assert refused.code == 2
    assert "Add --data.standardise false" in refused.err
    found = call("evaluate", "line.pt", *said, "--data.standardise", "false", "--json")
    assert found.code == 0, found.err
    scores = json.loads(found.out)["model"]["test"]
    assert 3.5 < scores["aleatoric_std"] < 6.5
    assert 3 < scores["rmse"] < 7


def test_a_posterior_of_values_keeps_its_likelihood(call, folder: Path, table: Path) -> None:
    data = load(str(table))
    posterior = fit(
        nn.Linear(2, 1),
        (data.train_inputs, data.train_targets),
        likelihood=Gaussian(std=0.25),
        method=MeanField(epochs=2),
        engine=Engine(progress=False),
    )
    posterior.save("line.safetensors")
    said = ("--model", "outside_networks:line", "--data", str(table))
    found = call("evaluate", "line.safetensors", *said, "--json")
    assert found.code == 0, found.err
    std = json.loads(found.out)["model"]["test"]["aleatoric_std"]
    assert std == pytest.approx(0.25 * data.scaling.target_std, rel=1e-4)
    said = call("evaluate", "line.safetensors", *said, "--likelihood.std", "0.3")
    assert said.code == 2
    assert "--likelihood.std has no meaning for a posterior" in said.err


def test_names_and_shapes_are_held_against_the_network(tmp_path: Path) -> None:
    first = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    torch.save(first[0].state_dict(), tmp_path / "part.pt")
    before = first[0].weight.clone()
    with pytest.raises(
        Mismatch, match=r"0\.weight: missing in the file(?s:.)*  weight: \(3, 2\) in the file; the network"
    ):
        load_weights(first, tmp_path / "part.pt")
    assert torch.equal(first[0].weight, before)
    torch.save(torch.compile(nn.Linear(2, 3)).state_dict(), tmp_path / "compiled.pt")
    assert set(read_weights(tmp_path / "compiled.pt")) == {"weight", "bias"}
    with pytest.raises(InvalidInput, match="kind"):
        read_weights(tmp_path / "weights.npz")
    (tmp_path / "cut.safetensors").write_bytes(b"no")
    with pytest.raises((CorruptFile, InvalidInput)):
        read_weights(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    "nested",
    [
        lambda state: {"net": state, "acc": 93.1, "epoch": 3},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"ema": {n: v + 1 for n, v in state.items()}, "model": state, "optimizer": {"state": {}}},
        lambda state: {"state_dict": {f"model.{n}": v for n, v in state.items()}, "hyper_parameters": {"lr": 0.1}},
        lambda state: {f"module.net.{n}": v for n, v in state.items()},
    ],
)
def test_weights_are_found_where_training_loops_keep_them(tmp_path: Path, nested) -> None:
    trained, network = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save(nested(trained.state_dict()), tmp_path / "checkpoint.pt")
    load_weights(network, tmp_path / "checkpoint.pt")
    assert torch.equal(network.weight, trained.weight)


def test_two_networks_in_a_file_are_not_chosen_between(tmp_path: Path) -> None:
    state = nn.Linear(2, 3).state_dict()
    torch.save({"generator": state, "critic": state}, tmp_path / "gan.pt")
    with pytest.raises(InvalidInput, match="several networks, generator, critic"):
        load_weights(nn.Linear(2, 3), tmp_path / "gan.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"epoch,loss\n1,2\n", b"\x80\x02}", b"<html></html>"])
def test_files_that_hold_no_pickle_are_no_bug(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises((CorruptFile, InvalidInput), match=r"weights\.pt"):
        read_weights(tmp_path / "weights.pt")
