"""What predictives say, against scipy, sampling and numerical integration; and what they refuse."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from torch.distributions import Bernoulli, Categorical, Independent, Laplace, Normal

from posterity.errors import InvalidInput
from posterity.predict.predictive import Classification, General, Regression, predictive


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(8, 6, 4, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.fixture
def classes(logits) -> Classification:
    return predictive(Categorical(logits=logits), logits)


def mixture(*shape: int) -> Regression:
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(*shape, generator=generator, dtype=torch.float64) * 3
    return Regression(means, torch.rand(*shape, generator=generator, dtype=torch.float64) + 0.05)


def test_mean_is_of_probabilities_not_of_logits(classes, logits):
    torch.testing.assert_close(classes.mean, logits.softmax(-1).mean(0))
    assert (classes.mean - logits.mean(0).softmax(-1)).abs().max() > 0.01
    torch.testing.assert_close(classes.labels, classes.mean.argmax(-1))
    torch.testing.assert_close(classes.confidence, classes.mean.max(-1).values)


def test_both_decompositions_add_up(classes):
    torch.testing.assert_close(classes.aleatoric + classes.epistemic, classes.variance, rtol=1e-5, atol=1e-8)
    parts = classes.expected_entropy + classes.mutual_information
    torch.testing.assert_close(classes.entropy, parts, rtol=1e-5, atol=1e-7)
    aleatoric, epistemic = classes.classwise("normalized")
    form = torch.nn.functional.softplus(classes.outputs)
    mean = (form / form.sum(-1, keepdim=True)).mean(0)
    torch.testing.assert_close(aleatoric + epistemic, mean * (1 - mean), rtol=1e-5, atol=1e-7)


def test_log_prob_is_of_the_mean_probability(classes, logits, labels):
    expected = logits.softmax(-1).mean(0)[range(6), labels].log()
    torch.testing.assert_close(classes.log_prob(labels), expected)


def test_classification_scores(classes, logits, labels):
    scores = classes.scores(labels)
    assert scores["nll"] == pytest.approx(-classes.log_prob(labels).mean().item(), rel=1e-6)
    flat = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(8))
    assert scores["expected_nll"] == pytest.approx(flat.item(), rel=1e-6)
    assert scores["expected_nll"] > scores["nll"]  # Jensen
    assert scores["accuracy"] == (logits.softmax(-1).mean(0).argmax(-1) == labels).double().mean().item()


def test_log_prob_survives_underflow():
    logits = torch.tensor([[[0.0, 300.0]], [[0.0, 200.0]]])
    sure = predictive(Categorical(logits=logits), logits)
    assert sure.log_prob(torch.tensor([0])).item() == pytest.approx(-200 - math.log(2), rel=1e-6)
    binary = predictive(Bernoulli(logits=torch.full((3, 1), 150.0)), torch.zeros(3, 1))
    assert binary.log_prob(torch.tensor([0])).item() == pytest.approx(-150, rel=1e-6)


def test_bernoulli_has_two_columns():
    logit = torch.tensor([[0.3, -2.0], [1.0, 0.5]])
    for distribution in (Bernoulli(logits=logit), Bernoulli(probs=logit.sigmoid())):
        binary = predictive(distribution, logit)
        torch.testing.assert_close(binary.mean[:, 1], logit.sigmoid().mean(0))
        torch.testing.assert_close(binary.mean.sum(-1), torch.ones(2))
        targets = torch.tensor([1.0, 0.0])
        expected = distribution.log_prob(targets).logsumexp(0) - math.log(2)
        torch.testing.assert_close(binary.log_prob(targets), expected)
    with pytest.raises(InvalidInput, match="none"):
        binary.classwise("normalized")


def test_class_probability_quantiles_are_numpys(classes):
    levels = torch.tensor([0.05, 0.3, 0.95])
    expected = np.quantile(classes.probs.numpy(), levels.numpy(), axis=0)
    np.testing.assert_allclose(classes.quantile(levels), expected, rtol=1e-5)
    lower, upper = classes.interval(0.9)
    np.testing.assert_allclose(torch.stack([lower, upper]), expected[[0, 2]], rtol=1e-5)
    assert classes.quantile(0.5).shape == (6, 4)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 2)])
def test_regression_moments_are_those_of_the_mixture(shape):
    draws = mixture(*shape)
    assert torch.equal(draws.variance, draws.aleatoric + draws.epistemic)
    samples = Normal(draws.means, draws.variances.sqrt()).sample((40_000,)).flatten(0, 1)
    error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - draws.mean).abs() < 5 * error).all()
    torch.testing.assert_close(samples.var(0), draws.variance, rtol=0.02, atol=0)
    torch.testing.assert_close(draws.std.square(), draws.variance)


def test_quantiles_invert_the_cdf_of_scipy():
    draws = mixture(5, 4)
    levels = torch.tensor([1e-6, 0.05, 0.5, 0.95, 0.999], dtype=torch.float64)
    values = draws.quantile(levels)
    assert values.shape == (5, 4)

    def cdf(y: float, b: int) -> float:
        return stats.norm.cdf(y, draws.means[:, b], draws.variances[:, b].sqrt()).mean()

    for i, level in enumerate(levels.tolist()):
        for b in range(4):
            expected = optimize.brentq(lambda y: cdf(y, b) - level, -50, 50, xtol=1e-13)  # noqa: B023
            assert values[i, b].item() == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(draws.cdf(draws.quantile(0.3)), torch.full((4,), 0.3, dtype=torch.float64))


def test_one_draw_has_gaussian_quantiles():
    draws = Regression(torch.tensor([[1.0, -2.0]]), torch.tensor([[4.0, 0.25]]))
    lower, upper = draws.interval(0.9)
    np.testing.assert_allclose(lower, stats.norm.ppf(0.05, [1, -2], [2, 0.5]), rtol=1e-6)
    np.testing.assert_allclose(upper, stats.norm.ppf(0.95, [1, -2], [2, 0.5]), rtol=1e-6)


def test_density_integrates_to_one_and_to_the_cdf():
    draws = mixture(5, 1)
    grid = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    density = Regression(draws.means.expand(5, len(grid)), draws.variances.expand(5, len(grid))).log_prob(grid).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-9)
    below = torch.trapezoid(density[grid <= 0.5], grid[grid <= 0.5]).item()
    assert below == pytest.approx(draws.cdf(torch.tensor([0.5])).item(), abs=1e-6)


def test_several_targets_are_independent_only_given_the_function():
    draws = mixture(3, 2, 2)
    y = torch.tensor([[0.1, 0.2], [-1.0, 2.0]])
    joint = stats.norm.pdf(y, draws.means, draws.variances.sqrt()).prod(-1).mean(0)
    np.testing.assert_allclose(draws.log_prob(y), np.log(joint), rtol=1e-10)


def test_regression_scores():
    draws, y = mixture(5, 4), torch.tensor([0.0, 1.0, -1.0, 2.0])
    scores = draws.scores(y)
    per_draw = stats.norm.logpdf(y, draws.means, draws.variances.sqrt())
    assert scores["expected_nll"] == pytest.approx(-per_draw.mean(), rel=1e-10)
    assert scores["nll"] == pytest.approx(-np.log(np.exp(per_draw).mean(0)).mean(), rel=1e-10)
    assert scores["rmse"] == pytest.approx(np.sqrt(((draws.mean - y) ** 2).mean().item()), rel=1e-10)


def test_rescaling_is_a_change_of_variable():
    draws, y = mixture(5, 4), torch.tensor([0.0, 1.0, -1.0, 2.0])
    scaled = draws.rescale(10.0, 3.0)
    torch.testing.assert_close(scaled.mean, draws.mean * 3 + 10)
    torch.testing.assert_close(scaled.quantile(0.2), draws.quantile(0.2) * 3 + 10)
    torch.testing.assert_close(scaled.log_prob(y * 3 + 10), draws.log_prob(y) - math.log(3))


def test_dispatch():
    loc, scale = torch.zeros(3, 2), torch.full((3, 2), 2.0)
    normal = predictive(Normal(loc, scale), loc)
    assert isinstance(normal, Regression)
    assert torch.equal(normal.variances, scale.square())
    vector = predictive(Independent(Normal(torch.zeros(3, 2, 5), 1.0), 1), loc)
    assert isinstance(vector, Regression)
    assert vector.mean.shape == (2, 5)
    assert predictive(Categorical(logits=torch.zeros(3, 2, 5)), torch.zeros(3, 2, 1)).outputs is None
    assert isinstance(predictive(Laplace(loc, 1.0), loc), General)
    with pytest.raises(InvalidInput, match="batch shape"):
        predictive(Normal(torch.zeros(2), 1.0), loc)


@pytest.mark.parametrize(
    "targets",
    [
        torch.zeros(6, 1, dtype=torch.long),
        torch.zeros(5, dtype=torch.long),
        torch.full((6,), 4),
        torch.full((6,), -1),
        torch.full((6,), math.nan),
        torch.full((6,), 0.5),
    ],
)
def test_wrong_labels_are_refused(classes, targets):
    with pytest.raises(InvalidInput):
        classes.log_prob(targets)
    with pytest.raises(InvalidInput):
        classes.scores(targets)


@pytest.mark.parametrize("targets", [torch.zeros(4, 1), torch.zeros(1), torch.tensor([0, 0, 0, math.inf])])
def test_wrong_values_are_refused(targets):
    with pytest.raises(InvalidInput):
        mixture(5, 4).log_prob(targets)
    with pytest.raises(InvalidInput):
        mixture(5, 4).scores(targets)
    with pytest.raises(InvalidInput):
        mixture(5, 4).cdf(targets)


def test_wrong_draws_and_levels_are_refused():
    with pytest.raises(InvalidInput, match="draws, batch, classes"):
        Classification(torch.ones(4, 3))
    with pytest.raises(InvalidInput, match="sum to 1"):
        Classification(torch.randn(4, 3, 2))
    with pytest.raises(InvalidInput, match="sum to 1"):
        Classification(torch.full((4, 3, 2), math.nan))
    with pytest.raises(InvalidInput, match="shape of `probs`"):
        Classification(torch.full((4, 3, 2), 0.5), torch.zeros(4, 3))
    with pytest.raises(InvalidInput, match="one shape"):
        Regression(torch.zeros(4, 3), torch.ones(4, 1))
    with pytest.raises(InvalidInput, match="> 0"):
        Regression(torch.zeros(4, 3), torch.zeros(4, 3))
    for level in (0.0, 1.0, 90.0, math.nan):
        with pytest.raises(InvalidInput):
            mixture(5, 4).interval(level)
        with pytest.raises(InvalidInput):
            mixture(5, 4).quantile(level)
