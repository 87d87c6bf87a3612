"""Adapters to other libraries: Python files with `SUBJECTS`, a sequence of `Subject`, that are named on the command line."""

import sys
from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from posterity.conformance.subject import Subject
from posterity.errors import InvalidInput, unknown


def loaded(path: Path) -> dict[str, Subject]:
    """Run an adapter's file and return its subjects by name.

    Raises:
        InvalidInput: where there is no such file, a library that it needs is not installed, or it has no `SUBJECTS`.
    """
    if not path.is_file():
        raise InvalidInput(f"There is no adapter {path}; name a Python file with SUBJECTS.")
    name = f"posterity_adapter_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"The adapter {path} is no Python file; its name ends in .py.")
    module = sys.modules[name] = module_from_spec(spec)  # pickle looks its classes up there
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise InvalidInput(f"The adapter {path} needs a library that cannot be imported: {error}.") from error
    subjects: Any = getattr(module, "SUBJECTS", None)
    if not isinstance(subjects, Sequence) or not all(isinstance(s, Subject) for s in subjects):
        raise InvalidInput(f"The adapter {path} has no SUBJECTS; give it a tuple of posterity.conformance.Subject.")
    return {subject.name: subject for subject in subjects}


def chosen(subjects: Mapping[str, Subject], names: Sequence[str]) -> list[Subject]:
    """Return the subjects of these names, or of these kinds: `laplace` is all of `laplace-…`; no names are all.

    Raises:
        InvalidInput: for a name that is none of them.

    >>> from posterity.conformance.subjects import SUBJECTS
    >>> [s.name for s in chosen(SUBJECTS, ["nuts", "mean_field"])]
    ['mean_field-weight', 'mean_field-local_reparam', 'mean_field-flipout', 'nuts']
    """
    kinds = {name: name.partition("-")[0] for name in subjects}
    for name in names:
        if name not in kinds and name not in kinds.values():
            raise unknown("method", name, {*kinds, *kinds.values()})
    return [s for name, s in subjects.items() if not names or name in names or kinds[name] in names]
