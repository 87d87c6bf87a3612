"""Which inputs to label next: scores against their definitions, batches against brute force, the simulated loop."""

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from posterity import InvalidInput
from posterity.decide.acquire import CLASS_SCORES, VALUE_SCORES, choose, ranked, variation_ratio
from posterity.decide.batches import CONFIGURATIONS, greedy_classes, greedy_values, imagined
from posterity.decide.simulate import Plan, Round, labels_needed, simulate
from posterity.predict.predictive import Classification, Regression


def drawn(functions: int, inputs: int, classes: int, seed: int = 0, spread: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(functions, inputs, classes, generator=generator, dtype=torch.float64)).softmax(-1)


def joint_information(probs: Tensor, places: tuple[int, ...]) -> float:
    """I(y_A; θ) = H(y_A) − E_s[Σ_a H(y_a | s)], by summing over all configurations, straight from the definition."""
    functions = len(probs)
    each = torch.ones(functions, 1, dtype=probs.dtype)  # p(y_A | s) of all configurations
    for place in places:
        each = (each[:, :, None] * probs[:, place, None, :]).flatten(1)
    p = each.mean(0)
    joint = -(p * p.log()).sum().item()
    given = -sum((probs[:, a] * probs[:, a].log()).sum(-1).mean().item() for a in places)
    return joint - given


def conditional(probs: Tensor, first: tuple[int, ...], last: int) -> float:
    weights, chances = imagined(probs[:, list(first)])
    mixed = weights @ probs[:, last]
    entropy = -(mixed * mixed.log()).sum(-1)
    return (chances @ entropy).item() + (probs[:, last] * probs[:, last].log()).sum(-1).mean().item()


def test_single_scores_choose_the_largest() -> None:
    predictive = Classification(drawn(7, 30, 4))
    expected = {
        "bald": predictive.mutual_information,
        "entropy": predictive.entropy,
        "least_confidence": -predictive.mean.amax(-1),
        "variation_ratio": variation_ratio(predictive.probs),
    }
    for name, values in expected.items():
        found = ranked(predictive, 5, name)
        torch.testing.assert_close(values[found], values.sort(descending=True).values[:5])
    assert torch.equal(ranked(predictive, 5), ranked(predictive, 5, "bald"))
    single = [joint_information(predictive.probs, (i,)) for i in range(30)]
    assert ranked(predictive, 1).item() == max(range(30), key=single.__getitem__)


def test_random_chooses_each_input_as_often() -> None:
    predictive, counts = Classification(drawn(2, 10, 3)), torch.zeros(10)
    generator, runs = torch.Generator().manual_seed(0), 2000
    for _ in range(runs):
        found = ranked(predictive, 3, "random", generator)
        assert len(set(found.tolist())) == 3
        counts[found] += 1
    assert ((counts - 0.3 * runs).abs() < 4 * (runs * 0.3 * 0.7) ** 0.5).all()


@pytest.mark.parametrize("spread", [2.0, 8.0])  # ordinary configurations, and those that are hardly possible
@pytest.mark.parametrize("places", [(0,), (0, 1), (2, 0, 1), (3, 3)])
def test_imagined_labels_add_up_to_the_joint_information(places: tuple[int, ...], spread: float) -> None:
    probs = drawn(5, 4, 3, spread=spread)
    steps = [conditional(probs, places[:k], places[k]) for k in range(1, len(places))]
    assert joint_information(probs, places[:1]) + sum(steps) == pytest.approx(
        joint_information(probs, places), abs=1e-12
    )


def test_drawn_configurations_estimate_the_same() -> None:
    probs = drawn(6, 8, 4)
    first, last = tuple(range(7)), 7
    assert CONFIGURATIONS < 4**7
    exact = joint_information(probs, (*first, last)) - joint_information(probs, first)
    generator = torch.Generator().manual_seed(0)
    weights, chances = imagined(probs[:, list(first)], generator)
    assert weights.shape == (CONFIGURATIONS, 6)
    mixed = weights @ probs[:, last]
    entropies = -(mixed * mixed.log()).sum(-1)
    given = -(probs[:, last] * probs[:, last].log()).sum(-1).mean()
    error = entropies.std() / CONFIGURATIONS**0.5
    assert abs((chances @ entropies - given).item() - exact) < 4 * error


@pytest.mark.parametrize("n", [2, 3])
def test_the_greedy_batch_is_greedy_and_near_the_best(n: int) -> None:
    for seed in range(5):
        probs = drawn(4, 7, 3, seed)
        found = greedy_classes(probs, n).tolist()
        for k in range(n):
            gains = {j: joint_information(probs, (*found[:k], j)) for j in range(7) if j not in found[:k]}
            assert gains[found[k]] == pytest.approx(max(gains.values()), abs=1e-12)
        best = max(joint_information(probs, places) for places in combinations(range(7), n))
        assert joint_information(probs, tuple(found)) >= (1 - 1 / 2.718281828) * best


def test_copies_are_chosen_by_bald_and_not_by_batches() -> None:
    """Four copies of the most wanted input, and others that functions disagree on in their own way."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.full((64, 8, 2), 0.5, dtype=torch.float64)
    for place in range(8):
        sure = 0.97 if place < 4 else 0.95
        if place == 0 or place >= 4:
            ones = torch.rand(64, generator=generator) < 0.5
        probs[:, place, 0] = torch.where(ones, sure, 1 - sure)
    probs[..., 1] = 1 - probs[..., 0]
    predictive = Classification(probs)
    assert set(ranked(predictive, 4, "bald").tolist()) == {0, 1, 2, 3}
    batch = ranked(predictive, 4, "batch_bald", generator).tolist()
    assert len({max(place, 3) for place in batch}) == 4  # 0, 1, 2, 3 are one input


def test_noise_is_wanted_by_entropy_and_not_by_bald() -> None:
    noisy = torch.full((2, 1, 2), 0.5)
    disputed = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]])
    predictive = Classification(torch.cat([noisy, disputed], 1))
    assert ranked(predictive, 1, "entropy").item() == 0
    assert ranked(predictive, 1, "bald").item() == 1


@pytest.mark.parametrize("seed", range(10))
def test_values_by_variance_and_by_determinant(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(12, 9, generator=generator, dtype=torch.float64)
    noise = torch.rand(9, generator=generator, dtype=torch.float64) + 0.2
    predictive = Regression(means, noise.expand(12, 9))
    assert ranked(predictive, 3).tolist() == means.var(0).argsort(descending=True)[:3].tolist()
    covariance = torch.cov(means.T, correction=0)

    def information(places: list[int]) -> float:
        own = covariance[places][:, places] / (noise[places, None] * noise[None, places]).sqrt()
        return 0.5 * torch.logdet(torch.eye(len(places), dtype=own.dtype) + own).item()

    found = ranked(predictive, 4, "log_determinant").tolist()
    for k in range(4):
        gains = {j: information([*found[:k], j]) for j in range(9) if j not in found[:k]}
        assert gains[found[k]] == pytest.approx(max(gains.values()), abs=1e-10)


def test_functions_that_agree_leave_nothing_to_choose_by() -> None:
    same = torch.ones(5, 4) * torch.arange(4.0)
    assert sorted(greedy_values(same, torch.ones(5, 4), 4).tolist()) == [0, 1, 2, 3]
    assert sorted(greedy_classes(drawn(1, 4, 3), 4).tolist()) == [0, 1, 2, 3]
    certain = torch.eye(3)[torch.tensor([[0, 1], [1, 1]])]  # probabilities of exactly 0
    assert sorted(greedy_classes(certain, 2).tolist()) == [0, 1]


class Nearest:
    """Votes of nearest neighbours: a posterior that is quick to fit, and surer where labels are."""

    def __init__(self, inputs: Tensor, targets: Tensor, classes: int = 2) -> None:
        self.inputs, self.targets, self.classes = inputs, targets, classes

    def predict(self, inputs: Tensor, n: int = 32, *, generator: torch.Generator | None = None) -> Classification:
        near = torch.exp(-torch.cdist(inputs, self.inputs).square())
        votes = near @ nn.functional.one_hot(self.targets, self.classes).float() + 0.1
        noise = torch.randn(n, len(inputs), self.classes, generator=generator)
        return Classification((votes.log() + noise / votes.sum(-1, keepdim=True)).softmax(-1))


def lines(seed: int = 0) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    x = torch.rand(400, 2, generator=torch.Generator().manual_seed(seed)) * 6
    y = (x[:, 0] + 0.5 * x[:, 1] > 4.5).long()
    return (x[:200], y[:200]), (x[200:], y[200:])


@pytest.mark.parametrize("score", ["bald", "random", "batch_bald"])
def test_a_simulation_buys_each_label_once_and_resumes(score: str) -> None:
    pool, test = lines()
    plan = Plan(score, start=5, batch=4, labels=20, draws=8, candidates=50)
    seen: list[tuple[int, int]] = []

    def fit(inputs: Tensor, targets: Tensor, index: int) -> Nearest:
        seen.append((index, len(inputs)))
        return Nearest(inputs, targets)

    whole = list(simulate(fit, pool, test, plan))
    assert seen == [(0, 5), (1, 9), (2, 13), (3, 17), (4, 20)]
    assert [r.labels for r in whole] == [5, 9, 13, 17, 20]
    bought = [place for r in whole for place in r.chosen]
    assert len(set(bought)) == len(bought) == 20
    for stop in range(1, 5):
        seen.clear()
        assert list(simulate(fit, pool, test, plan, whole[:stop])) == whole[stop:]
        assert len(seen) == 5 - stop + 1  # the fit before the stop is made again, to choose by
    other = list(simulate(fit, pool, test, Plan("entropy", 5, 4, 20, 8, 50)))
    assert other[0].chosen == whole[0].chosen
    assert other[0].scores == whole[0].scores


def test_the_targets_of_the_pool_are_not_looked_at_before_they_are_bought() -> None:
    (x, y), test = lines()
    plan = Plan("bald", start=5, batch=5, labels=15)
    whole = list(simulate(lambda a, b, _: Nearest(a, b), (x, y), test, plan))
    bought = [place for r in whole for place in r.chosen]
    spoiled = torch.full_like(y, 99)
    spoiled[bought] = y[bought]
    assert list(simulate(lambda a, b, _: Nearest(a, b), (x, spoiled), test, plan)) == whole


def test_labels_needed() -> None:
    curve = [Round(n, (), {"accuracy": a, "nll": 1 - a}) for n, a in ((10, 0.5), (20, 0.95), (30, 0.9), (40, 0.97))]
    assert [labels_needed(curve, t) for t in (0.5, 0.95, 0.96, 0.99)] == [10, 20, 40, None]
    assert labels_needed(curve, 0.06, "nll") == 20


def test_refusals() -> None:
    predictive = Classification(drawn(2, 5, 3))
    with pytest.raises(InvalidInput, match="score of classes 'bold'.*Did you mean 'bald'"):
        ranked(predictive, 2, "bold")
    values = Regression(torch.zeros(2, 5), torch.ones(2, 5))
    with pytest.raises(InvalidInput, match=f"score of values 'bald'.*{'.*'.join(sorted(VALUE_SCORES))}"):
        ranked(values, 2, "bald")
    with pytest.raises(InvalidInput, match="one label per input"):
        ranked(Regression(torch.zeros(2, 5, 3), torch.ones(2, 5, 3)), 2)
    pool, test = lines()
    for n in (0, 201):
        with pytest.raises(InvalidInput, match=f"{n} inputs were asked for, of a pool of 200"):
            choose(Nearest(*pool), pool[0], n)
    with pytest.raises(InvalidInput, match="needs 300 labels, and the pool has 200"):
        list(simulate(lambda a, b, _: Nearest(a, b), pool, test, Plan("bald", labels=300)))
    for wrong in ({"start": 0}, {"batch": 0}, {"labels": 3}, {"candidates": 5}):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            Plan("bald", **{"batch": 10, **wrong})
    assert "batch_bald" in CLASS_SCORES
