"""Temperature: SciPy's optimum, T = 1 of calibrated predictions, closed forms, and what it leaves alone."""

from inspect import unwrap
from math import exp, log

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Generator, Tensor

from posterity import InvalidInput
from posterity.decide import Temperature
from posterity.decide.temperature import _task
from posterity.predict.predictive import Classification, Regression


def classes(n: int, sharpness: float, seed: int = 0, draws: int = 3) -> tuple[Classification, Tensor]:
    """Draws of log-probabilities; labels come from the mean of the probabilities of logits that are less sharp."""
    rng = Generator().manual_seed(seed)
    logits = torch.randn(n, 5, generator=rng, dtype=torch.float64) + torch.randn(
        draws, n, 5, generator=rng, dtype=torch.float64
    )
    labels = logits.softmax(-1).mean(0).multinomial(1, generator=rng).squeeze(1)
    sharp = sharpness * logits
    return Classification(sharp.softmax(-1), sharp, sharp.log_softmax(-1)), labels


def values(n: int, width: float, seed: int = 0, draws: int = 4) -> tuple[Regression, Tensor]:
    """A mixture of Gaussians, `width` times as wide as the one that the targets come from."""
    rng = Generator().manual_seed(seed)
    centre = torch.randn(n, generator=rng, dtype=torch.float64)
    shift = torch.randn(draws, n, generator=rng, dtype=torch.float64)
    shift -= shift.mean(0)
    chosen = torch.randint(draws, (1, n), generator=rng)
    targets = centre + shift.gather(0, chosen)[0] + 0.5 * torch.randn(n, generator=rng, dtype=torch.float64)
    return Regression(centre + width * shift, torch.full((draws, n), (0.5 * width) ** 2, dtype=torch.float64)), targets


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_it_finds_scipys_optimum_of_the_mean_of_tempered_probabilities(sharpness: float) -> None:
    predictive, labels = classes(500, sharpness)
    logits = predictive.outputs

    def nll(log_t: float) -> float:
        probs = (logits / exp(log_t)).softmax(-1).mean(0)
        return -probs[torch.arange(500), labels].log().mean().item()

    best = minimize_scalar(nll, bounds=(-2, 2), method="bounded", options={"xatol": 1e-9})
    found = Temperature.fit(predictive, labels)
    assert found.value == pytest.approx(exp(best.x), rel=1e-5)
    assert -found.apply(predictive).log_prob(labels).mean().item() == pytest.approx(best.fun, abs=1e-10)


def test_of_values_it_finds_scipys_optimum() -> None:
    predictive, targets = values(500, 0.4)

    def nll(log_t: float) -> float:
        t = exp(log_t)
        stretched = predictive.mean + t * (predictive.means - predictive.mean)
        density = torch.distributions.Normal(stretched, t * predictive.variances.sqrt()).log_prob(targets)
        return -(density.logsumexp(0) - log(4)).mean().item()

    best = minimize_scalar(nll, bounds=(-2, 2), method="bounded", options={"xatol": 1e-9})
    assert Temperature.fit(predictive, targets).value == pytest.approx(exp(best.x), rel=1e-5)


@pytest.mark.parametrize("make", [classes, values])
def test_calibrated_predictions_have_temperature_one_and_others_what_was_done_to_them(make) -> None:
    def fitted(scale: float) -> float:
        return Temperature.fit(*make(4000, scale)).value

    one = fitted(1.0)
    repeats = torch.tensor([Temperature.fit(*make(1000, 1.0, seed)).value for seed in range(1, 9)])
    error = repeats.std().item() / 2  # of four times as many examples
    assert abs(one - 1) < 4 * error < 0.15
    expected = 3 * one if make is classes else one / 3
    assert fitted(3.0) == pytest.approx(expected, rel=1e-5)


def test_one_gaussian_has_a_closed_form() -> None:
    rng = Generator().manual_seed(0)
    predictive = Regression(torch.zeros(1, 300).double(), torch.full((1, 300), 4.0).double())
    targets = torch.randn(300, generator=rng).double()
    expected = (targets**2).mean().sqrt().item() / 2
    assert Temperature.fit(predictive, targets).value == pytest.approx(expected, rel=1e-6)


def test_functions_are_tempered_and_then_averaged() -> None:
    disagree = Classification(torch.tensor([[[0.99, 0.01]], [[0.01, 0.99]]]).double())
    tempered = Temperature(4.0, "classification").apply(disagree)
    assert tempered.mean[0].tolist() == pytest.approx([0.5, 0.5])
    odds = 99**0.25
    assert tempered.probs[0, 0, 0].item() == pytest.approx(odds / (1 + odds))
    assert tempered.mutual_information < disagree.mutual_information
    assert tempered.entropy == pytest.approx(tempered.mutual_information.item() + tempered.expected_entropy.item())
    predictive, _ = classes(50, 1.0)
    same = Temperature(1.0, "classification").apply(predictive)
    assert torch.allclose(same.probs, predictive.probs, atol=1e-12)
    assert torch.allclose(Temperature(2.0, "classification").apply(predictive).outputs, predictive.outputs / 2)
    assert (
        Temperature(2.0, "classification").apply(Classification(predictive.probs.float())).probs.dtype == torch.float32
    )


def test_intervals_are_stretched_about_the_mean() -> None:
    predictive, _ = values(40, 1.0)
    wide = Temperature(2.5, "regression").apply(predictive)
    assert torch.allclose(wide.mean, predictive.mean)
    assert torch.allclose(wide.std, 2.5 * predictive.std)
    for q in (0.05, 0.5, 0.9):
        stretched = predictive.mean + 2.5 * (predictive.quantile(q) - predictive.mean)
        assert torch.allclose(wide.quantile(q), stretched, atol=1e-9)
    parted = Regression(predictive.means, predictive.variances, 0.1 * predictive.variances)
    again = Temperature(2.5, "regression").apply(parted)
    assert torch.allclose(again.aleatoric, 6.25 * parted.aleatoric)
    assert torch.allclose(again.epistemic, 6.25 * parted.epistemic)


def test_a_label_that_was_impossible_has_no_temperature() -> None:
    sure = Classification(torch.tensor([[[1.0, 0.0], [0.7, 0.3], [0.2, 0.8]]]))
    with pytest.raises(InvalidInput, match="1 of 3 labels have probability 0"):
        Temperature.fit(sure, torch.tensor([1, 0, 1]))
    other = Classification(torch.tensor([[[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]]]))  # another function allows it
    both = Classification(torch.cat([sure.probs, other.probs]))
    assert Temperature.fit(both, torch.tensor([1, 0, 1])).value > 0


def test_what_cannot_be_fitted_or_applied() -> None:
    (predictive, labels), (reals, targets) = classes(30, 1.0), values(30, 1.0)
    right = Temperature.fit(predictive, predictive.probs.mean(0).argmax(-1))
    assert 0.05 <= right.value < 1  # all right: as sure as it may become
    one = Classification(predictive.probs[:1])
    assert Temperature.fit(one, one.labels).value == pytest.approx(0.05, rel=1e-5)
    with pytest.raises(InvalidInput, match="for classification; it was given a Regression"):
        Temperature(1.0, "classification").apply(reals)
    with pytest.raises(InvalidInput, match="Choices: Classification, Regression"):
        unwrap(_task)(labels)
    with pytest.raises(InvalidInput, match="no validation targets"):
        Temperature.fit(Classification(predictive.probs[:, :0]), labels[:0])
    with pytest.raises(InvalidInput, match="one label per input"):
        Temperature.fit(predictive, labels[:3])
    with pytest.raises(InvalidInput, match="reshape"):
        Temperature.fit(reals, targets[:, None])
    with pytest.raises(InvalidInput, match="flatten"):
        Temperature.fit(Classification(torch.full((1, 30, 4, 2), 0.5)), torch.zeros(30, 4))
    with pytest.raises(InvalidInput):
        Temperature(0.0, "regression")
