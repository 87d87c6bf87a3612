"""What a report says of latents: densities against SciPy, the numbers that figures draw, the words of the section."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Size

from posterity import Gaussian, HalfCauchy, HalfNormal, Hierarchical, InverseGamma, LogNormal
from posterity.report import LearntLatent, figures_latents, render, verdicts
from posterity.report.style import Figure
from posterity.types import Latent
from tests.drawings import empty
from tests.unit.test_report import Page, classification, regression

SHAPES = {"fc.weight": Size([4, 3]), "out.weight": Size([2, 4])}
STUDIED = (
    (HalfNormal(0.7), stats.halfnorm(scale=0.7).pdf),
    (HalfCauchy(0.3), stats.halfcauchy(scale=0.3).pdf),
    (LogNormal(-2.0, 0.02), stats.lognorm(0.02, scale=np.exp(-2.0)).pdf),
    (InverseGamma(2.0, 0.02), lambda s: 2 * s * stats.invgamma(2.0, scale=0.02).pdf(s**2)),  # the variance is
)


def latent(prior: Hierarchical, name: str) -> Latent:
    return prior.latents(SHAPES)[name]


@pytest.mark.parametrize("per", ["tensor", "row"])
@pytest.mark.parametrize(("scale", "density"), STUDIED)
def test_prior_density_is_that_of_scipy(scale, density, per):
    """Of log s it is s p(s), of s itself p(s); in float64 throughout, so only rounding is left."""
    own = latent(Hierarchical(scale=scale, per=per), "scale.fc.weight")
    curve = figures_latents.prior_density(own, log=True)
    np.testing.assert_allclose(curve.density, np.exp(curve.x) * density(np.exp(curve.x)), rtol=1e-6)
    plain = figures_latents.prior_density(own, log=False)
    np.testing.assert_allclose(plain.density, density(plain.x), rtol=1e-6)


def test_prior_density_of_a_noise_level():
    own = Gaussian().latents()["std"]  # softplus, not exp
    curve = figures_latents.prior_density(own, log=False)
    np.testing.assert_allclose(curve.density, stats.halfcauchy.pdf(curve.x), rtol=1e-5)


def test_quantiles_of_a_curve():
    own = latent(Hierarchical(scale=LogNormal(1.0, 0.5)), "scale.fc.weight")
    found = figures_latents.prior_density(own, log=True).quantiles(0.05, 0.5, 0.95)
    # The curve ends at a thousandth of its peak, 3.7 standard deviations out, where 2e-4 of the mass is left.
    np.testing.assert_allclose(found, stats.norm(1.0, 0.5).ppf([0.05, 0.5, 0.95]), atol=2e-3)


def test_kernel_density_of_draws():
    draws = np.random.default_rng(0).normal(2.0, 0.5, 4000)
    curve = figures_latents.draws_density(draws)
    assert np.trapezoid(curve.density, curve.x) == pytest.approx(1, abs=1e-3)
    width = 0.9 * 0.5 * 4000**-0.2
    smoothed = stats.norm(2.0, np.hypot(0.5, width)).pdf(curve.x)  # what the estimate has as its mean
    error = np.sqrt(smoothed / (2 * np.sqrt(np.pi) * width * 4000))  # its standard deviation, for a Gaussian kernel
    assert (np.abs(curve.density - smoothed) < 4.5 * error + 2e-3).all()


def learnt(per: str = "tensor", std: float = 0.1) -> dict[str, LearntLatent]:
    """Posterior draws with means 0.1, 0.2, … of each latent, as the rows of a tensor have them."""
    generator = torch.Generator().manual_seed(0)
    latents = Hierarchical(per=per).latents(SHAPES)
    found = {}
    for i, (name, own) in enumerate(latents.items()):
        centre = 0.1 * (i + 1) * torch.arange(own.initial.numel(), 0, -1).reshape(own.initial.shape)
        noise = std * torch.randn(500, *own.initial.shape, generator=generator)
        found[f"prior.{name}"] = LearntLatent(centre * noise.exp(), own)
    return found


def test_a_row_per_latent_with_its_interval():
    found = {"fc": learnt()["prior.scale.fc.weight"], "out": learnt()["prior.scale.out.weight"]}
    ax = figures_latents.plot_latents(found, "prior.scale").axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["fc", "out"]
    assert ax.get_xscale() == "log"
    for row, own in enumerate(found.values()):
        prior, posterior = ax.lines[3 * row].get_xydata(), ax.lines[3 * row + 1].get_xydata()
        assert prior[:, 1].max() == pytest.approx(0.8 - row)
        assert prior[prior[:, 1].argmax(), 0] == pytest.approx(1.0, rel=0.05)  # of log s, half-Cauchy(1) peaks at 1
        # 4 standard errors of a median of 500, and as much again for the mode that is drawn
        assert posterior[posterior[:, 1].argmax(), 0] == pytest.approx(own.draws.median().item(), rel=0.08)
        low, high = np.quantile(own.draws.double().numpy(), [0.05, 0.95])
        assert ax.texts[row].get_text().endswith(f"[{low:#.3g}, {high:#.3g}]")


def test_points_are_lines_and_signed_latents_have_a_linear_axis():
    own = Latent(torch.tensor(0.5), lambda u: -0.5 * u.square().sum(), lambda u: u)
    ax = figures_latents.plot_latents({"shift": LearntLatent(torch.full((9,), -0.25), own)}, "x").axes[0]
    assert ax.get_xscale() == "linear"
    assert ax.texts[0].get_text() == "-0.250"
    lines = [c.get_segments() for c in ax.collections if hasattr(c, "get_segments")]
    assert [s[0][0][0] for s in lines if len(s)] == [-0.25]


def test_rows_are_sorted_with_their_intervals():
    own = learnt("row")["prior.scale.fc.weight"]
    ax = figures_latents.plot_rows({"fc.weight": own}, "prior.scale").axes[0]
    means = own.draws.double().mean(0).sort().values
    np.testing.assert_allclose(ax.lines[0].get_ydata(), means)
    assert means[0] < means[-1]
    ends = np.quantile(own.draws.double().numpy()[:, 3], [0.05, 0.95])  # the last row has the smallest scale
    np.testing.assert_allclose(ax.collections[0].get_segments()[0][:, 1], ends)


def test_fitted_stds_over_epochs():
    history = [{"epoch": e, "prior_std.fc": 0.3 / e, "prior_std.out": 0.3, "prior_std": 1.0} for e in (1, 2)] * 2
    found = figures_latents.learnt_stds(history)
    assert set(found) == {"fc", "out", "network"}
    np.testing.assert_array_equal(found["fc"][0], [1, 2, np.nan, 1, 2])  # two members of an ensemble
    np.testing.assert_allclose(found["fc"][1], [0.3, 0.15, np.nan, 0.3, 0.15])
    ax = figures_latents.plot_learnt_prior(found).axes[0]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), found["fc"][1])
    assert [t.get_text() for t in ax.texts] == ["fc  0.150", "out  0.300", "network  1.00"]
    assert figures_latents.learnt_stds([]) == {}
    said = verdicts.learnt_stds(found)
    assert said == ("The prior's std, fitted to the data, is smallest in fc, 0.150, and largest in network, 1.00.",)


def test_labels_keep_their_distance_and_their_middle():
    places = figures_latents._apart(np.array([0.5, 0.51, 0.1]), 0.05)
    assert places[1] - places[0] == pytest.approx(0.05)
    assert places.mean() == pytest.approx(np.mean([0.5, 0.51, 0.1]))


def test_the_section_of_a_report(monkeypatch):
    noise = LearntLatent(torch.tensor([0.5, 0.5]), Gaussian().latents()["std"])
    page = render(replace(classification(), latents=learnt()))
    assert Page(page).open == []
    empty(Figure, monkeypatch.setattr)  # the drawings of one page are enough
    assert "What the prior learnt" in page
    assert "smallest in fc.weight" in page
    assert "largest in out.weight" in page
    assert "drawn to its own height" in page
    rows = render(replace(classification(), latents=learnt("row")))
    assert "they are sorted" in rows
    assert "drawn to its own height" not in rows
    noisy = render(replace(regression(), latents={"likelihood.std": noise}))
    assert "How noisy the targets are" in noisy
    assert "likelihood.std: 0.500." in noisy
    assert "What the prior learnt" not in noisy
    assert "How noisy" not in render(regression())
    history = [{"epoch": 1, "nll": 1.0, "prior_std.fc": 0.3}]
    fitted = replace(classification(), bayesian=replace(classification().bayesian, history=history))
    assert "Empirical Bayes" in render(fitted)


def test_one_scale_of_the_whole_network():
    found = learnt("network")
    assert list(found) == ["prior.scale"]
    value = found["prior.scale"].draws.double()
    said = verdicts.latents(found)
    assert said == (f"prior.scale: {figures_latents.interval_text(value.numpy())}.",)
