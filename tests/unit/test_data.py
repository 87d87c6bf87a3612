"""The known data sets: what is published of them must come out, and nothing else may pass for them."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from posterity import data
from posterity.data.scale import split_rows
from posterity.errors import InvalidInput

HOME = os.environ.get("POSTERITY_DATA", "")


def needs(folder: str) -> pytest.MarkDecorator:
    present = bool(HOME) and (Path(HOME) / folder).is_dir()
    return pytest.mark.skipif(not present, reason=f"POSTERITY_DATA has no {folder}")


UCI = {"boston": 13, "concrete": 8, "naval": 14, "power": 4, "wine": 11}
SIZES = {"boston": 506, "concrete": 1030, "naval": 11934, "power": 9568, "wine": 1599}
FOLDERS = {
    "boston": "bostonHousing",
    "concrete": "concrete",
    "naval": "naval-propulsion-plant",
    "power": "power-plant",
    "wine": "wine-quality-red",
}


def test_digits_are_a_partition_in_proportion_to_the_classes():
    digits = data.load("digits")
    assert (len(digits.train_inputs), len(digits.test_inputs)) == (1437, 360)
    assert digits.train_inputs.dtype == torch.float32
    assert digits.train_targets.dtype == torch.int64
    assert digits.train_inputs.min() == 0
    assert digits.train_inputs.max() == 1
    counts = torch.bincount(torch.cat([digits.train_targets, digits.test_targets]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    share = torch.bincount(digits.test_targets) / counts
    assert (share - 360 / 1797).abs().max() < 1 / 174
    rows = torch.cat([digits.train_inputs, digits.test_inputs]).flatten(1)
    from sklearn.datasets import load_digits

    assert Counter(map(tuple, (rows * 16).int().tolist())) == Counter(
        map(tuple, load_digits().data.astype(int).tolist())
    )


def test_the_split_of_digits_never_changes():
    digits = data.load("digits")
    assert digits.test_targets[:12].tolist() == data.load("digits").test_targets[:12].tolist()
    assert torch.equal(digits.test_inputs, data.load("digits").test_inputs)
    _, test = split_rows(np.zeros(20), num_test=4, seed=0)
    assert test.tolist() == [0, 9, 13, 19]


def test_digits_are_interpolated_to_32_pixels():
    small, large = data.load("digits"), data.load("digits", image_size=32)
    assert large.input_shape == (1, 32, 32)
    assert torch.allclose(large.test_inputs.mean(), small.test_inputs.mean(), atol=1e-3)
    middle = torch.nn.functional.avg_pool2d(large.test_inputs, 4)  # back to 8 x 8: a blurred digit
    stacked = torch.stack([middle.flatten(), small.test_inputs.flatten()])
    assert torch.corrcoef(stacked)[0, 1] > 0.95


def test_diabetes_is_standardised_and_leads_back_to_the_original_units():
    from sklearn.datasets import load_diabetes

    found = data.load("diabetes")
    assert (len(found.train_inputs), len(found.test_inputs)) == (354, 88)
    assert found.train_inputs.mean(0).abs().max() < 1e-5
    assert (found.train_inputs.std(0, correction=0) - 1).abs().max() < 1e-5
    assert abs(found.train_targets.mean()) < 1e-5
    assert abs(found.train_targets.std(correction=0) - 1) < 1e-5
    assert found.scaling is not None
    restored = found.scaling.restore_targets(torch.cat([found.train_targets, found.test_targets]))
    raw = torch.tensor(load_diabetes(scaled=False).target, dtype=torch.float32)
    assert torch.allclose(restored.sort().values, raw.sort().values, atol=1e-3)
    again = found.scaling.scale_targets(restored)
    assert torch.allclose(again, torch.cat([found.train_targets, found.test_targets]), atol=1e-5)


@needs("mnist")
def test_mnist_is_mnist():
    mnist = data.load("mnist")
    assert torch.bincount(mnist.train_targets).tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    ]
    assert torch.bincount(mnist.test_targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert mnist.train_inputs.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert mnist.train_inputs.std().item() == pytest.approx(0.3081, abs=5e-5)
    assert mnist.train_targets[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert len(mnist.source) == 4
    assert all(len(digest) == 64 for digest in mnist.source.values())


@needs("mnist")
def test_mnist_at_32_pixels_is_padded_with_zeros():
    mnist = data.load("mnist", image_size=32)
    assert mnist.input_shape == (1, 32, 32)
    inner = mnist.test_inputs[..., 2:-2, 2:-2]
    assert mnist.test_inputs.sum(dtype=torch.float64) == inner.sum(dtype=torch.float64)
    assert torch.equal(inner, data.load("mnist").test_inputs)


@needs("fashion-mnist")
def test_fashion_mnist_is_fashion_mnist():
    fashion = data.load("fashion-mnist")
    assert torch.bincount(fashion.train_targets).tolist() == [6000] * 10
    assert torch.bincount(fashion.test_targets).tolist() == [1000] * 10
    assert fashion.train_inputs.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert fashion.train_inputs.std().item() == pytest.approx(0.3530, abs=5e-5)
    assert fashion.classes[fashion.train_targets[0]] == "ankle boot"


@needs("notmnist")
def test_notmnist_leaves_flawed_images_out_and_counts_them():
    clean, whole = data.load("notmnist"), data.load("notmnist", options=data.Options(keep_flawed=True))
    assert clean.train_inputs.shape == (0, 1, 28, 28)
    assert len(whole.test_inputs) == 10_000
    assert whole.notes == ()
    assert whole.test_inputs.mean().item() == pytest.approx(0.4266, abs=5e-5)
    assert len(clean.test_inputs) == 10_000 - 141 - 56
    assert "141 all-white images and 56 exact copies" in clean.notes[0]
    rows = clean.test_inputs.flatten(1)
    assert len(torch.unique(rows, dim=0)) == len(rows)
    assert rows.mean(1).max() < 1
    assert torch.bincount(clean.test_targets)[8] == 855


@pytest.mark.parametrize("name", UCI)
@needs("uci-regression")
def test_uci_split_is_a_partition_standardised_by_its_training_rows(name):
    found = data.load(f"uci/{name}", split=0)
    assert len(found.train_inputs) + len(found.test_inputs) == SIZES[name]
    assert found.input_shape == (UCI[name],)
    assert found.train_inputs.mean(0).abs().max() < 1e-5
    assert (found.train_inputs.std(0, correction=0) - 1).abs().max() < 1e-4
    assert abs(found.train_targets.std(correction=0) - 1) < 1e-4
    assert found.scaling is not None
    lines = (Path(HOME) / "uci-regression/UCI_Datasets" / FOLDERS[name] / "data/data.txt").read_text().splitlines()
    column = 16 if name == "naval" else -1
    raw = np.sort([float(line.split()[column]) for line in lines if line.strip()])
    restored = found.scaling.restore_targets(torch.cat([found.train_targets, found.test_targets]).double())
    assert np.abs(np.sort(restored.numpy()) - raw).max() < 1e-5 * np.abs(raw).max()


@needs("uci-regression")
def test_uci_naval_names_its_constant_columns():
    found = data.load("uci/naval", split=4)
    assert found.notes == ("Constant columns left out: column 8, column 11.",)
    assert len(found.features) == 14
    assert "column 8" not in found.features


@needs("uci-regression")
def test_uci_splits_differ_and_cover_all_rows():
    splits = [data.load("uci/boston", split=split) for split in range(20)]
    means = {split.scaling.target_mean for split in splits if split.scaling}
    assert len(means) == 20
    tested = {tuple(row) for split in splits if split.scaling for row in _restored(split)}
    assert len(tested) > 0.8 * 506  # 20 splits of a tenth: 1 − 0.9^20 = 88 % of the rows are tested at least once


def _restored(split):
    rows = split.test_inputs * split.scaling.input_std + split.scaling.input_mean
    return [[f"{value:.3g}" for value in row] for row in rows.tolist()]


def test_stratified_split_keeps_proportions_and_depends_on_its_seed():
    labels = np.array([0] * 70 + [1] * 20 + [2] * 10)
    train, test = split_rows(labels, num_test=20, seed=1)
    assert sorted([*train, *test]) == list(range(100))
    assert np.bincount(labels[test]).tolist() == [14, 4, 2]
    assert test.tolist() != split_rows(labels, num_test=20, seed=2)[1].tolist()


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mnits", {}, "Did you mean 'mnist'"),
        ("uci/concrete", {"split": 20}, "splits 0 to 19"),
        ("uci/concrete", {"split": -1}, "splits 0 to 19"),
        ("digits", {"split": 1}, "split 0 alone"),
        ("diabetes", {"image_size": 32}, "is a table"),
        ("digits", {"image_size": 4}, "expected from 8"),
    ],
)
def test_wrong_arguments_are_refused(name, arguments, message):
    with pytest.raises(InvalidInput, match=message):
        data.load(name, **arguments)


@needs("mnist")
def test_mnist_refuses_other_sizes():
    with pytest.raises(InvalidInput, match="28 or 32"):
        data.load("mnist", image_size=30)


def test_every_set_is_described_as_it_loads():
    for name in data.names():
        described = data.describe(name)
        assert described.licence
        assert described.citation
        if described.available and name not in ("mnist", "fashion-mnist"):
            found = data.load(name, options=data.Options(keep_flawed=True))
            assert (len(found.train_inputs), len(found.test_inputs)) == described.sizes
            assert found.input_shape == described.input_shape
            assert found.num_classes == described.num_classes
            assert found.task == described.task


def test_a_table_in_other_units_has_another_digest(tmp_path: Path) -> None:
    """Its standardised numbers are the same."""
    found = []
    for unit in (1, 2):
        file = tmp_path / str(unit) / "t.csv"
        file.parent.mkdir()
        file.write_text("a,b,y\n" + "".join(f"{unit * i},{i % 3},{i % 5}.5\n" for i in range(20)))
        found.append(data.load(str(file)).digested())
    assert {name for name in found[0] if found[0][name] != found[1][name]} == {"scaling"}
