"""Damaged files are refused in one line, and never read as others: posteriors, weights, references, draws, findings, logs."""

import json
import os
import warnings
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import posterity
from posterity import tensors
from posterity.cli.directory import RunDirectory, read_json, replace_finding
from posterity.cli.weights import load_weights
from posterity.errors import CorruptFile, InvalidInput, Mismatch, PosterityError
from posterity.posteriors.files import ENTRY
from posterity.references.reference import Reference, reference
from posterity.report.findings import sections
from posterity.storage import append_text
from posterity.train.mapped import mapped
from tests.damage import EVERY, SEALED, bit_flipped, bytes_changed, changed, cut
from tests.golden.networks import FILES, network

GOLDEN = Path(__file__).parents[1] / "golden"


def content(posterior):
    """Return all that a file holds of a posterior, to be compared."""
    own = {**posterior.stored(), **dict(posterior.problem.network.named_buffers())}
    return repr((posterior, posterior.problem.prior, posterior.provenance)), tensors.digest(own)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_posterior_is_refused_or_the_same(name, tmp_path):
    path, networks = tmp_path / "p.safetensors", network(name)
    golden = (GOLDEN / f"{name}.safetensors").read_bytes()
    posterity.load(GOLDEN / f"{name}.safetensors", networks).save(path)
    raw, whole = path.read_bytes(), content(posterity.load(path, networks))
    for sealed, own in ((True, raw), (False, golden)):
        for damage in EVERY:
            path.write_bytes(damage(own, Random(f"{name}/{damage.__name__}")))
            try:
                with warnings.catch_warnings(action="ignore"):
                    found = posterity.load(path, networks)
            except PosterityError:
                continue
            assert not sealed or damage not in SEALED or content(found) == whole


def resaved(path, name, change):
    """Write a golden file with other tensors and values, sealed as if they were right."""
    values, found = tensors.read(GOLDEN / f"{name}.safetensors", ENTRY)
    found = dict(found)
    change(values, found)
    tensors.write(path, found, ENTRY, values)


def put(key, value):
    return lambda values, found: found.update(
        {key: torch.as_tensor(value, dtype=found[key].dtype).expand_as(found[key])}
    )


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("point", put("posterior.theta", float("nan")), "NaN"),
        ("diagonal_gaussian", put("posterior.std", -1.0), "'std' goes from -1"),
        ("diagonal_gaussian", lambda v, t: t.pop("posterior.std"), "'posterior.std' is absent"),
        ("diagonal_gaussian", lambda v, t: t.update({"posterior.more": torch.ones(1)}), "nothing is to be"),
        ("diagonal_gaussian", lambda v, t: t.update({"posterior.loc": t["posterior.loc"].double()}), "float64"),
        ("low_rank_gaussian", lambda v, t: t.update({"posterior.factor": torch.ones(2, 14)}), "factor"),
        ("full_rank_gaussian", put("posterior.cholesky", 1.0), "not lower triangular"),
        ("samples", lambda v, t: t.update({"posterior.thetas": torch.ones(0, 14)}), "thetas"),
        ("samples_with_statistics", put("posterior.statistics.1.running_var", float("inf")), "infinite"),
        ("chains", put("posterior.divergent", 7.0), "divergent"),
        ("chains", lambda v, t: t.update({"posterior.energies": torch.ones(3, 3)}), "thetas"),
        ("kronecker_gaussian", put("posterior.0.slices", 1 << 40), "slices"),
        ("kronecker_gaussian", put("posterior.0.std", -1.0), "std"),
        ("low_rank_precision_gaussian", put("posterior.shrunk", 2.0), "shrunk"),
        ("dropout", put("posterior.rate.1", 1.0), "rate"),
        ("dropout", lambda v, t: t.update({"posterior.rate.x": torch.zeros((), dtype=torch.float64)}), "rate.x"),
        ("linearised", lambda v, t: t.pop("posterior.link.sampled"), "link"),
        ("mixture", lambda v, t: t.pop("posterior.1.kind.point"), "kind"),
        ("mixture_of_networks", lambda v, t: v.update(components=v["components"][:1]), "is a mixture of 1"),
        ("diagonal_gaussian_informed", put("prior.std", 0.0), "std"),
        ("point", lambda v, t: v.update(num_data="1"), "num_data"),
        ("point", lambda v, t: v.update(num_data=True), "num_data"),
        ("point", lambda v, t: v.update(random=["x"]), "random"),
        ("point", lambda v, t: v.update(dtype="int64"), "dtype"),
        ("point", lambda v, t: v.update(prior={**v["prior"], "std": "1"}), "prior"),
        ("point", lambda v, t: v.update(likelihood=[]), "likelihood"),
        ("point", lambda v, t: v.update(family="Point"), "Unknown family"),
        ("point", lambda v, t: v.update(components=[]), "components"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name, change, message, tmp_path):
    resaved(tmp_path / "p.safetensors", name, change)
    with pytest.raises(PosterityError, match=message) as caught:
        posterity.load(tmp_path / "p.safetensors", network(name))
    assert "p.safetensors" in str(caught.value) or "Unknown" in str(caught.value)


def test_a_posterior_that_makes_no_sense_is_not_written(tmp_path):
    good = posterity.load(GOLDEN / "diagonal_gaussian.safetensors", network("diagonal_gaussian"))
    wrong = type(good)(good.problem, good.loc, -good.std)
    with pytest.raises(InvalidInput, match="cannot be saved: 'std'"):
        wrong.save(tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["x", True, [1.0], None])
def test_a_log_evidence_that_is_no_number_is_refused(value, tmp_path):
    resaved(tmp_path / "p.safetensors", "point", lambda values, found: values.update(log_evidence=value))
    posterior = posterity.load(tmp_path / "p.safetensors", network("point"))
    with pytest.raises(InvalidInput, match="no number"):
        _ = posterior.log_evidence


def test_a_damaged_reference_is_refused(tmp_path):
    path = tmp_path / "r.safetensors"
    good = reference("boston")
    good.save(path)
    raw = path.read_bytes()
    for damage in EVERY:
        for seed in range(3):
            path.write_bytes(damage(raw, Random(seed)))
            try:
                found = Reference.load(path)
            except PosterityError:
                continue
            assert damage not in SEALED or (torch.equal(found.outputs, good.outputs) and found.facts == good.facts)


def test_damaged_weights_are_refused(tmp_path):
    path, own = tmp_path / "w.safetensors", nn.Linear(3, 2)
    save_file(own.state_dict(), path)
    raw = path.read_bytes()
    for damage in (bytes_changed, bit_flipped, cut):
        for seed in range(40):
            path.write_bytes(damage(raw, Random(seed)))
            try:
                load_weights(nn.Linear(3, 2), path)
            except PosterityError:
                continue
            assert damage is not cut


def test_draws_of_another_chain_stay_as_they_are(tmp_path):
    path = tmp_path / "draws.safetensors"
    mapped(path, "draws", (3, 2), torch.float32)[:] = 7
    whole = path.read_bytes()
    with pytest.raises(Mismatch, match="left as it is|left as it was"):
        mapped(path, "draws", (4, 2), torch.float32, again=True)
    assert path.read_bytes() == whole
    for broken in (whole[:-1], whole + b"x", b"", whole[:3] + b"x" + whole[4:]):
        path.write_bytes(broken)
        with pytest.raises(Mismatch):
            mapped(path, "draws", (3, 2), torch.float32, again=True)
        assert path.read_bytes() == broken


def test_draws_are_written_through_no_link(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "draws.safetensors"
    mapped(victim, "draws", (3, 2), torch.float32)[:] = 7
    whole = victim.read_bytes()
    path.symlink_to(victim)
    with pytest.raises(Mismatch, match="link"):
        mapped(path, "draws", (3, 2), torch.float32, again=True)
    mapped(path, "draws", (3, 2), torch.float32)[:] = 1
    assert victim.read_bytes() == whole
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PosterityError):
        mapped(path, "draws", (3, 2), torch.float32, again=True)


def test_damaged_findings_are_refused(tmp_path):
    file = tmp_path / "f.json"
    values = {"promises": {"level": 0.9, "by": ["a", 1]}, "test": [1.5, None], "x": float("nan")}
    replace_finding(file, values)
    whole, raw = read_json(file), file.read_bytes()
    assert whole == {**values, "x": None}
    for seed in range(300):
        file.write_bytes(bytes_changed(raw, Random(seed)))
        try:
            assert read_json(file) == whole
        except CorruptFile:
            continue


@pytest.mark.parametrize("name", ["diagnosis", "ood", "shift", "calibrate", "prune"])
def test_a_finding_that_cannot_be_shown_is_named(name):
    for values in ({"a": 1}, {"models": 3}, {"curves": {}, "data": None}, {"promises": {}, "test": []}):
        with pytest.raises(CorruptFile, match=rf"findings.{name}\.json .*Remove it"):
            sections({name: values})


def test_damaged_logs_are_refused(tmp_path):
    directory = RunDirectory(tmp_path)
    append = directory.on_epoch("model")
    for epoch in (1, 2):
        append("model", {"epoch": epoch, "nll": 1.5, "seconds": 0.5, "validation": {"nll": float("nan")}})
    whole, raw = directory.rows("model"), directory.log.read_bytes()
    assert [row["epoch"] for row in whole] == [1, 2]
    for seed in range(300):
        directory.log.write_bytes(bit_flipped(raw, Random(seed)))
        try:
            assert directory.rows("model") in (whole, [])
        except CorruptFile:
            continue
    row = {"run": "model", "epoch": 1, "nll": 1.5, "seconds": 0.5}
    for wrong in (
        {**row, "nll": "1.5"},
        {**row, "epoch": 1.5},
        {**row, "seconds": None},
        {"run": "model"},
        {**row, "run": 1},
    ):
        directory.log.write_text(json.dumps(wrong) + "\n")
        with pytest.raises(CorruptFile, match="train it again"):
            directory.rows("model")
    for text in ('{"run":"model","epoch":1,"seconds":1e999}', "[" * 9999, "{}", "[]", "\xff"):
        directory.log.write_text(text + "\n")
        with pytest.raises(CorruptFile):
            directory.rows("model")
    directory.log.write_text("")
    append_text(directory.log, json.dumps(row) + "\n")  # of an earlier version
    assert directory.rows("model") == [row]


def test_values_are_changed_in_many_ways():
    assert len({json.dumps(changed({"a": [1, {"b": 2.5}]}, Random(seed))) for seed in range(99)}) > 30
