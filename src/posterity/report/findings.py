"""What later commands found about a run: for each a JSON file in the run's directory, and a section of its report.

A command that finds something adds its name here, and the module whose `section` shows it.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

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
    return tuple(import_module(module).section(findings[name]) for name, module in SECTIONS.items() if name in findings)
