"""Safetensors files are whole or refused, before memory is taken; files of earlier versions are read."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from posterity import tensors
from posterity.documents import parsed
from posterity.errors import CorruptFile, InvalidInput

KEPT = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor([True, False]),
    "c": torch.zeros(0, 4),
    "d": torch.tensor(7),
}


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "a.safetensors"
    tensors.write(found, KEPT, "about", {"x": 1})
    return found


def header_of(path) -> tuple[dict, bytes]:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def rewritten(path, header, data: bytes, size: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if size is None else size).to_bytes(8, "little") + text + data)


def test_equal_content_makes_equal_files(tmp_path: Path) -> None:
    """safetensors writes the texts of a header in any order."""
    values = {"of": 'quotes " and \\ and "a":"b","c', "rows": [1, {"a": None}]}
    found = set()
    for index in range(20):
        path = tmp_path / str(index)
        tensors.write(path, {"x": torch.arange(3.0)}, "about", values)
        assert tensors.read(path, "about")[0] == values
        found.add(path.read_bytes())
    assert len(found) == 1


def test_what_is_written_is_read(path):
    values, found = tensors.read(path, "about")
    assert values == {"x": 1}
    assert all(torch.equal(found[n], KEPT[n]) and found[n].dtype == KEPT[n].dtype for n in KEPT)


def test_a_file_without_a_seal_is_read(path):
    save_file(KEPT, path, {"about": '{"x": 1}'})
    assert tensors.read(path, "about")[0] == {"x": 1}
    save_file(KEPT, path, {"format": "pt"})
    assert tensors.read(path, None)[1].keys() == KEPT.keys()


def test_every_byte_of_the_numbers_and_of_the_text_is_sealed(path):
    raw = path.read_bytes()
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        try:
            values, found = tensors.read(path, "about")
        except CorruptFile:
            continue
        assert values == {"x": 1}
        assert all(torch.equal(found[n], KEPT[n]) for n in KEPT)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [6]},
        {"shape": [2, 4]},
        {"shape": [True, 6]},
        {"shape": [-2, -3]},
        {"shape": [2.0, 3]},
        {"shape": "23"},
        {"shape": [1] * 9999},
        {"dtype": "I32"},
        {"dtype": "X9"},
        {"dtype": ["F32"]},
        {"data_offsets": [0, 1 << 70]},
        {"data_offsets": [0]},
        {"data_offsets": [9, 33]},
        {"more": 1},
        {"shape": [1 << 40, 1 << 40, 0]},
    ],
)
def test_what_a_header_says_of_a_tensor_is_held_against_the_file(path, changes):
    header, data = header_of(path)
    header["a"].update(changes)
    rewritten(path, header, data)
    with pytest.raises(CorruptFile):
        tensors.read(path, "about")


@pytest.mark.parametrize("size", [0, 7, 8, 9, 60])
def test_a_truncated_file_is_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptFile):
        tensors.read(path, "about")


def test_a_longer_file_and_lengths_without_end_are_refused(path):
    header, data = header_of(path)
    for text, rest, size in ((header, data + b"\0", None), (header, data, 7 << 40), (header, data, (1 << 64) - 1)):
        rewritten(path, text, rest, size)
        with pytest.raises(CorruptFile):
            tensors.read(path, "about")


def test_memory_is_not_taken_for_a_file_that_is_not_needed(path):
    header = {"a": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}
    rewritten(path, header, b"")
    os.truncate(path, path.stat().st_size + (1 << 40))  # a tebibyte of nothing

    def refuse(values, entries):
        assert entries["a"].shape == (1 << 38,)
        raise CorruptFile("not mine")

    with pytest.raises(CorruptFile, match="not mine"):
        tensors.read(path, None, refuse)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[]",
            "3",
            "{",
            "[" * 5000,
            '{"a":' * 5000,
            '{"a":' * 80 + "1" + "}" * 80,
            '{"a":1,"a":2}',
            '{"a":"\\ud800"}',
        ),
        *('{"\\udfff":1}', '{"a":' + "9" * 5000 + "}", '{"a":[' + "[]," * 1_200_000 + "1]}"),
        '{"a":"' + "x" * (1 << 25) + '"}',
    ],
    ids=range(12),
)
def test_json_that_is_not_plain_is_refused(text):
    with pytest.raises(CorruptFile) as caught:
        parsed(text, Path("a.json"))
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (
        tmp_path / "pipe",
        tmp_path,
        Path("/dev/zero"),
        tmp_path / "none",
        Path("a\0b"),
        tmp_path / ("x" * 999),
    ):
        with pytest.raises(InvalidInput):
            tensors.read(name, None)


def test_values_that_no_json_holds_are_not_written(tmp_path):
    for wrong in (object(), "\ud800", {1: torch.ones(1)}):
        with pytest.raises(InvalidInput, match="no plain JSON"):
            tensors.write(tmp_path / "a.safetensors", KEPT, "about", {"x": wrong})
    assert not list(tmp_path.iterdir())
