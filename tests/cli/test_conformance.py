"""`posterity conformance`: one table, one exit code, other libraries by a file."""

import json

from tests.cli.test_mistakes import check_one_line

ADAPTER = """
import torch
from posterity.conformance import Inferred, Subject

class Zero(Inferred):
    def draw(self, inputs, n, seed):
        return torch.zeros(n, len(inputs), 1).double() + (len(inputs) if {wrong} else seed) * torch.arange(n)[:, None, None]

SUBJECTS = (Subject("zero", lambda task: Zero()),)
"""


def test_kept_laws_end_with_0(call, tmp_path):
    said = call("conformance", "map", "--laws", "2", "3", "11", "--out", tmp_path / "new" / "table")
    assert said.code == 0, said.err
    assert "map, law 3 (one draw is one function): kept" in said.err
    assert said.out.count("✓") >= 2
    assert "law 2, no KL in its objective: map" in said.out
    assert "| map | n/a | ✓ | ✓ |" in (tmp_path / "new" / "table.md").read_text()
    assert json.loads((tmp_path / "new" / "table.json").read_text())["map"]["11"]["status"] == "kept"


def test_an_adapter_is_judged_and_a_broken_law_ends_with_1(call, tmp_path):
    for wrong, code in ((False, 0), (True, 1)):
        path = tmp_path / f"mine{code}.py"
        path.write_text(ADAPTER.format(wrong=wrong))
        said = call("conformance", "--adapter", path, "--laws", "1", "3", "--json")
        assert said.code == code, said.err
        found = json.loads(said.out)
        assert found["broken"] == code
        assert found["verdicts"]["zero"]["1"]["status"] == "not asked"
        assert found["verdicts"]["zero"]["3"]["status"] == ("broken" if wrong else "kept")


def test_mistakes_are_answered_in_one_line(call, tmp_path):
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "needy.py").write_text("import no_such_library")
    for flags, words in (
        (("nutz",), ("Unknown method 'nutz'", "Did you mean 'nuts'")),
        (("map", "--laws", "15"), ("--laws 15", "1 to 13, 16 to 19")),
        (("map", "--laws", "one"), ("--laws one", "whole numbers")),
        (("--adapter", tmp_path / "none.py"), ("There is no adapter", "none.py")),
        (("--adapter", tmp_path / "empty.py"), ("no SUBJECTS", "empty.py")),
        (("--adapter", tmp_path / "needy.py"), ("cannot be imported", "no_such_library")),
    ):
        check_one_line(call("conformance", *flags), *words)
