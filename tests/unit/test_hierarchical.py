"""Hierarchical priors: densities with their Jacobians, groups, both parametrisations, and what integrating the scale gives."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Size, nn

import posterity
from posterity import (
    Engine,
    Gaussian,
    HalfCauchy,
    Hierarchical,
    InvalidInput,
    InverseGamma,
    LogNormal,
    MeanField,
    Normal,
    Optimizer,
    Problem,
    Product,
)
from posterity.types import PRIOR

SHAPES = {"body.fc.weight": Size([4, 3]), "body.fc.bias": Size([4]), "out.weight": Size([2, 4]), "gain": Size([])}
GROUPS = {
    "tensor": {n: f"scale.{n}" for n in SHAPES},
    "row": {n: f"scale.{n}" for n in SHAPES},
    "layer": {
        "body.fc.weight": "scale.body.fc",
        "body.fc.bias": "scale.body.fc",
        "out.weight": "scale.out",
        "gain": "scale",
    },
    "network": dict.fromkeys(SHAPES, "scale"),
}
EVERY = [
    (family, per, centered)
    for family in ("normal", "laplace")
    for per in ("tensor", "row", "layer", "network")
    for centered in (True, False)
]


def random_params(prior: Hierarchical, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = SHAPES | {PRIOR + n: v.initial.shape for n, v in prior.latents(SHAPES).items()}
    return {n: torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for n, s in shapes.items()}


def scales_of(params: dict[str, torch.Tensor], per: str) -> dict[str, torch.Tensor]:
    """The scale of every weight, of its parameter's shape."""
    found = {}
    for name, group in GROUPS[per].items():
        s = params[PRIOR + group].exp()
        found[name] = (s.reshape(-1, *[1] * (len(SHAPES[name]) - 1)) if s.dim() else s).expand(SHAPES[name])
    return found


def family_of(name: str, scale: torch.Tensor) -> torch.distributions.Distribution:
    return {"normal": torch.distributions.Normal, "laplace": torch.distributions.Laplace}[name](
        torch.zeros_like(scale), scale
    )


@pytest.mark.parametrize("per", GROUPS)
def test_latents_are_named_and_shaped_by_what_shares_a_scale(per: str) -> None:
    scale, start = HalfCauchy(2.0), 0.25
    latents = Hierarchical(scale=scale, per=per, initial_std=start).latents(SHAPES)
    assert list(latents) == list(dict.fromkeys(GROUPS[per].values()))
    for name, latent in latents.items():
        rows = SHAPES[name.removeprefix("scale.")][:1] if per == "row" else Size()
        assert latent.initial.shape == rows
        torch.testing.assert_close(latent.natural(latent.initial), torch.full(rows, start))
        u = torch.linspace(-1, 2, 3, dtype=torch.float64)
        torch.testing.assert_close(latent.log_prob(u), scale.log_prob(u).sum())
        assert latent.log_prob(latent.initial).shape == ()
        assert torch.equal(pickle.loads(pickle.dumps(latent)).initial, latent.initial)


def test_weights_start_with_the_initial_std_in_both_families() -> None:
    for family, std_of_one in (("normal", 1.0), ("laplace", 2**0.5)):
        latent = Hierarchical(family, per="network", initial_std=0.3).latents(SHAPES)["scale"]
        assert float(latent.natural(latent.initial)) * std_of_one == pytest.approx(0.3, rel=1e-6)


@pytest.mark.parametrize(("family", "per", "centered"), EVERY)
def test_log_densities_equal_torch(family: str, per: str, centered: bool) -> None:
    prior = Hierarchical(family, per=per, centered=centered)
    params = random_params(prior)
    scales = scales_of(params, per) if centered else {n: torch.ones(s, dtype=torch.float64) for n, s in SHAPES.items()}
    expected = sum(family_of(family, s).log_prob(params[n]).sum() for n, s in scales.items())
    torch.testing.assert_close(prior.log_prob(params), expected, rtol=1e-12, atol=1e-12)
    single = prior.log_prob({n: p.float() for n, p in params.items()})
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)
    turned = prior.log_prob(dict(reversed(params.items())))
    torch.testing.assert_close(turned, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("family", "per"), sorted({(f, p) for f, p, _ in EVERY}))
def test_both_parametrisations_are_one_prior(family: str, per: str) -> None:
    """log p(w | s) = log p(z) − Σ log s with w = s·z; the scales' own density is the same latent's in both."""
    centered, other = (Hierarchical(family, per=per, centered=c) for c in (True, False))
    params = random_params(other)
    weights = other.weights(params)
    scales = scales_of(params, per)
    assert list(weights) == list(SHAPES)
    for name, w in weights.items():
        torch.testing.assert_close(w, params[name] * scales[name])
    moved = params | weights
    jacobian = sum(s.log().sum() for s in scales.values())
    torch.testing.assert_close(centered.log_prob(moved), other.log_prob(params) - jacobian)
    kept = centered.weights(params)
    assert all(kept[n] is params[n] for n in SHAPES)


def test_weights_of_many_draws() -> None:
    for per in GROUPS:
        prior = Hierarchical(per=per, centered=False)
        draws = [random_params(prior, seed) for seed in range(3)]
        stacked = prior.weights({n: torch.stack([d[n] for d in draws]) for n in draws[0]})
        for i, draw in enumerate(draws):
            for name, w in prior.weights(draw).items():
                assert torch.equal(stacked[name][i], w)


@pytest.mark.parametrize(("family", "per", "centered"), EVERY)
def test_gradients_equal_finite_differences(family: str, per: str, centered: bool) -> None:
    prior = Hierarchical(family, per=per, centered=centered)
    params = random_params(prior)
    names = list(params)
    values = [p.clone().requires_grad_() for p in params.values()]

    def log_prob(*tensors: torch.Tensor) -> torch.Tensor:
        own = dict(zip(names, tensors, strict=True))
        return prior.log_prob(own) + sum(w.sin().sum() for w in prior.weights(own).values())

    assert torch.autograd.gradcheck(log_prob, values)


@pytest.mark.parametrize(("family", "per", "centered"), EVERY)
def test_expected_log_densities_equal_quadrature(family: str, per: str, centered: bool) -> None:
    prior = Hierarchical(family, per=per, centered=centered)
    params = random_params(prior)
    std = {n: 0.1 + p.abs() for n, p in random_params(prior, 1).items() if not n.startswith(PRIOR)}
    # The trapezoidal rule on a dense grid: exact for a smooth integrand that vanishes at both ends.
    z = torch.linspace(-9, 9, 18001, dtype=torch.float64)
    mass = torch.exp(-0.5 * z.square()) / (2 * torch.pi) ** 0.5 * (z[1] - z[0])
    scales = scales_of(params, per) if centered else {n: torch.ones(s, dtype=torch.float64) for n, s in SHAPES.items()}
    expected = torch.zeros((), dtype=torch.float64)
    for name, s in scales.items():
        w = params[name][..., None] + std[name][..., None] * z
        expected = expected + (family_of(family, s[..., None].expand_as(w)).log_prob(w) * mass).sum()
    # At a Laplace's kink, where the slope jumps by 2·std/s, it is wrong by spacing²/8 of that times the normal density.
    kinks = sum(float((2 * std[n] / s).sum()) for n, s in scales.items()) * float(z[1] - z[0]) ** 2 / 8 * 0.4
    tolerance = 1e-9 if family == "normal" else kinks
    torch.testing.assert_close(prior.expected_log_prob(params, std), expected, rtol=1e-11, atol=tolerance)


@pytest.mark.parametrize(("family", "per", "centered"), EVERY)
def test_gradients_of_expectations_equal_finite_differences(family: str, per: str, centered: bool) -> None:
    prior = Hierarchical(family, per=per, centered=centered)
    params = random_params(prior)
    names = list(params)
    values = [p.clone().requires_grad_() for p in params.values()]
    values += [(0.1 + p.abs()).requires_grad_() for n, p in random_params(prior, 1).items() if n in SHAPES]

    def expected(*tensors: torch.Tensor) -> torch.Tensor:
        q = dict(zip(names, tensors, strict=False)), dict(zip(SHAPES, tensors[len(names) :], strict=True))
        return prior.expected_log_prob(*q)

    assert torch.autograd.gradcheck(expected, values)


def test_integrating_the_variance_gives_student_t() -> None:
    """∫ N(w; 0, s²) InverseGamma(s²; a, b) ds² is Student's t of 2a degrees with the scale √(b/a), for both densities."""
    a, b = 1.7, 0.3
    prior = Hierarchical(scale=InverseGamma(a, b), per="network")
    latent = prior.latents({"w": Size([])})["scale"]

    def joint(u: float, w: float) -> float:
        log_scale = torch.tensor(u, dtype=torch.float64)
        params = {"w": torch.tensor(w, dtype=torch.float64), "prior.scale": log_scale}
        return np.exp(float(prior.log_prob(params) + latent.log_prob(log_scale)))

    for w in (0.0, 0.4, -3.0):
        marginal = sum(integrate.quad(partial(joint, w=w), low, high)[0] for low, high in ((-8, -1), (-1, 1), (1, 12)))
        assert marginal == pytest.approx(stats.t(2 * a, scale=(b / a) ** 0.5).pdf(w), rel=1e-8)


@pytest.mark.parametrize("centered", [True, False])
def test_draws_are_weights_of_scales_of_their_own(centered: bool) -> None:
    prior = Hierarchical(scale=InverseGamma(1.7, 0.3), per="row", centered=centered)
    drawn = prior.sample({"w": Size([20000, 2])}, torch.Generator().manual_seed(0))["w"].double().numpy()
    exact = stats.t(3.4, scale=(0.3 / 1.7) ** 0.5)
    assert stats.kstest(drawn[:, 0], exact.cdf).pvalue > 1e-4
    assert stats.kstest(drawn[:, 1], exact.cdf).pvalue > 1e-4
    # The two of a row share a scale, so their sizes go together; their signs do not.
    assert stats.spearmanr(np.abs(drawn[:, 0]), np.abs(drawn[:, 1])).statistic > 0.1
    assert abs(np.corrcoef(np.sign(drawn.T))[0, 1]) < 5 / 20000**0.5


@pytest.mark.parametrize("family", ["normal", "laplace"])
def test_draws_share_scales_as_latents_do(family: str) -> None:
    prior = Hierarchical(family, LogNormal(0.0, 2.0), per="layer")
    shapes = {"fc.weight": Size([40, 500]), "fc.bias": Size([20000]), "out.weight": Size([20000])}
    drawn = prior.sample(shapes, torch.Generator().manual_seed(3))
    standard = family_of(family, torch.ones(())).stddev
    sizes = [float(drawn[n].std() / standard) for n in shapes]
    # A Laplace's sample std has a relative error of √(5/4n): 0.8 % here; 4 % are five of them.
    assert sizes[0] == pytest.approx(sizes[1], rel=0.04)
    assert abs(np.log(sizes[2] / sizes[0])) > 0.1
    exact = {"normal": stats.norm, "laplace": stats.laplace}[family]
    # Against the family with its fitted scale the test is conservative.
    assert stats.kstest(drawn["fc.bias"].double().numpy(), exact(scale=sizes[1]).cdf).pvalue > 1e-4


def test_parts_of_a_product_bring_their_latents() -> None:
    prior = Product(
        {
            "*.bias": Normal(0, 1),
            "out.*": Hierarchical("laplace", per="network", centered=False, name="head"),
            "*": Hierarchical(per="layer"),
        }
    )
    assert list(prior.latents(SHAPES)) == ["head", "scale.body.fc", "scale"]
    params = random_params(Hierarchical(per="layer")) | {"prior.head": torch.tensor(0.3, dtype=torch.float64)}
    del params["prior.scale.out"]
    own = {n: params[n] for n in ("body.fc.weight", "gain", "prior.scale.body.fc", "prior.scale")}
    expected = Normal(0, 1).log_prob({"b": params["body.fc.bias"]}) + Hierarchical(per="layer").log_prob(own)
    expected = expected + family_of("laplace", torch.ones(2, 4).double()).log_prob(params["out.weight"]).sum()
    torch.testing.assert_close(prior.log_prob(params), expected)
    weights = prior.weights(params)
    assert list(weights) == list(SHAPES)
    assert all((weights[n] is params[n]) == (n != "out.weight") for n in SHAPES)
    torch.testing.assert_close(weights["out.weight"], params["out.weight"] * np.exp(0.3))
    std = {n: torch.full_like(params[n], 1e-8) for n in SHAPES}
    torch.testing.assert_close(prior.expected_log_prob(params, std), expected, rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    twice = Product({"*.bias": Hierarchical(per="network"), "*": Hierarchical(per="network")})
    with pytest.raises(InvalidInput, match="Two parts of the prior call a latent 'scale'"):
        twice.latents(SHAPES)
    with pytest.raises(InvalidInput, match=r"needs its log-scale, 'prior\.scale\.w'"):
        Hierarchical().log_prob({"w": torch.ones(2)})
    for wrong in (
        {"name": "a.b"},
        {"per": "column"},
        {"family": "cauchy"},
        {"scale": {"kind": "half_normal", "sd": 1}},
    ):
        with pytest.raises(InvalidInput):
            Hierarchical(**wrong)


def test_both_parametrisations_are_one_problem() -> None:
    """The joint density of (w, u) and that of (z, u) differ by Σ log s, and both start at the network's own weights."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    batch = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    centered, other = (
        Problem(network, Hierarchical(per="layer", centered=c), Gaussian(std=0.5), 20) for c in (True, False)
    )
    theta, z = centered.theta(), other.theta()
    u = centered.layout.views(theta)["prior.scale.0"], centered.layout.views(theta)["prior.scale.2"]
    torch.testing.assert_close(other.layout.views(z)["0.weight"] * u[0].exp(), network[0].weight.detach())
    jacobian = 16 * u[0] + 5 * u[1]
    torch.testing.assert_close(centered.log_joint(theta, batch), other.log_joint(z, batch) - jacobian)


def test_a_fit_finds_the_scale_of_the_weights() -> None:
    """Sixty weights that the data fix at ±0.5: log s has a posterior with the mean log 0.5 and the std 1/√120."""
    torch.manual_seed(0)
    w = 0.5 * (1 - 2 * (torch.arange(60) % 2).float())
    posterior = posterity.fit(
        nn.Linear(60, 1, bias=False),
        (torch.eye(60), w),
        likelihood=Gaussian(std=0.05),
        prior=Hierarchical(per="network"),
        method=MeanField(epochs=600, optimizer=Optimizer(lr=0.03)),
        engine=Engine(progress=False),
    )
    mean, std = (posterior.problem.layout.views(v)["prior.scale"] for v in (posterior.mean, posterior.std))
    # Of s's prior and of the weights' own uncertainty each moves log s by a few per cent; one draw per step adds noise.
    assert float(mean.exp()) == pytest.approx(0.5, rel=0.1)
    assert float(std) == pytest.approx(120**-0.5, rel=0.5)
