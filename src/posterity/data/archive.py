"""NumPy archives (`.npz`), read without pickles."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterity.data.files import corrupt

ZIP_MAGIC = b"PK"


def arrays(content: bytes, path: Path) -> dict[str, NDArray[Any]]:
    """Return an archive's arrays by name; `path` only names it in errors.

    Raises `CorruptFile` where it is no archive, is truncated, or holds Python objects: those would need a pickle, which
    can run any code.

    >>> stream = io.BytesIO()
    >>> np.savez(stream, y=np.arange(3))
    >>> arrays(stream.getvalue(), Path("mine.npz"))
    {'y': array([0, 1, 2])}
    """
    if not content.startswith(ZIP_MAGIC):
        raise corrupt(path, "it is no .npz archive")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError) as error:
        raise corrupt(path, f"it is truncated or damaged ({error})") from error
    except ValueError as error:
        raise corrupt(path, f"an array in it is damaged, or would need a pickle ({error})") from error
