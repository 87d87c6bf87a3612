"""`posterity ood`: sets by name, folder and file, what it keeps, and the section of the report."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image

from posterity.cli.inputs import fitted
from posterity.cli.outside import outside_sets
from posterity.cli.saved import open_run, scored_data
from posterity.data import load
from posterity.data.shift import corruptions, shuffled
from posterity.posteriors.average import Averaging
from posterity.posteriors.ood import ood_from, out_of_distribution
from tests.cli.test_mistakes import check_one_line


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 colour images of 12 × 12 pixels, some of them one level down, and a file that is none."""
    folder = tmp_path_factory.mktemp("images") / "letters"
    (folder / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / ("more" if i % 3 else ".") / f"{i:02}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "colours.npz"
    x = np.random.default_rng(1).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    np.savez(path, x=x, y=np.arange(40) % 4)
    return path


def test_built_in_sets_of_images(call, digits_run: Path, tmp_path: Path) -> None:
    run = Path(copytree(digits_run, tmp_path / "run"))  # the run itself is other tests', too
    said = call("ood", run, "--limit", "60", "--seed", "1", "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    kept = json.loads((run / "findings" / "ood.json").read_text())
    assert kept["images"]["inside"].startswith("data:image/png;base64,")
    saved = open_run(run)
    data = scored_data(saved)
    rows = torch.randperm(360, generator=torch.Generator().manual_seed(1))[:60].sort().values
    inside = data.test_inputs[rows]
    sets = {kind: apply(inside, 5) for kind, apply in corruptions(data, seed=1).items()}
    sets["shuffled pixels"] = shuffled(inside, 1)
    training = data.train_inputs, data.train_targets
    expected = out_of_distribution(saved.posterior, inside, sets, training, saved.twin, Averaging(4, 1))
    found = ood_from(kept)
    assert list(found.counts) == list(sets)
    for name in sets:
        for u, own in expected.scores[name].items():
            assert found.scores[name][u]["auroc"].value == pytest.approx(own["auroc"].value, abs=1e-9)
    assert ood_from(told) == found
    text = (run / "report.html").read_text()
    assert "Does it know what it was not trained on?" in text
    assert "A typical input of digits beside one of rotation." in text


def test_sets_by_folder_and_file(call, digits_run: Path, letters: Path, colours: Path, tmp_path: Path) -> None:
    run = digits_run / "posterior.safetensors"  # a file keeps nothing
    array = tmp_path / "noise.npy"
    np.save(array, np.random.default_rng(0).random((25, 8, 8)))
    against = [word for path in (letters, colours, array) for word in ("--against", path)]
    said = call("ood", run, *against, "--limit", "20", "--quiet")
    assert said.code == 0, said.err
    assert said.err == ""
    for name, count in (("letters", 20), ("colours", 8), ("noise", 20)):
        assert f"against {count} of {name}" in said.out
    assert "max-probability" in said.out
    assert "epistemic" in said.out


def test_other_sets_come_to_the_networks_form(digits_run: Path, letters: Path, colours: Path) -> None:
    saved = open_run(digits_run)
    scaling = saved.scaling
    assert scaling is not None
    found = outside_sets(saved, [str(letters), str(colours)], 1000, 0)
    assert found["letters"].shape == (30, 1, 8, 8)
    test = load(str(colours)).test_inputs
    grey = 0.299 * test[:, :1] + 0.587 * test[:, 1:2] + 0.114 * test[:, 2:]
    expected = scaling.scale_inputs(fitted(grey, saved))
    torch.testing.assert_close(found["colours"], expected, rtol=0, atol=1e-5)
    image = sorted(letters.rglob("*.png"))[0]
    pixels = torch.from_numpy(np.asarray(Image.open(image).convert("L"), np.float32) / 255)
    torch.testing.assert_close(
        found["letters"][0], scaling.scale_inputs(fitted(pixels[None], saved)), rtol=0, atol=1e-5
    )
    digits = outside_sets(saved, ["digits"], 1000, 0)["digits"]
    torch.testing.assert_close(digits, scored_data(saved).test_inputs, rtol=0, atol=1e-5)


def test_a_table_in_its_own_units(call, table_run: Path, table: Path, tmp_path: Path) -> None:
    run = Path(copytree(table_run, tmp_path / "run"))
    far = tmp_path / "far.csv"
    far.write_text("b,a\n" + "\n".join(f"{50 + i},{-100 + i}" for i in range(30)) + "\n")
    said = call("ood", run, "--against", far, "--against", table, "--draws", "16", "--json")
    assert said.code == 0, said.err
    found = ood_from(json.loads(said.out))
    assert found.auroc("far", "epistemic_std") == 1
    assert abs(found.auroc("plant", "epistemic_std") - 0.5) < 0.2  # all rows of the table that the test rows are of
    assert not found.examples
    evaluated = json.loads(call("evaluate", run, "--draws", "16", "--json").out)["model"]["test"]
    assert found.means["inside"]["aleatoric_std"] == pytest.approx(evaluated["aleatoric_std"], rel=1e-4)
    assert "Does it know what it was not trained on?" in (run / "report.html").read_text()
    built_in = json.loads(call("ood", run / "posterior.safetensors", "--draws", "4", "--json").out)
    assert list(built_in["counts"]) == ["noise", "dropout", "scaling", "shuffled columns"]


def test_mistakes_are_one_line(call, tmp_path: Path, digits_run: Path, table_run: Path, letters: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_one_line(call("ood", tmp_path / "nothing"), "There is no run")
    check_one_line(call("ood", digits_run, "--against", "mnits"), "'mnits'", "Did you mean 'mnist'")
    check_one_line(call("ood", digits_run, "--against", tmp_path / "empty"), "there is no image in that folder")
    check_one_line(call("ood", digits_run, "--against", "diabetes"), "10 columns (age, sex, bmi, bp …)", "(1, 8, 8)")
    check_one_line(call("ood", table_run, "--against", "diabetes"), "10 columns", "2 columns (a, b)")
    check_one_line(call("ood", table_run, "--against", letters), "is an image; this network takes inputs of shape (2,)")
    check_one_line(call("ood", digits_run, "--against", letters, "--against", letters), "'letters' is there already")
    check_one_line(call("ood", digits_run, "--limit", "3"), "--limit 3", "at least 20")
