"""A folder of pictures as a data set: by folders, by parts, by a table; and what is said of what is odd."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from posterity.data import Options, load
from posterity.data.pictures import padded
from posterity.errors import CorruptFile, DataNotFound, InvalidInput

Make = Callable[..., Path]


def picture(path: Path, level: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> None:
    """Write a picture of one level of grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six pictures, each of its own level."""
    for name, base in (("2", 10), ("10", 100)):
        for k in range(6):
            picture(tmp_path / "photos" / name / f"{k}.png", base + k)
    return tmp_path / "photos"


def test_folders_are_classes_in_their_natural_order(photos: Path) -> None:
    found = load(str(photos))
    assert found.classes == ("2", "10")
    assert found.train_inputs.shape == (10, 1, 8, 8)
    assert len(found.test_inputs) == 2
    levels = torch.cat([found.train_inputs, found.test_inputs])[:, 0, 0, 0] * 255
    labels = torch.cat([found.train_targets, found.test_targets])
    assert torch.equal(labels, (levels > 50).long())
    assert found.test_names[0].startswith("2/")


def test_sizes_modes_and_turns_come_to_one_form(photos: Path) -> None:
    picture(photos / "2" / "wide.png", 200, (40, 20))
    picture(photos / "2" / "deep" / "b.JPG", 90, (9, 30), "RGB")
    image = Image.new("RGB", (6, 12), (255, 0, 0))
    turned = image.getexif()
    turned[274] = 6
    image.save(photos / "10" / "turned.jpg", exif=turned)
    found = load(str(photos), image_size=16)
    assert found.train_inputs.shape[1:] == (3, 16, 16)
    every = dict(zip(_names(photos, found), torch.cat([found.train_inputs, found.test_inputs]), strict=True))
    wide, red = every["2/wide.png"], every["10/turned.jpg"]
    assert wide[:, :4].max() == 0
    assert torch.allclose(wide[:, 4:12], torch.full((3, 8, 16), 200 / 255))
    assert red[0, 8].min() > 0.9  # 12 wide and 6 high once it is upright: 16 x 8, its middle row red all along
    assert red[0, :3].max() == 0
    assert found.notes[0].startswith("photos: 15 pictures, in colours, 2 classes (2 8, 10 7); brought to 16 x 16")


def _names(folder: Path, found: object) -> list[str]:
    """Name the training rows, in their order, and the test rows."""
    names = [p.relative_to(folder).as_posix() for c in ("2", "10") for p in sorted((folder / c).rglob("*.*"))]
    return [name for name in names if name not in found.test_names] + list(found.test_names)


def test_large_pictures_are_brought_to_64_pixels(tmp_path: Path) -> None:
    for k in range(6):
        picture(tmp_path / "abc"[k % 2] / f"{k}.png", k, (300, 200))
    assert load(str(tmp_path)).input_shape == (1, 64, 64)


def test_parts_are_taken_as_they_are(photos: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    (whole).mkdir()
    photos.rename(whole / "train")
    picture(whole / "test" / "10" / "a.png", 104)
    picture(whole / "val" / "2" / "b.png", 12)
    found = load(str(whole))
    assert (len(found.train_inputs), len(found.test_inputs)) == (13, 1)
    assert found.test_targets.tolist() == [1]
    assert any("'val' is trained on" in note for note in found.notes)
    assert any("1 pictures of the test part are in the training part" in note for note in found.notes)
    with pytest.raises(InvalidInput, match="split by their folders"):
        load(str(whole), split=1)
    picture(whole / "test" / "11" / "a.png", 1)
    with pytest.raises(InvalidInput, match="11"):
        load(str(whole))


def test_a_table_says_what_pictures_show(tmp_path: Path) -> None:
    for k in range(10):
        picture(tmp_path / "images" / f"p{k}.png", 10 * k)
    rows = [f"p{k}.png,{k},{'even' if k % 2 == 0 else 'odd'}" for k in range(9)]
    (tmp_path / "labels.csv").write_text("file,age,kind\n" + "\n".join(rows) + "\n")
    found = load(str(tmp_path))
    assert found.classes == ("even", "odd")
    assert any("1 pictures that it does not name" in note for note in found.notes)
    ages = load(str(tmp_path), options=Options(target="age"))
    assert ages.task == "regression"
    assert torch.allclose(ages.train_inputs[:, 0, 0, 0] * 25.5, ages.train_targets)
    (tmp_path / "labels.csv").write_text("file,kind\np0.pngx,even\np1.png,odd\n")
    with pytest.raises(DataNotFound, match=r"p0\.pngx"):
        load(str(tmp_path))


@pytest.mark.parametrize("target", ["kind"])
def test_labels_of_folders_need_no_target(photos: Path, target: str) -> None:
    with pytest.raises(InvalidInput, match="Leave it out"):
        load(str(photos), options=Options(target=target))


def test_what_is_no_picture_is_said(photos: Path) -> None:
    (photos / "2" / "a.webp").write_bytes(b"RIFF")
    (photos / "notes.txt").write_text("mine")
    (photos / ".DS_Store").write_text("mine")
    assert "2 files in no class, or no PNG or JPEG (2/a.webp, notes.txt)" in load(str(photos)).notes[1]


def test_all_damaged_pictures_are_named_at_once(photos: Path) -> None:
    (photos / "2" / "0.png").write_bytes(b"no")
    whole = (photos / "10" / "1.png").read_bytes()
    (photos / "10" / "1.png").write_bytes(whole[:-20])
    with pytest.raises(CorruptFile, match=r"2 of 12 pictures.*2/0\.png.*10/1\.png"):
        load(str(photos))


def test_what_contradicts_itself_is_said(photos: Path) -> None:
    (photos / "10" / "0.png").write_bytes((photos / "2" / "0.png").read_bytes())
    assert any("1 pictures are there with several labels" in note for note in load(str(photos)).notes)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda p: [f.unlink() for f in (p / "2").iterdir()], InvalidInput, "holds no PNG or JPEG"),
        (lambda p: [f.unlink() for f in sorted((p / "2").iterdir())[1:]], InvalidInput, "has one picture"),
        (lambda p: [f.unlink() for f in p.rglob("*.png")], DataNotFound, "a folder for each class"),
        (lambda p: (p / "2").rename(p / "10" / "2"), InvalidInput, "there is nothing to learn"),
    ],
)
def test_too_little_is_refused(photos: Path, change: Callable[[Path], object], error: type, match: str) -> None:
    change(photos)
    with pytest.raises(error, match=match):
        load(str(photos))


def test_more_than_memory_is_refused_before_it_is_taken(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posterity.data.folder._memory", lambda: 3 * 12 * 12 * 16**2)
    assert load(str(photos), image_size=16).input_shape == (1, 16, 16)
    with pytest.raises(InvalidInput, match="--image-size 16"):
        load(str(photos), image_size=17)
    with pytest.raises(InvalidInput, match="from 4 to 512"):
        load(str(photos), image_size=2)


def test_padding_is_black_and_keeps_what_fits() -> None:
    image = torch.rand(2, 5, 7)
    assert padded(image, (5, 7), 3) is image
    found = padded(image, (9, 9), 7)
    assert torch.equal(found[:, 2:7, 1:8], image)
    assert np.isclose(found.sum(), image.sum())
