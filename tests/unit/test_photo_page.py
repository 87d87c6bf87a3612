"""The page for people with a folder of photos runs as it is printed, but with a quick fit, and says what the commands say."""

import re
import shlex
from pathlib import Path

import matplotlib.pyplot as plt  # noqa: F401  # the report's, before the directory is another one
import pytest

from posterity.cli.app import run
from posterity.report.style import Figure
from tests.drawings import empty

PAGE = (Path(__file__).parents[2] / "docs" / "photos.md").read_text(encoding="utf-8")


def test_my_folder_of_photos_runs_and_says_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    empty(Figure, monkeypatch.setattr)
    names: dict = {}
    made, loaded = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(made, "made", "exec"), names)
    said = ""
    for command in "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)).splitlines():
        quick = ["--epochs", "2"] if "train" in command else []
        assert run([*shlex.split(command)[1:], *quick]) == 0, command
        captured = capsys.readouterr()
        said += captured.out + captured.err
    shown = "\n".join(re.findall(r"```text\n(.*?)```", PAGE, re.S))
    assert [line for line in shown.splitlines() if line.startswith(("photos:", "Tested")) and line not in said] == []
    labels = re.findall(r"[A-Za-z][\w ,%↓↑]*?(?=  )|(?<=  )p$", shown, re.M)
    assert len(labels) > 8
    assert [label for label in labels if label not in said] == []
    exec(compile(loaded, "loaded", "exec"), names)
    assert names["photos"].train_inputs.shape == (320, 3, 32, 32)
