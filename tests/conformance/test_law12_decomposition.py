"""Law 12: total = aleatoric + epistemic for every method and decomposition; class-wise forms sum to p̄(1 − p̄)."""

import pytest
import torch
from torch import nn

import posterity
from posterity import MLE, Engine, Ensemble, Gaussian, HeteroscedasticGaussian, MeanField, TensorData
from tests.conformance.table import SHORT, every_short_method, small_classification, small_network


@every_short_method
def test_classification(name: str) -> None:
    x, y = small_classification()
    posterior = posterity.fit(small_network(), TensorData(x, y, 20), method=SHORT[name], engine=Engine(progress=False))
    predicted = posterior.predict(x, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(predicted.entropy, predicted.expected_entropy + predicted.mutual_information)
    assert (predicted.mutual_information >= 0).all()
    draws = posterior.draw(x, len(predicted.probs), generator=torch.Generator().manual_seed(0))
    forms = {"softmax": draws.softmax(-1), "normalized": nn.functional.softplus(draws)}
    forms["normalized"] = forms["normalized"] / forms["normalized"].sum(-1, keepdim=True)
    for form, probs in forms.items():
        aleatoric, epistemic = predicted.classwise(form)
        mean = probs.mean(0)
        torch.testing.assert_close(aleatoric + epistemic, mean * (1 - mean))
        torch.testing.assert_close(epistemic, probs.var(0, correction=0), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(predicted.mean, forms["softmax"].mean(0))  # of probabilities, never of logits
    if isinstance(SHORT[name], MLE):
        assert predicted.epistemic.abs().max() < 1e-7


@pytest.mark.parametrize("likelihood", [Gaussian(), Gaussian(std=0.3), HeteroscedasticGaussian()])
@pytest.mark.parametrize("method", [MeanField(epochs=3), Ensemble(MLE(epochs=3), 3)])
def test_regression_follows_the_law_of_total_variance(likelihood, method) -> None:
    x = torch.linspace(-2, 2, 50)[:, None]
    network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2 if likelihood.kind == "heteroscedastic" else 1))
    posterior = posterity.fit(
        network, (x, x.sin().squeeze()), likelihood=likelihood, method=method, engine=Engine(progress=False)
    )
    predicted = posterior.predict(x, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(predicted.variance, predicted.aleatoric + predicted.epistemic)
    draws = posterior.draws(x, 30, torch.Generator().manual_seed(0), 2**28)
    each = posterior.problem.likelihood(draws.outputs, draws.latents)
    total = (each.variance + each.mean.square()).mean(0) - each.mean.mean(
        0
    ).square()  # E[y²] − E[y]², the other way round
    torch.testing.assert_close(predicted.variance, total, atol=1e-5, rtol=1e-4)
    assert predicted.epistemic.max() > 1e-6
