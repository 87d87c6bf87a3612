"""Ten mistakes (and some more), each answered by one clear line and exit code 2, before anything is lost."""

import gzip
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from posterity.cli.saved import open_run, scored_data
from tests.cli.conftest import TINY, Said


def check_one_line(said: Said, *words: str) -> None:
    """The user's mistake: exit code 2, one line on stderr that has these words, nothing on stdout."""
    assert said.code == 2, said
    assert said.out == ""
    assert said.err.startswith("posterity: ")
    assert len(said.err.splitlines()) == 1, said.err
    assert all(word in said.err for word in words), said.err


def idx(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A folder that looks like MNIST, of the right shapes and full of zeros."""
    folder = tmp_path / "root" / "mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((count, 28, 28), np.uint8)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.zeros(count, np.uint8)))
    return folder


def train(call, data: object, out: Path, *flags: object) -> Said:
    said = call("train", data, *flags, *TINY, "--out", out)
    assert not out.exists()  # refused before the run directory was made
    return said


def test_1_missing_file(call, tmp_path: Path) -> None:
    check_one_line(train(call, tmp_path / "none.csv", tmp_path / "run"), "There is no file", "none.csv")
    check_one_line(call("predict", tmp_path / "norun", "x.png"), "norun")
    check_one_line(call("evaluate", tmp_path), "posterior.safetensors")
    check_one_line(call("train", "--config", tmp_path / "no.toml"), "no.toml")
    check_one_line(call("train", "--resume", tmp_path), "config.toml")


def test_2_truncated_idx(call, tmp_path: Path, mnist: Path) -> None:
    file = mnist / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    check_one_line(train(call, "mnist", tmp_path / "run", "--root", tmp_path / "root"), file.name, "promises")
    packed = mnist / "t10k-images-idx3-ubyte.gz"
    packed.write_bytes(gzip.compress(file.read_bytes())[:-50])
    check_one_line(train(call, "mnist", tmp_path / "run", "--root", tmp_path / "root"), packed.name, "truncated")


def test_3_label_10_of_10_classes(call, tmp_path: Path, mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros(60_000, np.uint8)
    labels[17] = 10
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    check_one_line(train(call, "mnist", tmp_path / "run", "--root", tmp_path / "root"), "label 10 at position 17")
    (tmp_path / "cli_test_ten.py").write_text("from torch import nn\nnet = nn.Linear(2, 10)\n")
    monkeypatch.chdir(tmp_path)
    np.savez("eleven.npz", x=np.random.default_rng(0).normal(size=(110, 2)), y=np.arange(110) % 11)
    flags = ("--epochs", 2, "--quiet", "--out", "run", "--model", "cli_test_ten:net")
    check_one_line(call("train", "eleven.npz", *flags), "Label 10", "10 outputs")


def test_4_nan_pixel(call, tmp_path: Path, digits_run: Path) -> None:
    x, y = np.zeros((40, 1, 8, 8), np.float32), np.arange(40) % 2
    x[7, 0, 3, 2] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=y)
    check_one_line(train(call, tmp_path / "nan.npz", tmp_path / "run"), "nan.npz", "x[7, 0, 3, 2] is nan")
    np.save(tmp_path / "nan.npy", x)
    check_one_line(call("predict", digits_run, tmp_path / "nan.npy"), "[7, 0, 3, 2] is nan")


def test_5_wrong_channel_count(call, tmp_path: Path, digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "rgb.npy", np.zeros((2, 3, 8, 8), np.float32))
    check_one_line(call("predict", digits_run, tmp_path / "rgb.npy"), "(2, 3, 8, 8)", "expected (N, 1, 8, 8)")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cli_test_grey.py").write_text(
        "from torch import nn\nnet = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))\n"
    )
    np.savez("rgb.npz", x=np.random.default_rng(0).random((40, 3, 8, 8)), y=np.arange(40) % 2)
    said = call("train", "rgb.npz", "--model", "cli_test_grey:net", "--epochs", 1, "--out", "run")
    check_one_line(said, "(2, 3, 8, 8)", "channels")
    assert not (tmp_path / "run").exists()


def test_6_unknown_method(call, tmp_path: Path) -> None:
    check_one_line(train(call, "digits", tmp_path / "run", "--method", "meanfield"), "Did you mean 'mean_field'?")
    check_one_line(train(call, "digist", tmp_path / "run"), "Did you mean 'digits'?")
    said = call("train", "digits", "--model", "lenett", "--out", tmp_path / "run")
    check_one_line(said, "Did you mean 'lenet'?")


def test_7_epochs_minus_one(call, tmp_path: Path) -> None:
    said = call("train", "digits", "--epochs", "-1", "--out", tmp_path / "run")
    check_one_line(said, "--epochs -1", "at least 1")


def test_8_a_checkpoint_of_another_network(call, tmp_path: Path, digits_run: Path) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("mlp:12", "mlp:13"))
    said = call("train", "--resume", run, "--quiet")
    assert said.code == 2
    assert "is of another run. What differs: " in said.err
    assert "layers.0" in said.err
    assert len(said.err.splitlines()) == 1
    assert "Traceback" not in said.err
    last = "checkpoints/model/last.safetensors"
    assert (run / last).read_bytes() == (digits_run / last).read_bytes()
    shutil.copy(digits_run / last, run / "posterior.safetensors")
    check_one_line(call("evaluate", run), "without an entry 'posterity'")
    (run / "posterior.safetensors").write_bytes((digits_run / "posterior.safetensors").read_bytes()[:-9])
    check_one_line(call("evaluate", run), "is damaged: its tensors take")


def test_9_no_write_permission(call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # nothing can be made below a file, not even by root
    check_one_line(call("train", "digits", *TINY, "--out", tmp_path / "file" / "run"), "cannot be written")


# 10, Ctrl-C in epoch 2, is test_interrupt.py


def test_bugs_are_not_the_users_mistakes(call, monkeypatch: pytest.MonkeyPatch) -> None:
    from posterity.cli import data

    monkeypatch.setattr(data, "describe", lambda *a, **k: 1 / 0)
    said = call("data", "digits")
    assert said.code == 1
    assert "--debug" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in call("data", "digits", "--debug").err


def test_priors_that_do_not_fit(call, tmp_path: Path) -> None:
    out = tmp_path / "run"
    check_one_line(train(call, "diabetes", out, "--prior", "flat"), "--prior flat", "--method mle")
    learnt = ("--method.learn-prior", "layer")
    check_one_line(train(call, "diabetes", out, "--prior", "laplace", *learnt), "of a laplace one", "hierarchical")
    check_one_line(
        train(call, "diabetes", out, "--prior", "mixture"), "--prior mixture", "[prior.components]", "--config"
    )
    check_one_line(train(call, "diabetes", out, "--prior", "product"), "--prior product", "[prior.parts]", "--config")


def test_flags_that_contradict_each_other(call, tmp_path: Path, digits_run: Path) -> None:
    check_one_line(call("train", "--resume", digits_run, "--epochs", 3), "--epochs")
    check_one_line(call("train", "digits", "--method", "mle", "--twin", "--out", tmp_path / "r"), "twin")
    check_one_line(call("train", "digits", "--patience", 2, "--validation", 0, "--out", tmp_path / "r"), "--patience")
    check_one_line(call("train", "digits", "--likelihood", "gaussian", "--out", tmp_path / "r"), "classification")
    check_one_line(call("evaluate", digits_run, "--draws", 0), "--draws 0")
    check_one_line(call("evaluate", digits_run, "--data", "diabetes"), "does not fit")
    check_one_line(call("predict", digits_run), "No inputs")


def labelled(path: Path, names: str, rows: int = 60) -> Path:
    lines = [f"{i % 7},{(3 * i) % 5},{names[i % len(names)]}" for i in range(rows)]
    path.write_text("\n".join(["a,b,kind", *lines]) + "\n")
    return path


def test_other_data_are_scored_by_the_names_of_their_classes(call, tmp_path: Path) -> None:
    own = labelled(tmp_path / "own.csv", "abc")
    run = tmp_path / "run"
    assert call("train", own, "--model", "mlp:8", "--epochs", "2", "--out", run, "--quiet").code == 0
    assert "<th>a</th><th>b</th>" in (run / "report.html").read_text(encoding="utf-8")
    strange = call("evaluate", run, "--data", labelled(tmp_path / "strange.csv", "zbc"))
    assert strange.code == 2
    assert "does not know: z" in strange.err
    fewer = labelled(tmp_path / "fewer.csv", "cb")  # in another order, and one is absent
    assert call("evaluate", run, "--data", fewer, "--json").code == 0
    saved = open_run(run)
    dataset = scored_data(saved, str(fewer))
    assert dataset.classes == ("a", "b", "c")
    assert set(dataset.test_targets.tolist()) <= {1, 2}
    assert int(dataset.train_targets[0]) in (1, 2)


def test_pixels_of_another_scale_are_refused(call, digits_run: Path, tmp_path: Path) -> None:
    shape = tuple(open_run(digits_run).data["input_shape"])
    if len(shape) != 3:
        pytest.skip("the digits of this run are rows")
    pixels = np.random.default_rng(0).uniform(0, 1, (3, *shape))
    np.save(tmp_path / "fine.npy", pixels)
    assert call("predict", digits_run, tmp_path / "fine.npy").code == 0
    for name, values in {"wide": 255 * pixels, "below": pixels - 0.5}.items():
        np.save(tmp_path / f"{name}.npy", values)
        said = call("predict", digits_run, tmp_path / f"{name}.npy")
        assert said.code == 2
        assert "floats from 0 to 1" in said.err


@pytest.mark.parametrize("content", ["{", "{}", "[1]"])
def test_a_damaged_finding_is_told_from_a_bug(call, digits_run: Path, content: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    (run / "findings").mkdir()
    (run / "findings" / "ood.json").write_text(content)
    said = call("report", run)
    assert said.code == 2
    assert "ood.json is damaged" in said.err
    assert len(said.err.splitlines()) == 1


def test_an_earlier_finding_is_kept(call, digits_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    for kinds in (["blur"], ["noise"], ["contrast"]):
        assert call("shift", run, "--kinds", *kinds, "--limit", "40").code == 0
    assert call("shift", run, "--kinds", "contrast", "--limit", "40").code == 0  # nothing new
    assert len(list((run / "findings" / "earlier").iterdir())) == 2
    kept = [json.loads((run / "findings" / "earlier" / f"shift-{n}.json").read_text()) for n in (1, 2)]
    assert "blur" in json.dumps(kept[0])
    assert "noise" in json.dumps(kept[1])
    assert "contrast" in (run / "findings" / "shift.json").read_text()


def test_flags_of_a_simulation_choose_nothing(call, digits_run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", np.zeros((3, *open_run(digits_run).data["input_shape"])))
    said = call("acquire", "--run", digits_run, "--pool", tmp_path / "pool.npy", "--scores", "entropy")
    assert said.code == 2
    assert "--score NAME" in said.err


def test_what_exists_is_not_written_over(call, digits_run: Path) -> None:
    before = (digits_run / "posterior.safetensors").read_bytes()
    said = call("prune", digits_run, "--sparsity", "0.5", "--out", digits_run / "posterior.safetensors")
    assert said.code == 2
    assert "exists already" in said.err
    said = call("compare", digits_run, digits_run, "--out", digits_run / "posterior.safetensors")
    assert said.code == 2
    assert ".html" in said.err
    assert (digits_run / "posterior.safetensors").read_bytes() == before
