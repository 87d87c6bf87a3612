"""How unusual an input is: measures as defined, p-values that are uniform, distances by brute force."""

from math import log

import pytest
import torch
from torch import Generator

from posterity import InvalidInput
from posterity.decide import neighbour_distance, p_value, uncertainty
from posterity.predict.predictive import Classification, Regression


def test_p_values_of_exchangeable_scores_are_uniform_exactly() -> None:
    """Of n + 1 distinct scores each is the new one as likely as any other: every rank comes once."""
    scores = torch.randn(20, generator=Generator().manual_seed(0))
    found = torch.cat([p_value(scores[i : i + 1], torch.cat([scores[:i], scores[i + 1 :]])) for i in range(20)])
    assert found.sort().values.tolist() == pytest.approx([(i + 1) / 20 for i in range(20)])


def test_p_values_of_equal_scores_are_never_too_small() -> None:
    scores = torch.tensor([0.0] * 5 + [1.0] * 3 + [2.0] * 2)
    found = torch.cat([p_value(scores[i : i + 1], torch.cat([scores[:i], scores[i + 1 :]])) for i in range(10)])
    assert sorted(set(found.tolist())) == pytest.approx([0.2, 0.5, 1.0])
    for level in found.tolist():
        assert (found <= level).double().mean() <= level + 1e-12


def test_p_values_count_what_is_at_least_as_unusual() -> None:
    usual = torch.tensor([3.0, 1.0, 2.0])
    assert p_value(torch.tensor([0.5, 2.0, 2.5, 9.0]), usual).tolist() == [1.0, 0.75, 0.5, 0.25]
    with pytest.raises(InvalidInput, match="at least one"):
        p_value(usual, usual[:0])
    with pytest.raises(InvalidInput, match="`usual` of shape"):
        p_value(usual, usual[None])
    with pytest.raises(InvalidInput, match="`scores` .* without NaN"):
        p_value(torch.tensor([float("nan")]), usual)


def test_measures_of_classes_are_their_definitions() -> None:
    probs = torch.tensor([[[0.9, 0.1]], [[0.3, 0.7]]], dtype=torch.float64)
    predictive = Classification(probs)

    def entropy(p: float) -> float:
        return -p * log(p) - (1 - p) * log(1 - p)

    expected = {
        "entropy": entropy(0.6),
        "max_probability": 0.4,
        "mutual_information": entropy(0.6) - (entropy(0.9) + entropy(0.3)) / 2,
        "epistemic": 2 * 0.3**2,
    }
    for measure, value in expected.items():
        assert uncertainty(predictive, measure).tolist() == pytest.approx([value])


def test_sure_predictions_are_told_apart() -> None:
    tiny = torch.tensor([1e-12, 1e-10])
    predictive = Classification(torch.stack([1 - tiny, tiny / 2, tiny / 2], -1)[None])
    assert (1 - predictive.confidence).tolist() == [0, 0]  # what rounding leaves
    assert uncertainty(predictive, "max_probability").tolist() == pytest.approx([1e-12, 1e-10], rel=1e-6)


def test_measures_of_values_and_mistakes() -> None:
    predictive = Regression(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.5], [1.5]]))
    assert uncertainty(predictive, "variance").tolist() == [2.0]
    assert uncertainty(predictive, "epistemic").tolist() == [1.0]
    with pytest.raises(InvalidInput, match="regression's .* Choices: epistemic, variance"):
        uncertainty(predictive, "entropy")
    with pytest.raises(InvalidInput, match="Did you mean 'mutual_information'"):
        uncertainty(Classification(torch.full((1, 1, 2), 0.5)), "information")
    with pytest.raises(InvalidInput, match="one target per input"):
        uncertainty(Regression(torch.zeros(1, 4, 2), torch.ones(1, 4, 2)), "variance")


def test_neighbours_are_those_of_brute_force() -> None:
    rng = Generator().manual_seed(0)
    features, known = 3 * torch.randn(1500, 4, generator=rng), torch.randn(60, 4, generator=rng)
    found = neighbour_distance(features, known, k=3)
    unit = known / known.norm(dim=1, keepdim=True)
    for row in (0, 1, 1100, 1499):
        own = features[row] / features[row].norm()
        assert found[row].item() == pytest.approx(sorted((own - u).norm().item() for u in unit)[2], abs=1e-5)
    assert neighbour_distance(5 * known, known, k=1).max() < 1e-3
    with pytest.raises(InvalidInput, match="between 1 and the number of known inputs, 60"):
        neighbour_distance(features, known, k=61)
    with pytest.raises(InvalidInput, match=r"\(1500, 4\) and \(60, 3\)"):
        neighbour_distance(features, known[:, :3])
