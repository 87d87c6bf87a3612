"""`posterity data`: which data sets there are, where they were found, and how to get the others."""

from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from posterity.cli.console import Voice, grid
from posterity.cli.flags import Output
from posterity.data import Description, describe, load, names
from posterity.errors import InvalidInput


def data(
    name: str | None = None,
    /,
    *,
    download: Annotated[bool, Parameter(negative="", help="Fetch its files where they are not found.")] = False,
    root: Annotated[Path | None, Parameter(metavar="DIR", help="Folder to look in first, and to download to.")] = None,
    output: Output = Output(),
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
        rows = [[d.name, d.task, _sizes(d), _shape(d), _where(d), d.licence] for d in found]
        voice.table(grid("", ["name", "task", "train / test", "inputs", "found in", "licence"], rows, left=6))
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


def _where(d: Description) -> str:
    return d.location if d.available else "not here"
