"""Posterior files of earlier versions load, and predict what they did."""

import json
from pathlib import Path

import pytest
import torch

import posterity
from tests.golden.networks import FILES, inputs, network

GOLDEN = Path(__file__).parents[1] / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def drawn(posterior, name):
    return posterior.draw(inputs(name), 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FILES)
def test_a_golden_file_predicts_what_it_did(name, tmp_path):
    posterior = posterity.load(GOLDEN / f"{name}.safetensors", network(name))
    found = drawn(posterior, name)
    torch.testing.assert_close(found, torch.tensor(EXPECTED[name], dtype=found.dtype), rtol=1e-5, atol=1e-6)
    posterior.save(tmp_path / "again.safetensors")
    again = posterity.load(tmp_path / "again.safetensors", network(name))
    assert torch.equal(drawn(again, name), found)
    assert {**again.provenance} == {**posterior.provenance}


def test_the_files_hold_every_family():
    from posterity.posteriors.files import FAMILIES

    ours = {name for name, family in FAMILIES.items() if family.__module__.startswith("posterity.")}
    assert {name for name in ours if any(file.startswith(name) for file in FILES)} == ours
