"""What later commands found about a run: for each a JSON file in the run's directory, and a section of its report.

A command that finds something adds its name here, and the module whose `section` shows it.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from posterity.documents import damaged
from posterity.errors import PosterityError
from posterity.report.section import Section

SECTIONS = {  # in the order of the page
    "diagnosis": "posterity.report.figures_diagnosis",
    "ood": "posterity.report.ood",
    "shift": "posterity.report.shift",
    "calibrate": "posterity.report.calibrate",
    "prune": "posterity.report.pruning",
}


def sections(findings: Mapping[str, Mapping[str, Any]]) -> tuple[Section, ...]:
    """Return the section of each finding that is there, from the values of its file."""
    return tuple(_section(name, findings[name]) for name in SECTIONS if name in findings)


def _section(name: str, values: Mapping[str, Any]) -> Section:
    shown: Section
    try:
        shown = import_module(SECTIONS[name]).section(values)
    except PosterityError:
        raise
    except Exception as error:  # the values are a file's that anybody may have changed, and may be wrong in any way
        reason = f"what it says cannot be shown ({type(error).__name__}: {error})"
        raise damaged(Path("findings") / f"{name}.json", reason, "Remove it, and run what wrote it again") from error
    return shown
