"""Networks with many labels per example: a tagger's tokens, a segmentation network's pixels, from `fit` to every measure."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import posterity
from posterity import MAP, Categorical, Engine, Gaussian, InvalidInput, Laplace, MeanField, Normal, Problem
from posterity.metrics import calibration, scores
from posterity.model.likelihoods import training_score
from posterity.posteriors.samples import Samples
from posterity.predict import decomposition
from posterity.predict.predictive import Classification

QUIET = Engine(progress=False)


def tagger() -> nn.Module:
    """(B, 6) words of 7 -> (B, 6, 3)."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 3))


def segmenter() -> nn.Module:
    """(B, 1, 4, 5) -> (B, 3, 4, 5)."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))


def tokens(n: int = 40) -> tuple[Tensor, Tensor]:
    words = torch.randint(7, (n, 6), generator=torch.Generator().manual_seed(1))
    return words, words % 3


def pixels(n: int = 30) -> tuple[Tensor, Tensor]:
    images = torch.randn(n, 1, 4, 5, generator=torch.Generator().manual_seed(2))
    return images, (images[:, 0] > 0).long() + (images[:, 0] > 1)


CASES = {"tokens": (tagger, tokens, "BTC"), "pixels": (segmenter, pixels, "BCHW")}
every_case = pytest.mark.parametrize("case", CASES)


@every_case
def test_the_likelihood_is_torchs_cross_entropy(case):
    network, data, axes = (CASES[case][0](), CASES[case][1](), CASES[case][2])
    x, y = data
    y = torch.where(torch.rand(y.shape, generator=torch.Generator().manual_seed(3)) < 0.2, -100, y)
    likelihood = Categorical(axes)
    logits = network(x)
    likelihood.check(logits, y)
    distribution = likelihood(logits, {})
    assert distribution.batch_shape == (len(x),)
    channels_second = logits if axes[1] == "C" else logits.movedim(-1, 1)
    each = functional.cross_entropy(channels_second, y, reduction="none", ignore_index=-100)
    torch.testing.assert_close(distribution.log_prob(y), -each.flatten(1).sum(1))
    name, (total, count) = training_score(distribution, (x, y))
    right = (channels_second.argmax(1) == y)[y != -100]
    assert (name, int(total), int(count)) == ("accuracy", int(right.sum()), right.numel())


@every_case
def test_fit_names_the_axes_and_predicts_every_site(case):
    network, data, axes = (CASES[case][0](), CASES[case][1](), CASES[case][2])
    x, y = data
    method = MeanField(epochs=60, optimizer=posterity.Optimizer(lr=0.05))
    posterior = posterity.fit(network, (x, y), method=method, prior=Normal(0, 1), engine=QUIET)
    assert posterior.problem.likelihood == Categorical(axes)
    predicted = posterior.predict(x, 8, generator=torch.Generator().manual_seed(0))
    assert predicted.entropy.shape == y.shape
    assert predicted.mean.shape == (*y.shape, 3)
    draws = posterior.draw(x, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        predicted.mean,
        draws.softmax(2 if axes[1] == "C" else -1).mean(0).movedim(1, -1)
        if axes[1] == "C"
        else draws.softmax(-1).mean(0),
    )
    found = predicted.scores(y)
    assert found["accuracy"] > 0.8 > (y == 0).double().mean().item()
    assert found["nll"] == pytest.approx(-predicted.log_prob(y).mean().item(), rel=1e-5)


def test_a_loader_of_label_maps_needs_no_likelihood_either():
    loader = DataLoader(TensorDataset(*pixels()), batch_size=10)
    posterior = posterity.fit(segmenter(), loader, method=MAP(epochs=1), engine=QUIET)
    assert posterior.problem.likelihood == Categorical("BCHW")


def drawn(n: int = 7, batch: int = 3, sites: tuple[int, ...] = (2, 4), classes: int = 5) -> Classification:
    outputs = 2 * torch.randn(
        n, batch, *sites, classes, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    return Classification(outputs.softmax(-1), outputs)


def test_every_measure_is_that_of_each_site():
    whole = drawn()
    flat = Classification(whole.probs.flatten(1, 3), whole.outputs.flatten(1, 3))  # each site an example
    for name in (
        "mean",
        "labels",
        "confidence",
        "entropy",
        "expected_entropy",
        "mutual_information",
        "variance",
        "aleatoric",
        "epistemic",
    ):
        torch.testing.assert_close(getattr(whole, name).flatten(0, 2), getattr(flat, name), rtol=0, atol=0)
    for form in ("softmax", "normalized"):
        for a, b in zip(whole.classwise(form), flat.classwise(form), strict=True):
            torch.testing.assert_close(a.flatten(0, 2), b, rtol=0, atol=0)
    torch.testing.assert_close(whole.interval(0.8)[1].flatten(0, 2), flat.interval(0.8)[1], rtol=0, atol=0)
    for a, b in zip(decomposition.covariance(whole.probs), decomposition.covariance(flat.probs), strict=True):
        assert a.shape == (3, 2, 4, 5, 5)
        torch.testing.assert_close(a.flatten(0, 2), b, rtol=1e-13, atol=1e-16)
    labels = decomposition.drawn_labels(whole.probs, torch.Generator().manual_seed(0))
    assert labels.shape == whole.probs.shape[:-1]
    ratios = decomposition.variation_ratio(labels).flatten(), decomposition.variation_ratio(labels.flatten(1))
    torch.testing.assert_close(*ratios, rtol=0, atol=0)


def test_law_12_holds_at_every_site():
    whole = drawn()
    torch.testing.assert_close(whole.entropy, whole.expected_entropy + whole.mutual_information, rtol=1e-12, atol=0)
    for form in ("softmax", "normalized"):
        aleatoric, epistemic = whole.classwise(form)
        mean = (whole.probs if form == "softmax" else decomposition.normalized_probs(whole.outputs)).mean(0)
        torch.testing.assert_close(aleatoric + epistemic, mean * (1 - mean), rtol=1e-12, atol=1e-15)
    aleatoric, epistemic = decomposition.covariance(whole.probs)
    mean = whole.mean
    total = torch.diag_embed(mean) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    torch.testing.assert_close(aleatoric + epistemic, total, rtol=1e-12, atol=1e-15)


def test_the_log_density_of_a_label_map_is_the_mixtures_and_sums_to_one():
    whole = drawn(n=3, batch=2, sites=(2,), classes=3)
    total = torch.zeros(2, dtype=torch.float64)
    for first in range(3):
        for second in range(3):
            y = torch.tensor([[first, second]] * 2)
            p = whole.probs[:, :, 0, first] * whole.probs[:, :, 1, second]
            torch.testing.assert_close(whole.log_prob(y), p.mean(0).log(), rtol=1e-12, atol=0)
            total += whole.log_prob(y).exp()
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64), rtol=1e-12, atol=0)
    apart = whole.mean[:, 0, 0].log() + whole.mean[:, 1, 0].log()
    assert (whole.log_prob(torch.zeros(2, 2)) - apart).abs().min() > 1e-3  # sites are linked by the function


def test_labels_that_are_not_known_are_marginalised():
    whole = drawn(n=3, batch=1, sites=(2,), classes=3)
    one = torch.tensor([[1, -100]])
    both = torch.stack([whole.log_prob(torch.tensor([[1, c]])) for c in range(3)]).logsumexp(0)
    torch.testing.assert_close(whole.log_prob(one), both, rtol=1e-12, atol=0)
    assert whole.scores(one)["accuracy"] == float(whole.labels[0, 0] == 1)
    assert scores.nll(whole.mean, one) == pytest.approx(-whole.mean[0, 0, 1].log().item())


def test_scores_of_sites():
    whole = drawn()
    y = torch.randint(5, (3, 2, 4), generator=torch.Generator().manual_seed(5))
    y[0, 0] = -100
    known = y != -100
    found = scores.evaluate(whole, y)
    assert found["accuracy"] == (whole.labels == y)[known].double().mean().item()
    assert found["nll"] == pytest.approx(-whole.log_prob(y).mean().item(), rel=1e-12)
    assert found["nll_per_site"] == scores.nll(whole.mean[known], y[known])
    assert found["ece"] == calibration.ece(whole.mean[known], y[known])
    assert found["entropy"] == pytest.approx(whole.entropy.mean().item(), rel=1e-12)


@pytest.mark.parametrize("axes", ["TBC", "BT", "BCC", "BTCH", "", "B C"])
def test_axes_that_name_no_layout_are_refused(axes):
    with pytest.raises(ValueError, match="BTC for tokens"):
        Categorical(axes)


def test_shapes_that_do_not_fit_are_refused_with_advice():
    network, (x, y) = segmenter(), pixels()
    with pytest.raises(InvalidInput, match=r"likelihood=Categorical\('BCHW'\)"):
        posterity.fit(network, (x, y), likelihood=Categorical(), engine=QUIET)
    with pytest.raises(InvalidInput, match=r"labels of shape \(B, H, W\)"):
        posterity.fit(network, (x, y[:, :2]), likelihood=Categorical("BCHW"), engine=QUIET)
    with pytest.raises(InvalidInput, match="Label 9"):
        posterity.fit(network, (x, torch.where(y == 2, 9, y)), engine=QUIET)
    with pytest.raises(InvalidInput, match="not known"):
        posterity.fit(network, (x, torch.full_like(y, -100)), engine=QUIET)
    with pytest.raises(InvalidInput, match="are 3"):
        posterity.fit(network, (x, y), likelihood=Categorical("BTC"), engine=QUIET)
    with pytest.raises(InvalidInput, match=r"Categorical\('BTC'\)"):
        Categorical.of(torch.zeros(2, 3, 3), torch.zeros(2, 3))
    with pytest.raises(InvalidInput, match="Laplace"):
        posterity.fit(network, (x, y), method=Laplace(MAP(epochs=1)), engine=QUIET)
    with pytest.raises(InvalidInput, match="flatten"):
        posterity.fit(network, (x, torch.randn(len(x), 3, 4, 5)), likelihood=Gaussian(std=1.0), engine=QUIET)


def test_classes_second_keep_their_outputs_for_the_normalized_form():
    network, (x, _) = segmenter(), pixels(4)
    problem = Problem(network, Normal(0, 1), Categorical("BCHW"), 4)
    posterior = Samples(problem.snapshot(), torch.stack([problem.theta(), 0.5 * problem.theta()]))
    predicted = posterior.predict(x, 2)
    softplus = functional.softplus(posterior.draw(x, 2).movedim(2, -1))
    expected = (softplus / softplus.sum(-1, keepdim=True)).var(0, correction=0)
    np.testing.assert_allclose(predicted.classwise("normalized")[1], expected, rtol=1e-3, atol=1e-8)
    assert math.isfinite(predicted.entropy.sum().item())
