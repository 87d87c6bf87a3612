"""A posterior of draws: which of them are used, and what they say."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

import posterity
from posterity import (
    SGHMC,
    SGLD,
    CorruptFile,
    Cyclical,
    Engine,
    Flat,
    Gaussian,
    Hierarchical,
    InvalidInput,
    Normal,
    Problem,
)
from posterity.model.potential import Potential
from posterity.posteriors.samples import Samples

X = torch.linspace(-1, 1, 12)[:, None]


def samples(k: int, likelihood: posterity.Likelihood | None = None) -> Samples:
    """Draw k's slope is k, so that an output says which function it came from."""
    problem = Problem(nn.Linear(1, 1, bias=False), Normal(0, 1), likelihood or Gaussian(std=0.1), 12).snapshot()
    thetas = torch.arange(float(k))[:, None].repeat(1, problem.layout.size)
    return Samples(problem, thetas)


def chosen(posterior: Samples, n: int, seed: int) -> list[int]:
    outputs = posterior.draw(torch.ones(1, 1), n, generator=torch.Generator().manual_seed(seed))
    return [int(v) for v in outputs.flatten()]


@pytest.mark.parametrize(("k", "n"), [(10, 1), (10, 3), (10, 7), (10, 10), (7, 4), (3, 8), (4, 12)])
def test_draws_are_spread_evenly(k: int, n: int) -> None:
    posterior = samples(k)
    for seed in range(20):
        picked = chosen(posterior, n, seed)
        counts = Counter(picked)
        assert picked == sorted(picked)
        assert max(counts.values()) == -(-n // k)
        assert n < k or min(counts[i] for i in range(k)) == n // k
        gaps = [b - a for a, b in pairwise(picked)]
        assert all(g in (k // n, -(-k // n)) for g in gaps)


def test_every_draw_is_as_likely_as_any_other() -> None:
    posterior, runs = samples(5), 4000
    counts = Counter(i for seed in range(runs) for i in chosen(posterior, 2, seed))
    expected = runs * 2 / 5
    assert all(abs(counts[i] - expected) < 4 * (runs * 0.4 * 0.6) ** 0.5 for i in range(5))


def test_a_prediction_uses_each_draw_once_at_most() -> None:
    posterior = samples(6)
    assert posterior.predict(X, 100).means.shape[0] == 6
    torch.testing.assert_close(posterior.predict(X, 100).mean, 2.5 * X[:, 0])
    assert posterior.predict(X, 4).means.shape[0] == 4
    torch.testing.assert_close(posterior.mean, torch.tensor([2.5]))
    assert {float(posterior.sample(torch.Generator().manual_seed(s))) for s in range(60)} == set(map(float, range(6)))


def test_latents_come_from_the_draws_in_natural_units() -> None:
    posterior = samples(4, Gaussian())
    drawn = posterior.latent_draws(4)["likelihood.std"].flatten()
    natural = posterior.problem.coordinates.latents["likelihood.std"].natural
    torch.testing.assert_close(drawn, natural(torch.arange(4.0)))
    torch.testing.assert_close(posterior.latents["likelihood.std"].mean, drawn.mean())  # 1000 is a multiple of 4
    predicted = posterior.predict(X, 4)
    torch.testing.assert_close(predicted.aleatoric, drawn.square().mean().expand(12))
    assert samples(4).latent_draws(4) == {}


@pytest.mark.parametrize(
    ("prior", "where"),
    [
        (Normal(0.3, 0.5), None),
        (Normal(0, {"*.bias": 2.0, "*": 0.5}), None),
        (Normal(0, 0.4), "2"),
        (posterity.StudentT(3.0), None),
        (Hierarchical(), None),
        (Hierarchical(centered=False), None),
        (Hierarchical(per="layer", centered=False), "2"),
    ],
)
@pytest.mark.parametrize("std", [None, 0.3])
def test_gradient_of_the_potential_is_that_of_the_log_joint(prior: posterity.Prior, where: object, std: float) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 4), nn.LayerNorm(4), nn.Linear(4, 1)).double()
    problem = Problem(network, prior, Gaussian(std=std), 40, where)
    batch = X.double(), X[:, 0].double().sin()
    theta = problem.theta() + 0.1 * torch.randn(problem.layout.size, dtype=torch.float64)
    leaf = theta.clone().requires_grad_()
    (exact,) = torch.autograd.grad(problem.log_joint(leaf, batch), [leaf])
    out = torch.empty_like(theta)
    nll, _ = Potential(problem).gradient(theta, batch, out)
    torch.testing.assert_close(out, -exact / 40)
    with problem.bound(theta):
        torch.testing.assert_close(nll, problem.nll(batch)[0].detach())


CPU = Engine(progress=False, device="cpu")


def fit(method: object, prior: posterity.Prior | None = None, engine: Engine = CPU) -> Samples:
    """12 data in one batch: an epoch is a step."""
    torch.manual_seed(0)
    posterior = posterity.fit(
        nn.Linear(1, 1),
        (X, X[:, 0]),
        likelihood=Gaussian(std=0.1),
        prior=prior,
        method=method,
        engine=engine,
    )
    assert isinstance(posterior, Samples)
    return posterior


@pytest.mark.parametrize(
    ("method", "prior", "message"),
    [
        (SGLD(epochs=10, draws=6), None, "6 draws were asked of 5 sampling steps"),
        (Cyclical(SGLD(epochs=10, draws=6), 2, 0.5), None, "6 draws were asked of 4 sampling steps"),
        (SGHMC(epochs=20, draws=10, max_bytes=79), None, "10 draws of 2 numbers need 80 bytes; .* which holds 9"),
        (SGLD(epochs=20, draws=10), Flat(), "flat prior"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_the_first_step(method, prior, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        fit(method, prior)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGLD(lr=0.0),
        lambda: SGLD(burn_in=1.0),
        lambda: SGLD(schedule="cosin"),
        lambda: SGLD(preconditioner="rmsprop", burn_in=0.0),
        lambda: SGHMC(friction=0.0),
        lambda: SGHMC(friction=0.1, gradient_noise=0.2),
        lambda: SGHMC(friction=0.1, gradient_noise=0.05, temperature=0.1),
        lambda: Cyclical(SGLD(schedule="cosine")),
        lambda: Cyclical(SGLD(preconditioner="rmsprop"), exploration=0.0),
        lambda: Cyclical(cycles=0),
    ],
)
def test_settings_that_make_no_chain_are_refused(make) -> None:
    with pytest.raises(InvalidInput, match=r"^(SGLD|SGHMC|Cyclical)(\(|:)"):
        make()


def test_exactly_what_was_asked_for_is_kept_and_a_budget_that_fits_is_enough() -> None:
    for method, draws in (
        (SGHMC(epochs=20, draws=10, max_bytes=80), 10),
        (Cyclical(SGLD(epochs=10, draws=4), 2, 0.5), 4),
    ):
        kept = fit(method).thetas
        assert len(kept) == draws == len(kept.unique(dim=0))


def test_draws_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    for index, method in enumerate((SGHMC(epochs=20, draws=10), Cyclical(SGLD(epochs=10, draws=4), 2, 0.5))):
        folder = tmp_path / str(index)
        expected = fit(method).thetas
        inner = replace(method.method, on_disk=True) if isinstance(method, Cyclical) else None
        own = replace(method, on_disk=True) if inner is None else replace(method, method=inner)
        found = fit(own, engine=replace(CPU, directory=folder))
        assert torch.equal(found.thetas, expected)
        assert torch.equal(load_file(folder / "draws.safetensors")["draws"], expected)
        with safe_open(folder / "last.safetensors", "pt") as checkpoint:
            assert "state.draws" not in checkpoint.keys()  # noqa: SIM118  # not a mapping
        found.save(tmp_path / "p.safetensors")
        assert torch.equal(posterity.load(tmp_path / "p.safetensors", nn.Linear(1, 1)).thetas, expected)


def test_a_file_of_draws_that_was_changed_or_lost_is_missed(tmp_path: Path) -> None:
    engine = replace(CPU, directory=tmp_path)
    method = SGHMC(epochs=20, draws=10, on_disk=True)
    expected = fit(method, engine=engine).thetas.clone()
    again = replace(engine, resume=True)
    assert torch.equal(fit(method, engine=again).thetas, expected)
    draws = tmp_path / "draws.safetensors"
    content = bytearray(draws.read_bytes())
    content[-5] ^= 1  # one bit of the last draw
    draws.write_bytes(content)
    with pytest.raises(CorruptFile, match="counts 10 draws"):
        fit(method, engine=again)
    draws.unlink()
    with pytest.raises(CorruptFile, match="counts 10 draws"):
        fit(method, engine=again)


@pytest.mark.parametrize("draws", [10, 4])
def test_another_run_in_the_same_folder_leaves_an_earlier_posterior_as_it_was(draws: int, tmp_path: Path) -> None:
    engine = replace(CPU, directory=tmp_path)
    first = fit(SGHMC(epochs=20, draws=10, on_disk=True), engine=engine)
    kept = first.thetas.clone()
    second = fit(SGHMC(epochs=20, draws=draws, on_disk=True), engine=replace(engine, seed=1))
    assert torch.equal(first.thetas, kept)
    assert not torch.equal(second.thetas[:4], kept[:4])


def test_draws_on_disk_need_a_folder_and_space(tmp_path: Path) -> None:
    method = SGHMC(epochs=20, draws=10, on_disk=True)
    with pytest.raises(InvalidInput, match="no folder for a file of draws"):
        fit(method)
    engine = replace(CPU, directory=tmp_path)
    with pytest.raises(InvalidInput, match=r"Cannot keep .* bytes .* Choose another folder, or free some space"):
        engine.mapped("draws", torch.zeros(2), 2**50)
    assert list(tmp_path.iterdir()) == []


def test_validation_does_not_cut_the_chain(tmp_path: Path) -> None:
    """The last epoch is taken, whatever its score, and the file holds all draws."""
    data = posterity.TensorData(X, X[:, 0], 12, (X, X[:, 0]))
    rows: list[dict] = []
    engine = Engine(progress=False, device="cpu", on_epoch=lambda name, row: rows.append(row))
    method = SGLD(epochs=20, draws=10, lr=0.001)
    posterior = posterity.fit(nn.Linear(1, 1), data, likelihood=Gaussian(std=0.1), method=method, engine=engine)
    assert len({tuple(theta.tolist()) for theta in posterior.thetas}) == 10
    assert all("nll" in row["validation"] for row in rows)
    posterior.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", nn.Linear(1, 1))
    assert torch.equal(loaded.tensors()["thetas"], posterior.thetas)


def test_a_temperature_of_zero_is_gradient_descent() -> None:
    """Without noise the draws come to the MAP, which is known; with a cold likelihood to that of maximum likelihood."""
    design = torch.cat([X, torch.ones_like(X)], 1).double()
    for temperatures, prior in (({"joint_temperature": 0.0}, 1 / 0.25), ({"temperature": 0.0}, 0.0)):
        posterior = fit(SGLD(epochs=600, draws=2, lr=0.01, **temperatures), Normal(0, 0.5))
        precision = design.T @ design / 0.01 + torch.eye(2).double() * prior
        exact: Tensor = torch.linalg.solve(precision, design.T @ X[:, 0].double() / 0.01)
        torch.testing.assert_close(posterior.thetas[1].double(), exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", [SGLD(epochs=4, draws=2), SGHMC(epochs=4, draws=2)])
def test_autocast_keeps_the_chain_in_float32(method: SGLD | SGHMC) -> None:
    engine = Engine(progress=False, device="cpu", precision="bfloat16")
    posterior = posterity.fit(nn.Linear(1, 2), (X, (X[:, 0] > 0).long()), method=method, engine=engine)
    thetas = posterior.tensors()["thetas"]
    assert thetas.dtype == torch.float32
    assert thetas.isfinite().all()
    assert (thetas != thetas.bfloat16().float()).any()  # not rounded on the way
