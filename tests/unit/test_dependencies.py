"""What is installed beside the package: the versions that were tested, and no licence that would bind its users."""

import os
import re
import subprocess
import sys
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


CHECKED = """
import warnings
import tests.conftest
from torch import nn
from posterity import HMC, NUTS, Engine, TensorData, fit
from posterity.core.gaussian import softplus
from tests.conformance.table import SHORT, small_classification, small_network
warnings.simplefilter("ignore")
engine, (x, y) = Engine(progress=False, device="cpu"), small_classification()
for name, method in SHORT.items():
    if not name.startswith("ensemble"):  # of the same steps
        fitted = fit(small_network(), TensorData(x, y, 20), method=method, engine=engine)
        fitted.predict(x[:4], 2).scores(y[:4])
for method in (NUTS(chains=1, warmup=4, draws=4, max_depth=3), HMC(chains=1, warmup=4, draws=4, steps=2)):
    fit(nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), (x, y), method=method, engine=engine)
try:
    softplus("a text")
except Exception as error:
    print(type(error).__name__)
"""


def test_every_method_keeps_the_types_of_what_its_steps_call() -> None:
    """Other tests leave these modules unchecked, see tests/conftest.py."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "POSTERITY_CHECKED": "all", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", CHECKED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "BeartypeCallHintParamViolation"
