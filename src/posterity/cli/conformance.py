"""`posterity conformance`: every method, ours or another library's, held to the same laws, in one table."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from posterity.cli.console import Voice
from posterity.cli.directory import replace_json
from posterity.cli.flags import OUTPUT, PLAIN, Output
from posterity.cli.own import METHOD
from posterity.conformance.adapters import chosen, loaded
from posterity.conformance.laws import LAWS, judge
from posterity.conformance.subject import Subject
from posterity.conformance.subjects import SUBJECTS, of_ones_own
from posterity.conformance.table import markdown, notes_of, rich_table, told, values
from posterity.conformance.verdict import Verdict
from posterity.errors import InvalidInput
from posterity.importing import imported, is_code
from posterity.storage import replace_text

SUBJECT = replace(METHOD, fits=lambda value: METHOD.fits(value) or isinstance(value, Subject))
BROKEN = 1  # the exit code where a law is broken


def conformance(
    *methods: str,
    laws: Annotated[
        tuple[str, ...],
        Parameter(negative="", consume_multiple=True, metavar="INT", help="Laws, 1 to 13 and 16 to 19. [all]"),
    ] = (),
    adapter: Annotated[
        tuple[Path, ...],
        Parameter(negative="", metavar="FILE", help="Judge what this file adapts instead; may be repeated. It is run."),
    ] = (),
    out: Annotated[
        Path | None, Parameter(group=OUTPUT, metavar="FILE", help="Write the table to FILE.md and FILE.json, too.")
    ] = None,
    output: Output = PLAIN,
) -> int:
    """Hold methods to the laws and print one table: green where kept, red where broken.

    Exits with 1 where a law is broken.

    Parameters
    ----------
    methods
        nuts, mean_field-flipout, or a kind, as mean_field; or module:callable, a method of your own. [all]
    """
    voice, numbers = Voice(output), _numbers(laws)
    known = _known(adapter) | {name: named(name) for name in methods if is_code(name)}
    subjects = chosen(known, methods)
    rows: dict[str, list[Verdict]] = {}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        rows[subject.name] = []
        for number in numbers:
            verdict = judge(subject, number)
            rows[subject.name].append(verdict)
            if verdict.status in ("kept", "broken"):
                voice.note(told(subject.name, verdict))
        if out is not None:  # after each method: the whole takes minutes, and may be interrupted
            replace_text(out.with_suffix(".md"), markdown(rows))
            replace_json(out.with_suffix(".json"), values(rows))
    voice.table(rich_table(rows))
    broken = [told(name, v) for name, verdicts in rows.items() for v in verdicts if v.failed]
    for line in [*broken, *notes_of(rows)]:
        voice.say(line)
    voice.result({"laws": {str(n): LAWS[n].says for n in numbers}, "verdicts": values(rows), "broken": len(broken)})
    return BROKEN if broken else 0


def _numbers(texts: tuple[str, ...]) -> list[int]:
    for text in texts:
        if not text.isascii() or not text.isdigit() or int(text) not in LAWS:
            raise InvalidInput(f"--laws {text}: must be whole numbers of laws, 1 to 13, 16 to 19.")
    return sorted({int(text) for text in texts}) or list(LAWS)


def named(name: str) -> Subject:
    """Import a method of one's own; a subject is taken as it is."""
    found = imported(SUBJECT, name, {})
    return found if isinstance(found, Subject) else of_ones_own(name, found)


def _known(adapters: tuple[Path, ...]) -> dict[str, Subject]:
    if not adapters:
        return SUBJECTS
    return {name: subject for path in adapters for name, subject in loaded(path).items()}
