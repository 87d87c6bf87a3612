"""The references that come with the library: whole, converged where they say so, and equal to what their task computes."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import posterity
from posterity import NUTS, CorruptFile, DataNotFound, Engine, InvalidInput
from posterity.metrics.agreement import compare_predictives
from posterity.posteriors.chains import Chains
from posterity.predict.predictive import Classification, Regression
from posterity.references import TASKS, Reference, reference, task
from posterity.references.reference import KEPT

HERE = Path(posterity.__file__).parent / "references"
SHIPPED = sorted(path.stem for path in HERE.glob("*.safetensors"))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_whole_and_small(name: str) -> None:
    found = reference(name)
    assert found.outputs.shape[:3] == (4, KEPT, len(found.inputs))
    assert found.outputs.isfinite().all()
    assert found.facts["diagnosis"]["functions"]["rhat"] < 1.1
    assert found.predictive.mean.shape[0] == len(found.inputs)
    assert sum(path.stat().st_size for path in HERE.glob("*.safetensors")) < 2_000_000
    try:
        probes = task(name).data()[2]
    except DataNotFound:
        pytest.skip(f"the data of '{name}' are not on this machine")
    torch.testing.assert_close(found.inputs, probes)


@pytest.mark.parametrize("name", SHIPPED)
def test_its_two_halves_agree(name: str) -> None:
    found = reference(name)
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        latents = {n: v[part] for n, v in found.latents.items()}
        halves.append(Reference(name, found.inputs, found.outputs[part], latents, {}).predictive)
    agreement = compare_predictives(*halves)
    # Each half has 128 functions, so a std is known to 1/√256 and a mean to 1/√128 of one; chains are correlated: ×2.
    assert 0.75 < agreement.epistemic_std_ratio < 1.33
    if isinstance(halves[0], Classification):
        assert agreement.total_variation < 0.1
    else:
        assert isinstance(halves[0], Regression)
        assert agreement.rmse_of_means < 0.4 * float(halves[0].epistemic.mean().sqrt())


@pytest.fixture(scope="module")
def short() -> Chains:
    own = task("moons")
    found = posterity.fit(
        own.network(),
        own.training(),
        likelihood=own.likelihood,
        prior=own.prior,
        method=NUTS(chains=2, warmup=0, draws=5, max_depth=1),
        engine=Engine(progress=False, device="cpu"),
    )
    assert isinstance(found, Chains)
    return found


def test_a_file_holds_what_the_run_computed(short: Chains, tmp_path: Path) -> None:
    made = Reference.of("moons", short, {"seed": 0})
    made.save(tmp_path / "moons.safetensors")
    found = Reference.load(tmp_path / "moons.safetensors")
    assert (found.name, found.facts) == ("moons", {"chains": 2, "draws": 5, "seed": 0})
    expected = short.predict(found.inputs, 10)
    torch.testing.assert_close(found.predictive.mean, expected.mean, rtol=0, atol=1e-3)  # float16
    torch.testing.assert_close(
        found.outputs.flatten(0, 1).float()[3], _function(short, found.inputs, 3), rtol=1e-3, atol=1e-3
    )


def _function(posterior: Chains, inputs: torch.Tensor, row: int) -> torch.Tensor:
    with torch.no_grad():
        return posterior.network(posterior.thetas[row])(inputs)


def test_latents_are_kept_beside_their_functions(short: Chains) -> None:
    from torch import nn

    from posterity import Gaussian, Normal, Problem

    problem = Problem(nn.Linear(2, 1), Normal(0, 1), Gaussian(), 5).snapshot()
    thetas = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    posterior = Chains(problem, thetas, torch.zeros(2, 6), torch.zeros(2, 6, dtype=torch.int64))
    found = Reference.of("moons", posterior, {})
    torch.testing.assert_close(found.latents["std"], thetas[:, 3].reshape(2, 6))


def test_tasks_are_what_they_say() -> None:
    x, y, probes = task("cubic").data()
    assert (len(x), len(probes)) == (20, 101)
    unit = float(probes[-1]) / 6
    noise = (27 * y - (x[:, 0] / unit) ** 3) / 3  # y = x³ + 3 ε
    assert 0.5 < float(noise.std()) < 1.6  # 20 draws: a std is known to 16 %
    assert asdict(task("digits"))["widths"] == (64, 20, 10)
    assert torch.equal(torch.bincount(task("moons").data()[1]), torch.tensor([50, 50]))
    assert [torch.equal(a, b) for a, b in zip(*(task("moons").network(3).parameters() for _ in range(2)), strict=True)]


def test_the_page_on_diagnoses_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.S):
        short = block.replace("max_depth=6", "max_depth=3")  # of chains whose diagnosis is printed alone
        exec(compile(short, "diagnose.md", "exec"), names)
    assert names["diagnosis"].verdict in capsys.readouterr().out
    assert names["agreement"].top1 > 0.8
    assert names["agreement"].total_variation < 0.3


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'moons'"):
        reference("moon")
    with pytest.raises(InvalidInput, match="no reference file"):
        Reference.load(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(CorruptFile, match="truncated"):
        Reference.load(tmp_path / "x.safetensors")
    assert set(SHIPPED) <= set(TASKS)
