"""Every kind of file that the library reads: small good ones, how they are changed, and how they are read."""

import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from fuzzing import containers, mutators
from fuzzing.seeds import (
    archives,
    calibration,
    checkpoints,
    cifar_files,
    configurations,
    idx_files,
    jpegs,
    network,
    numpy_files,
    pngs,
    posteriors,
    tables,
)
from fuzzing.trial import Content, Target
from posterity.cli import config, inputs
from posterity.cli.directory import RunDirectory, findings, seconds_of
from posterity.cli.merge import merge
from posterity.cli.promises import promises_of
from posterity.cli.saved import Saved
from posterity.data.cifar import load_cifar
from posterity.data.dataset import Dataset, Options
from posterity.data.images import load_images
from posterity.data.locate import Place
from posterity.data.own import load_csv, load_npz
from posterity.data.sets import CIFAR_100, MNIST, TEST_IMAGES, TEST_LABELS
from posterity.posteriors.files import load
from posterity.train import checkpoint

TINY_MNIST = replace(MNIST, sizes=(0, 2), files=(TEST_IMAGES, TEST_LABELS))
TINY_CIFAR = replace(CIFAR_100, sizes=(2, 2))


@cache
def folder() -> Path:
    """Return a folder in memory, where there is one, that goes when the process ends."""
    import atexit

    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="posterity-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def file(name: str, content: bytes) -> Path:
    """Write an input where readers find it."""
    path = folder() / name
    path.write_bytes(content)
    return path


def numbers(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of named tensors, their shapes and kinds."""
    sum = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].detach().contiguous()
        sum.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        sum.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return sum.hexdigest()


def of_dataset(found: Dataset) -> Content:
    parts = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return Content(numbers({name: getattr(found, name) for name in parts}), (found.classes, found.features))


def posterior(content: bytes) -> Content:
    found = load(file("posterior.safetensors", content), network())
    buffers = {f"buffer.{name}": value for name, value in found.problem.network.named_buffers()}
    problem = found.problem
    words = (found.kind, str(problem.prior), str(problem.likelihood), problem.num_data, str(found.provenance))
    return Content(numbers({**found.stored(), **buffers}), words)


def saved_state(content: bytes) -> Content:
    path = file("last.safetensors", content)
    state, streams, record = checkpoint.load(path)
    live = {name: torch.zeros_like(value) for name, value in state.items()}
    checkpoint.restore(live, state, path)
    return Content(numbers({**live, **{f"stream.{name}": value for name, value in streams.items()}}), str(record))


def configuration(content: bytes) -> Content:
    path = file("config.toml", content)
    return Content(str(merge(config.read(path), {}, str(path))))


def finding(content: bytes) -> Content:
    run = folder() / "run"
    (run / "findings").mkdir(parents=True, exist_ok=True)
    (run / "posterior.safetensors").write_bytes(b"posterior")
    (run / "findings" / "calibrate.json").write_bytes(content)
    found = findings(run)
    return Content(str(found), str(promises_of(saved({}, RunDirectory(run)))))


def log(content: bytes) -> Content:
    run = RunDirectory(folder() / "log")
    run.path.mkdir(exist_ok=True)
    run.log.write_bytes(content)
    rows = run.rows("model")
    return Content(str(rows), seconds_of(rows))


def idx(content: bytes) -> Content:
    labels = idx_files()[1]
    files = {TEST_IMAGES: file("images", content), TEST_LABELS: file("labels", labels)}
    return of_dataset(load_images(TINY_MNIST, Place(folder(), files), None, Options()))


def cifar(content: bytes) -> Content:
    files = {"train": file("train", cifar_files()[0]), "test": file("test", content)}
    return of_dataset(load_cifar(TINY_CIFAR, Place(folder(), files), None))


def archive(content: bytes) -> Content:
    return of_dataset(load_npz(file("mine.npz", content), 0, None, Options()))


def saved(data: dict[str, object], directory: RunDirectory | None = None) -> Saved:
    """Stand for a run of which nothing else is looked at."""
    made = object.__new__(Saved)
    for name, value in {"data": data, "directory": directory, "from_run": True}.items():
        object.__setattr__(made, name, value)
    return made


def taken(shape: tuple[int, ...], features: tuple[str, ...] = ()) -> Saved:
    """Stand for a run that takes inputs of a shape."""
    return saved({"input_shape": list(shape), "features": list(features), "name": "mine", "scaling": None})


def array(content: bytes) -> Content:
    return Content(numbers({"x": inputs.read_inputs([file("x.npy", content)], taken((2,)), False).inputs}))


def table(content: bytes) -> Content:
    path = file("mine.csv", content)
    whole = of_dataset(load_csv(path, 0, Options()))
    rows = inputs.read_inputs([path], taken((2,), ("a", "b")), False)
    return Content((whole.values, numbers({"x": rows.inputs})), (whole.words, rows.names))


def picture(suffix: str) -> Callable[[bytes], Content]:
    def read(content: bytes) -> Content:
        path = file(f"x.{suffix}", content)
        colours = [inputs.read_inputs([path], taken((n, 8, 8)), n == 1).inputs for n in (1, 3)]
        return Content(numbers({"one": colours[0], "three": colours[1]}))

    return read


def _gz(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


def _idx() -> Target:
    images = idx_files()[0]
    seeds, guarded = (images, _gz(images)), (False, True)
    zipped = containers.packed(containers.idx, gzip.decompress, _gz)

    def edit(rng, content):
        return (zipped if content.startswith(b"\x1f\x8b") else containers.idx)(rng, content)

    def bomb(rng, content):
        return _gz(images + b"\0" * 50_000_000) if rng.random() < 0.01 else _gz(images + b"\0" * 1000)

    return Target("idx", seeds, idx, (edit, edit, edit, bomb), guarded)


HEADER = containers.safetensors(mutators.tree), containers.safetensors(mutators.literals(mutators.JSON_LITERALS))
SEALED = (*HEADER, containers.metadata, containers.metadata)
TEXT = (mutators.lines, mutators.encoded)
JSON = (mutators.tree, mutators.tree, mutators.literals(mutators.JSON_LITERALS), mutators.encoded)
MAKERS: dict[str, Callable[[], Target]] = {
    "posterior": lambda: Target("posterior", posteriors(), posterior, SEALED, (True,) * len(posteriors()), True),
    "checkpoint": lambda: Target("checkpoint", checkpoints(), saved_state, SEALED, (True,) * len(checkpoints()), True),
    "config": lambda: Target(
        "config",
        configurations(),
        configuration,
        (mutators.literals(mutators.TOML_LITERALS), mutators.literals(mutators.TOML_LITERALS), *TEXT),
        (False,) * len(configurations()),
    ),
    "idx": _idx,
    "npz": lambda: Target("npz", archives(), archive, (containers.zipped(containers.npy),), (True,) * len(archives())),
    "npy": lambda: Target("npy", numpy_files(), array, (containers.npy,), (False,) * len(numpy_files())),
    "csv": lambda: Target(
        "csv",
        tables(),
        table,
        (*[mutators.literals(mutators.CSV_LITERALS, mutators.CELLS)] * 2, *TEXT),
        (False,) * len(tables()),
    ),
    "png": lambda: Target("png", pngs(), picture("png"), (containers.png,), (True,) * len(pngs())),
    "jpeg": lambda: Target("jpeg", jpegs(), picture("jpg"), (containers.jpeg,), (False,) * len(jpegs())),
    "cifar": lambda: Target(
        "cifar", cifar_files()[1:], cifar, (containers.pickled,), (False,) * len(cifar_files()[1:])
    ),
    "findings": lambda: Target("findings", calibration(), finding, JSON, (False,) * len(calibration())),
    "log": lambda: Target(
        "log", (logged(),), log, (mutators.literals(mutators.JSON_LITERALS), *TEXT, mutators.lines), (False,)
    ),
}


def logged() -> bytes:
    rows = [{"run": "model", "epoch": n, "seconds": 0.5 * n, "train_nll": 2.0 / n, "val_nll": None} for n in (1, 2, 3)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
