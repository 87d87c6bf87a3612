"""Law 12: total = aleatoric + epistemic, for every decomposition, against scipy and brute force."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from posterity.predict import decomposition


@pytest.fixture
def probs() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(7, 5, 4, generator=generator, dtype=torch.float64).mul(2).softmax(-1)


def test_entropies_are_scipys(probs):
    np.testing.assert_allclose(decomposition.entropy(probs), stats.entropy(probs.numpy(), axis=-1), rtol=1e-12)
    expected = stats.entropy(probs.numpy(), axis=-1).mean(0)
    np.testing.assert_allclose(decomposition.expected_entropy(probs), expected, rtol=1e-12)


def test_mutual_information_is_that_of_the_joint_of_function_and_label(probs):
    # I(s; y) = Σ_s Σ_c p(s, c) log p(s, c) / (p(s) p(c)), with p(s) = 1/n
    joint = probs.numpy() / len(probs)
    marginal = joint.sum(0, keepdims=True)
    expected = (joint * np.log(joint / (marginal / len(probs)))).sum((0, 2))
    np.testing.assert_allclose(decomposition.mutual_information(probs), expected, rtol=1e-10)


def test_entropy_is_expected_entropy_plus_mutual_information(probs):
    parts = decomposition.expected_entropy(probs) + decomposition.mutual_information(probs)
    torch.testing.assert_close(decomposition.entropy(probs.mean(0)), parts, rtol=0, atol=1e-14)


def test_mutual_information_bounds():
    equal = torch.tensor([[[0.3, 0.7]]]).expand(6, 1, 2)
    assert decomposition.mutual_information(equal).item() == 0
    opposed = torch.eye(4).reshape(4, 1, 4)
    assert decomposition.mutual_information(opposed).item() == pytest.approx(math.log(4), rel=1e-6)


def test_small_mutual_information_survives_float32():
    # p = ½ ± δ: I = ½[(1+2δ)log(1+2δ) + (1−2δ)log(1−2δ)] ≈ 2δ², 2e-8 here: lost if entropies were float32
    delta = 2.0**-13
    draws = torch.tensor([[[0.5 + delta, 0.5 - delta]], [[0.5 - delta, 0.5 + delta]]], dtype=torch.float32)
    assert decomposition.mutual_information(draws).item() == pytest.approx(2 * delta**2, rel=1e-4)


def test_classwise_is_the_diagonal_of_the_covariance_and_sums_to_the_bernoulli_variance(probs):
    mean = probs.mean(0)
    aleatoric, epistemic = decomposition.classwise(probs)
    torch.testing.assert_close(aleatoric + epistemic, mean * (1 - mean), rtol=1e-13, atol=0)
    np.testing.assert_allclose(epistemic, np.var(probs.numpy(), axis=0), rtol=1e-12)
    np.testing.assert_allclose(aleatoric, mean.numpy() - (probs.numpy() ** 2).mean(0), rtol=1e-10)
    full_aleatoric, full_epistemic = decomposition.covariance(probs)
    torch.testing.assert_close(full_aleatoric.diagonal(dim1=1, dim2=2), aleatoric, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(full_epistemic.diagonal(dim1=1, dim2=2), epistemic, rtol=1e-12, atol=1e-15)


def test_covariance_is_that_of_drawn_one_hot_labels(probs):
    aleatoric, epistemic = decomposition.covariance(probs)
    mean = probs.mean(0)
    total = torch.diag_embed(mean) - mean.unsqueeze(-1) * mean.unsqueeze(-2)
    torch.testing.assert_close(aleatoric + epistemic, total, rtol=1e-12, atol=1e-15)
    expected = np.cov(probs[:, 2].numpy().T, bias=True)
    np.testing.assert_allclose(epistemic[2], expected, rtol=1e-10, atol=1e-16)
    assert aleatoric.sum(-1).abs().max() < 1e-15


def test_normalized_probs():
    outputs = torch.tensor([[-3.0, 0.5, 40.0], [-60.0, -61.0, -200.0]], dtype=torch.float64)
    softplus = np.logaddexp(0, outputs.numpy())
    expected = softplus / softplus.sum(-1, keepdims=True)
    np.testing.assert_allclose(decomposition.normalized_probs(outputs), expected, rtol=1e-12)
    single = decomposition.normalized_probs(outputs.float())
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=1e-30)


def test_total_variance_is_that_of_drawn_targets():
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(6, 3, 2, generator=generator, dtype=torch.float64)
    variances = torch.rand(6, 3, 2, generator=generator, dtype=torch.float64) + 0.1
    aleatoric, epistemic = decomposition.total_variance(means, variances)
    second_moment = (variances + means**2).mean(0)
    torch.testing.assert_close(aleatoric + epistemic, second_moment - means.mean(0) ** 2, rtol=1e-12, atol=0)
    torch.testing.assert_close(epistemic, means.var(0, correction=0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precision_is_handed_back(dtype):
    probs = torch.tensor([[[0.25, 0.75]], [[0.5, 0.5]]], dtype=dtype)
    assert decomposition.mutual_information(probs).dtype == dtype
    assert decomposition.classwise(probs)[1].dtype == dtype
