"""Predictions for new inputs: the same as Python's, whatever file they come from."""

import csv
import io
import json
from math import log
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posterity.data import load

COLUMNS = ["input", "class", "probability", "entropy", "mutual_information", "expected_entropy"]


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One test digit as arrays and images; 255/16 grey levels survive PNG to within half a level of 255."""
    folder = tmp_path_factory.mktemp("digit")
    pixels = load("digits").test_inputs[:1].numpy()
    grey = np.round(pixels[0, 0] * 255).astype(np.uint8)
    paths = {
        name: folder / f"{name.replace('_', '.')}" for name in ("a_npy", "b_png", "inv_png", "rgb_png", "deep_png")
    }
    np.save(paths["a_npy"], (grey / 255).astype(np.float32)[None, None])
    Image.fromarray(grey).save(paths["b_png"])
    Image.fromarray(255 - grey).save(paths["inv_png"])
    Image.fromarray(np.stack([grey] * 3, -1)).save(paths["rgb_png"])
    Image.fromarray(grey.astype(np.uint16) * 257).save(paths["deep_png"])
    return paths


def predictions(call, *arguments: object) -> list[dict]:
    said = call("predict", *arguments, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)["predictions"]


def test_every_form_of_one_image_gives_one_prediction(call, digits_run: Path, digit: dict[str, Path]) -> None:
    (array,) = predictions(call, digits_run, digit["a_npy"])
    for name in ("b_png", "rgb_png", "deep_png"):
        (image,) = predictions(call, digits_run, digit[name])
        assert image["probabilities"] == pytest.approx(array["probabilities"], abs=2e-3), name
    (inverted,) = predictions(call, digits_run, digit["inv_png"], "--invert")
    assert inverted["probabilities"] == pytest.approx(array["probabilities"], abs=1e-6)
    (wrong,) = predictions(call, digits_run, digit["inv_png"])
    assert wrong["probabilities"] != pytest.approx(array["probabilities"], abs=1e-3)


def test_the_parts_add_up_and_the_class_is_the_likeliest(call, digits_run: Path, digit: dict[str, Path]) -> None:
    (found,) = predictions(call, digits_run, digit["b_png"], "--draws", 16)
    assert list(found)[:6] == COLUMNS
    p = found["probabilities"]
    assert sum(p.values()) == pytest.approx(1, abs=1e-5)
    assert found["class"] == max(p, key=p.get)
    assert found["probability"] == max(p.values())
    assert found["entropy"] == pytest.approx(-sum(q * log(q) for q in p.values()), abs=1e-5)
    assert found["entropy"] == pytest.approx(found["mutual_information"] + found["expected_entropy"], abs=1e-5)
    assert found["mutual_information"] > 0


def test_larger_images_are_resized_and_kept_in_proportion(call, digits_run: Path, digit: dict, tmp_path: Path) -> None:
    small = Image.open(digit["b_png"])
    small.resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    (a,), (b,) = (predictions(call, digits_run, p) for p in (digit["b_png"], tmp_path / "large.png"))
    assert a["class"] == b["class"]
    assert b["probabilities"] == pytest.approx(a["probabilities"], abs=0.1)
    Image.new("L", (40, 8), 255).save(tmp_path / "wide.png")
    assert len(predictions(call, digits_run, tmp_path / "wide.png")) == 1


def test_table_csv_and_files(call, digits_run: Path, digit: dict[str, Path], tmp_path: Path) -> None:
    said = call("predict", digits_run, digit["b_png"], digit["a_npy"])
    assert all(word in said.out for word in ("class", "probability", "entropy", "epistemic", "aleatoric"))
    rows = list(csv.DictReader(io.StringIO(call("predict", digits_run, digit["b_png"], "--format", "csv").out)))
    assert list(rows[0]) == COLUMNS + [f"p({c})" for c in range(10)]
    said = call("predict", digits_run, digit["b_png"], digit["a_npy"], "--out", tmp_path / "p.csv")
    assert "2 predictions" in said.out
    assert len(list(csv.DictReader((tmp_path / "p.csv").open()))) == 2
    call("predict", digits_run, digit["a_npy"], "--out", tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text())["predictions"][0]["input"].endswith("a.npy:1")


def test_regression_in_original_units_with_columns_in_any_order(call, table_run: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("note,b,a\nx,-4,10\ny,-4,16\n")
    first, second = predictions(call, table_run, tmp_path / "new.csv")
    assert first["mean"] == pytest.approx(1000 + 500 + 80, abs=60)
    assert second["mean"] - first["mean"] == pytest.approx(300, abs=90)
    assert first["std"] ** 2 == pytest.approx(first["epistemic_std"] ** 2 + first["aleatoric_std"] ** 2, rel=1e-4)
    assert first["lower_90"] < first["mean"] < first["upper_90"]
    np.save(tmp_path / "new.npy", np.array([[10.0, -4.0]]))
    assert predictions(call, table_run, tmp_path / "new.npy")[0]["mean"] == pytest.approx(first["mean"], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bad.png", b"no image", "no image that can be read"),
        ("empty.png", b"", "empty"),
        ("bad.npy", b"\x93NUMPY junk", "no .npy array"),
        ("some.doc", b"1", "expected a file of kind"),
        ("t.csv", b"a,b\n1,2\n", "is a table"),
    ],
)
def test_files_that_cannot_be_used(
    call, digits_run: Path, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    said = call("predict", digits_run, tmp_path / name)
    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1), said
    assert words in said.err
    assert name in said.err


def test_a_table_that_lacks_a_column(call, table_run: Path, tmp_path: Path) -> None:
    (tmp_path / "less.csv").write_text("a\n1\n")
    said = call("predict", table_run, tmp_path / "less.csv")
    assert said.code == 2
    assert "lacks b; it has a." in said.err
    (tmp_path / "text.csv").write_text("a,b\n1,high\n")
    assert "column 'b'" in call("predict", table_run, tmp_path / "text.csv").err


def test_outputs_that_contradict(call, digits_run: Path, digit: dict[str, Path], tmp_path: Path) -> None:
    for flags in (
        ("--out", "p.xlsx"),
        ("--out", "p.csv", "--format", "json"),
        ("--format", "cvs"),
        ("--json", "--format", "csv"),
    ):
        said = call("predict", digits_run, digit["b_png"], *flags)
        assert (said.code, said.out) == (2, ""), flags
    (tmp_path / "file").write_text("")
    said = call("predict", digits_run, digit["b_png"], "--out", tmp_path / "file" / "p.csv")
    assert said.code == 2
    assert "cannot be written" in said.err


def test_images_are_scaled_as_in_training_or_left_as_they_are(call, digit: dict[str, Path], tmp_path: Path) -> None:
    """An image that was in the test set is predicted as the test set was, with standardised inputs and without."""
    from posterity.cli.saved import open_run, scored_data
    from posterity.cli.scoring import predict
    from tests.cli.conftest import TINY

    for value in ("true", "false"):
        run = tmp_path / value
        flags = (*TINY, "--data.standardise", value)
        assert call("train", "digits", *flags, "--out", run).code == 0
        saved = open_run(run)
        assert (saved.scaling is None) == (value == "false")
        expected = predict(saved.posterior, scored_data(saved).test_inputs[:1], 4, 0).mean[0].tolist()
        (found,) = predictions(call, run, digit["a_npy"])
        assert list(found["probabilities"].values()) == pytest.approx(expected, abs=2e-3)
