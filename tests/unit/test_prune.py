"""Pruned posteriors: what is gone, that it stays gone, and what it costs."""

from pathlib import Path

import pytest
import torch
from torch import nn

import posterity
from posterity import Categorical, Gaussian, InvalidInput, Normal, Problem
from posterity.compress.prune import SparsityCurve, SparsityPoint, prune, removed, sparsity, sparsity_curve
from posterity.compress.ranking import importance
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def gaussian(seed: int = 0, where: str | None = None) -> DiagonalGaussian:
    generator = torch.Generator().manual_seed(seed)
    problem = Problem(network(), Normal(0, 1), Categorical(), 10, where).snapshot()
    random = problem.layout.size - problem.coordinates.start
    mean = torch.randn(problem.layout.size, generator=generator)
    return DiagonalGaussian(problem, mean, torch.rand(random, generator=generator) + 0.1)


def drawn(posterior: FunctionPosterior, n: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.stack([posterior.sample(generator) for _ in range(n)])


@pytest.mark.parametrize("by", ["signal_to_noise", "kl", "magnitude"])
@pytest.mark.parametrize("share", [0.0, 0.29, 0.58, 0.99])
def test_the_least_important_are_zero_in_every_draw(by: str, share: float) -> None:
    q = gaussian()
    pruned = prune(q, share, by)
    count = {0.0: 0, 0.29: 14, 0.58: 29, 0.99: 49}[share]
    gone = removed(pruned)
    assert int(gone.sum()) == count
    assert sparsity(pruned) == pytest.approx(count / 50)
    values = importance(q, by)
    assert count == 0 or values[gone].max() < values[~gone].min()
    assert (drawn(pruned)[:, gone] == 0).all()
    assert (drawn(pruned)[:, ~gone] != 0).all()
    assert torch.equal(pruned.loc[~gone], q.loc[~gone])
    assert torch.equal(pruned.std[~gone], q.std[~gone])
    assert sparsity(q) == 0.0
    assert torch.equal(pruned.signal_to_noise()[gone], torch.zeros(count))
    assert torch.equal(pruned.signal_to_noise()[~gone], q.signal_to_noise()[~gone])
    assert pruned.provenance["pruned"] == {"sparsity": share, "by": by, "per_layer": False}


def test_each_layer_loses_its_share() -> None:
    q = gaussian()
    q.loc[:32] *= 100  # one threshold would take the second layer alone
    gone = removed(prune(q, 0.25))
    assert not gone[:32].any()
    layers = removed(prune(q, 0.5, per_layer=True))
    assert (int(layers[:32].sum()), int(layers[32:].sum())) == (16, 9)


def test_what_is_gone_stays_gone() -> None:
    once = prune(gaussian(), 0.6, "magnitude")
    for share, by in ((0.2, "signal_to_noise"), (0.8, "kl")):
        again = prune(once, share, by)
        assert bool((removed(again) | ~removed(once)).all())
        assert sparsity(again) == pytest.approx(max(share, 0.6))


def test_points_and_latents_stay() -> None:
    part = gaussian(where="2")  # θ: the first layer's points, then the second's random weights
    pruned = prune(part, 0.5)
    assert torch.equal(pruned.loc[:32], part.loc[:32])
    assert int(removed(pruned).sum()) == 9
    problem = Problem(network(), Normal(0, 1), Gaussian(), 10).snapshot()
    q = DiagonalGaussian(problem, torch.zeros(51) + 0.01, torch.ones(51))
    kept = prune(q, 0.98)
    assert (kept.loc[-1], kept.std[-1]) == (q.loc[-1], q.std[-1])
    assert sparsity(kept) == 0.98


@pytest.mark.parametrize("family", ["gaussian", "point", "mixture"])
def test_it_survives_a_file(family: str, tmp_path: Path) -> None:
    q, by = gaussian(), "magnitude"
    made = {"gaussian": q, "point": Point(q.problem, q.loc), "mixture": Mixture.of((q, gaussian(1)))}[family]
    pruned = prune(made, 0.8, by)
    pruned.save(tmp_path / "p.safetensors")
    back = posterity.load(tmp_path / "p.safetensors", network())
    assert sparsity(back) == sparsity(pruned) == pytest.approx(0.8)
    x = torch.randn(4, 3)
    draws = [p.draw(x, 6, generator=torch.Generator().manual_seed(0)) for p in (pruned, back)]
    assert torch.equal(*draws)
    assert back.provenance.get("pruned") == pruned.provenance.get("pruned")


def test_members_of_a_mixture_are_pruned_each() -> None:
    members = gaussian(0), gaussian(1)
    pruned = prune(Mixture.of(members), 0.5)
    for own, member in zip(pruned.components, members, strict=True):
        assert torch.equal(removed(own), removed(prune(member, 0.5)))


def test_a_curve_scores_draws_and_the_mean_network() -> None:
    q = gaussian()
    x, y = torch.randn(40, 3), torch.randint(0, 2, (40,))
    curve = sparsity_curve(q, x, y, (0.5, 0.9), draws=8)
    assert [p.sparsity for p in curve.points] == [0.0, 0.5, 0.9]
    for point in curve.points:
        pruned = prune(q, point.sparsity)
        generator = torch.Generator().manual_seed(0)
        assert point.draws == pruned.predict(x, 8, generator=generator).scores(y)
        logits = pruned.network()(x)
        assert point.mean["nll"] == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-5)
        assert point.mean["accuracy"] == pytest.approx((logits.argmax(1) == y).double().mean().item())


def test_the_largest_sparsity_within_a_tolerance() -> None:
    def curve(key: str, values: tuple[float, ...]) -> SparsityCurve:
        points = [SparsityPoint(s, {key: v}, {}) for s, v in zip((0.0, 0.5, 0.9, 0.99), values, strict=True)]
        return SparsityCurve("kl", tuple(points))

    fall = curve("accuracy", (0.990, 0.991, 0.987, 0.95))
    assert [fall.largest(t) for t in (0.0, 0.0029, 0.003, 0.1)] == [0.5, 0.5, 0.9, 0.99]
    rise = curve("rmse", (2.0, 2.01, 2.2, 4.0))
    assert [rise.largest(t) for t in (0.0, 0.005, 0.1, 1.0)] == [0.0, 0.5, 0.9, 0.99]


def test_refusals() -> None:
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InvalidInput, match="expected a share"):
            prune(gaussian(), share)
    samples = Samples(gaussian().problem, torch.zeros(3, 50))
    with pytest.raises(InvalidInput, match="Weights of a Samples cannot be ranked; expected a DiagonalGaussian"):
        prune(samples, 0.5)
    with pytest.raises(InvalidInput, match="Did you mean 'kl'"):
        prune(gaussian(), 0.5, "kL")
