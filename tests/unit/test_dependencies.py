"""What is installed beside the package: the versions that were tested, and no licence that would bind its users."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
COPYLEFT = re.compile(r"\b(A|L)?GPL|General Public License|Server Side Public", re.IGNORECASE)


def installed(name: str, found: dict[str, str] | None = None) -> dict[str, str]:
    """The versions of all that a package needs to run, by name; extras are left out."""
    found = {} if found is None else found
    for text in distribution(name).requires or []:
        needed = Requirement(text)
        own = canonicalize_name(needed.name)
        if own in found or (needed.marker and not needed.marker.evaluate({"extra": ""})):
            continue
        found[own] = distribution(own).version
        installed(own, found)
    return found


def pinned() -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines()]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def test_what_is_installed_is_what_was_tested() -> None:
    """`pip install -c constraints.txt .` installs these versions; a package that is new among them is to be looked at."""
    versions = {name: version.partition("+")[0] for name, version in installed("posterity").items()}
    hardware = {
        name for name in versions if name.startswith(("nvidia-", "cuda-")) or name == "triton"
    }  # torch pins its own
    known = pinned()
    assert {name: version for name, version in versions.items() if name not in hardware} == {
        name: known.get(name, "not in constraints.txt") for name in versions.keys() - hardware
    }


@pytest.mark.parametrize("name", sorted(pinned()))
def test_no_licence_binds_the_users(name: str) -> None:
    try:
        told = distribution(name).metadata
    except PackageNotFoundError:
        pytest.skip("not needed on this platform")
    texts = [told.get("License-Expression") or "", *(told.get_all("Classifier") or [])]
    licences = [text for text in texts if text and (not text.count("::") or text.startswith("License"))]
    assert not [text for text in licences if COPYLEFT.search(text)]
