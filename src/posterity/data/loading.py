"""Loading by name: the one way in to every data set, known or the user's own."""

from dataclasses import dataclass, replace
from os.path import isdir
from pathlib import Path

from posterity.data.cifar import load_cifar
from posterity.data.dataset import Dataset, Options, Reader, Task
from posterity.data.download import download as fetch_files
from posterity.data.embedded import load_diabetes, load_digits
from posterity.data.folder import load_folder
from posterity.data.images import load_images
from posterity.data.locate import Place, cache_folder, locate
from posterity.data.own import SUFFIXES, WORKBOOKS, load_csv, load_npz
from posterity.data.sets import SETS, UCI_SPLITS, Known
from posterity.data.uci import load_uci, split_files
from posterity.errors import CorruptFile, DataNotFound, InvalidInput, unknown

DEFAULTS = Options()
FLAGS = ("target", "drop", "keep", "test", "split_by")  # the others are --data.NAME


@dataclass(frozen=True)
class Description:
    """What a person wants to know of a data set before loading it."""

    name: str
    title: str
    task: Task
    sizes: tuple[int, int]  # rows of the training and the test part
    input_shape: tuple[int, ...]
    num_classes: int  # 0 for regression
    num_splits: int
    location: str  # where it was found on this machine, or where its files come from
    available: bool
    licence: str
    citation: str


def load(
    name: str,
    *,
    root: Path | str | None = None,
    split: int = 0,
    image_size: int | None = None,
    download: bool = False,
    options: Options = DEFAULTS,
) -> Dataset:
    """Load a known data set by name (see `names`), or your own `.npz` or text table (`options.table`) by its path.

    `root` is looked at first, then `$POSTERITY_DATA`, the own cache, and the places of torchvision and Keras. `split`
    chooses one of the 20 published splits of a UCI set, and is the seed of the split of your own file. `image_size` is
    in pixels: 32 pads MNIST-like images with zeros; `digits` and CIFAR are interpolated to any size. `download` fetches
    MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 where they are not found, into `root` or the own cache.

    Raises `DataNotFound` (with every place looked at), `CorruptFile` (with the file, and the line where there is one)
    and `InvalidInput`.

    >>> load("diabetes")
    Dataset('diabetes', regression, 354 train, 88 test, inputs (10,))
    >>> load("digits", image_size=32).input_shape
    (1, 32, 32)
    """
    known = SETS.get(name.lower())
    if known is None:
        return _load_own(name, split, image_size, options)
    _check(known, split, image_size)
    _refuse_flags(options, f"'{known.name}' is published with its split, inputs and targets")
    if known.kind == "embedded":
        return load_diabetes() if known.name == "diabetes" else load_digits(image_size)
    files, folder = _files(known, split), _folder(root)
    place = _place(known, files, folder, options.progress) if download else locate(known, files, folder)
    try:
        if known.kind == "uci":
            return load_uci(known, place, split)
        if known.kind == "cifar":
            return load_cifar(known, place, image_size)
        return load_images(known, place, image_size, options)
    except CorruptFile as error:
        advice = f"posterity data {known.name} --download" if known.mirror else f"it comes from {known.origin}"
        raise CorruptFile(f"{error} Remove the file and get it anew: {advice}") from error


def names() -> tuple[str, ...]:
    """Return the names of the known data sets.

    >>> names()[:3]
    ('digits', 'diabetes', 'mnist')
    """
    return tuple(SETS)


def describe(name: str, *, root: Path | str | None = None) -> Description:
    """Say what a known data set is and whether its files are on this machine. Raises `InvalidInput` (unknown name).

    >>> digits = describe("digits")
    >>> digits.sizes, digits.num_classes, digits.available
    ((1437, 360), 10, True)
    """
    known = SETS.get(name.lower())
    if known is None:
        raise unknown("data set", name, SETS)
    location, available = known.origin, True
    if known.kind != "embedded":
        try:
            location = str(locate(known, _files(known, 0), _folder(root)).folder)
        except DataNotFound:
            available = False
    return Description(
        name=known.name,
        title=known.title,
        task=known.task,
        sizes=known.sizes,
        input_shape=known.input_shape,
        num_classes=len(known.classes),
        num_splits=UCI_SPLITS if known.kind == "uci" else 1,
        location=location,
        available=available,
        licence=known.licence,
        citation=known.citation,
    )


def _check(known: Known, split: int, image_size: int | None) -> None:
    last = UCI_SPLITS - 1 if known.kind == "uci" else 0
    if not 0 <= split <= last:
        choices = f"splits 0 to {last}" if last else "split 0 alone"
        raise InvalidInput(f"split={split}: '{known.name}' has {choices}.")
    if len(known.input_shape) == 1 and image_size is not None:
        raise InvalidInput(f"image_size={image_size}: '{known.name}' is a table, not images.")


def _refuse_flags(options: Options, why: str) -> None:
    """Refuse what is said of the columns of a table where there is none: it would be passed over in silence."""
    given = {"target": options.target, **vars(options.table)}
    usual = {"target": None, **vars(Reader())}
    if named := next((name for name in usual if given[name] != usual[name] and name != "form"), None):
        flag = named.replace("_", "-") if named in FLAGS else f"data.{named}"
        raise InvalidInput(f"--{flag}: {why}. Leave it out.")


def _folder(root: Path | str | None) -> Path | None:
    return None if root is None else Path(root).expanduser()


def _load_own(name: str, split: int, image_size: int | None, options: Options) -> Dataset:
    path = Path(name).expanduser()
    if isdir(path):
        _refuse_flags(replace(options, target=None), f"'{path}' is a folder of pictures")
        return load_folder(path, split, image_size, options)
    if path.suffix.lower() in WORKBOOKS:
        raise InvalidInput(f"'{path}' is a workbook of an office program: save its sheet as CSV.")
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidInput(
            f"{unknown('data set', name, SETS)} Or the path of a {', '.join(SUFFIXES)} file, or of a folder of pictures."
        )
    if split < 0:
        raise InvalidInput(f"split={split}: the seed of a split is 0 or larger.")
    if path.suffix.lower() == ".npz":
        _refuse_flags(options, f"the columns of '{path}' have no names")
        return load_npz(path, split, image_size, options)
    if image_size is not None:
        raise InvalidInput(f"image_size={image_size}: '{path}' is a table, not images.")
    return load_csv(path, split, options)


def _files(known: Known, split: int) -> tuple[str, ...]:
    return known.files + (split_files(split) if known.kind == "uci" else ())


def _place(known: Known, files: tuple[str, ...], root: Path | None, progress: bool | None) -> Place:
    """Locate the files, fetching them first where they are nowhere."""
    base = root if root is not None else cache_folder()
    try:
        return locate(known, files, root if root is None or root.is_dir() else None)
    except DataNotFound:
        if not known.mirror:
            raise
    fetch_files(known, base / known.folders[0], progress=progress)
    return locate(known, files, base)
