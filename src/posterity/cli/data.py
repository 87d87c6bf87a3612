"""`posterity data`: which data sets there are, where they were found, and how to get the others."""

from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from posterity.cli.console import Voice, grid
from posterity.cli.flags import PLAIN, Output
from posterity.data import Description, describe, load, names
from posterity.errors import InvalidInput


def data(
    name: str | None = None,
    /,
    *,
    download: Annotated[bool, Parameter(negative="", help="Fetch its files where they are not found.")] = False,
    root: Annotated[Path | None, Parameter(metavar="DIR", help="Folder to look in first, and to download to.")] = None,
    output: Output = PLAIN,
) -> None:
    """List the known data sets, or show one.

    Parameters
    ----------
    name
        One of them, to see its details.
    """
    voice = Voice(output)
    if name is None:
        if download:
            raise InvalidInput("Say which data set to download: posterity data mnist --download")
        found = [describe(known, root=root) for known in names()]
        voice.say(_line("name", "task", "train / test", "inputs") + "\n" + "\n".join(_entry(d) for d in found))
        voice.result({"data": [asdict(d) for d in found]})
        return
    describe(name, root=root)
    if download:
        load(name, root=root, download=True)
    found_one = describe(name, root=root)
    voice.table(grid(found_one.title, ["", ""], _details(found_one), left=2))
    voice.result(asdict(found_one))


def _details(d: Description) -> list[list[str]]:
    outputs = f"{d.num_classes} classes" if d.num_classes else "one number"
    rows = [
        ["name", d.name],
        ["task", f"{d.task}, {outputs}"],
        ["train / test", _sizes(d)],
        ["inputs", _shape(d)],
        ["splits", str(d.num_splits)],
        ["found in" if d.available else "comes from", d.location],
        ["licence", d.licence],
        ["citation", d.citation],
    ]
    return rows if d.available else [*rows, ["on this machine", "no"]]


def _sizes(d: Description) -> str:
    return f"{d.sizes[0]:,} / {d.sizes[1]:,}"


def _shape(d: Description) -> str:
    return "×".join(map(str, d.input_shape)) if len(d.input_shape) > 1 else f"{prod(d.input_shape)} columns"


def _line(name: str, task: str, sizes: str, shape: str) -> str:
    return f"{name:<15}{task:<16}{sizes:>16}  {shape}"


def _entry(d: Description) -> str:
    """Write a data set in three lines: paths and licences are too long for columns."""
    where = d.location.replace(str(Path.home()), "~", 1) if d.available else f"not on this machine; from {d.location}"
    return "\n".join((_line(d.name, d.task, _sizes(d), _shape(d)), f"{'':15}{where}", f"{'':15}{d.licence}"))
