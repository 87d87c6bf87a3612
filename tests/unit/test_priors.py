"""Priors with independent coordinates, mixtures and products: against SciPy, quadrature and finite differences."""

import copy
import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy import integrate, stats
from torch import Size

from posterity.model.location_scale import _log_gamma_ratio
from posterity.model.priors import (
    AnyPrior,
    Cauchy,
    Flat,
    Hierarchical,
    Horseshoe,
    Laplace,
    Mixture,
    Normal,
    Product,
    ScaleMixture,
    StudentT,
)
from posterity.types import Prior

SHAPES = {"fc.weight": Size([30, 25]), "fc.bias": Size([30]), "out.weight": Size([4, 30])}
FAMILIES = {
    "normal": (Normal(0.2, 0.7), stats.norm(0.2, 0.7)),
    "laplace": (Laplace(0.2, 0.7), stats.laplace(0.2, 0.7)),
    "student_t": (StudentT(3.5, 0.2, 0.7), stats.t(3.5, 0.2, 0.7)),
    "student_t of many degrees": (StudentT(1e9, 0.2, 0.7), stats.norm(0.2, 0.7)),  # the normal, to 1e-9·z⁴/4
    "student_t of few": (StudentT(0.6, 0.2, 0.7), stats.t(0.6, 0.2, 0.7)),
    "cauchy": (Cauchy(0.2, 0.7), stats.cauchy(0.2, 0.7)),
}
PRIORS = {name: prior for name, (prior, _) in FAMILIES.items()} | {
    "scale_mixture": ScaleMixture(0.3, 1.0, 0.05),
    "horseshoe": Horseshoe(0.1, 1.0),
    "mixture": Mixture((Laplace(0.5, 0.1), StudentT(4, -0.5, 0.2), Normal(0, 1)), (0.5, 0.3, 0.2)),
    "product": Product({"*.bias": Normal(0, 1), "out.*": Laplace(0, 0.1), "*": Hierarchical()}),
    "hierarchical": Hierarchical(),
}


def random_params(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in SHAPES.items()}


def flat(params) -> np.ndarray:
    return np.concatenate([p.double().reshape(-1).numpy() for p in params.values()])


def density(prior: Prior):
    return lambda w: np.exp(float(prior.log_prob({"w": torch.tensor([w], dtype=torch.float64)})))


@pytest.mark.parametrize("name", FAMILIES)
def test_log_densities_equal_scipy_from_the_centre_to_the_tails(name: str) -> None:
    prior, exact = FAMILIES[name]
    w = np.concatenate([[0.2, 0.2 + 1e-9, -1e-3, 0.0, 30.0, -12.0], np.linspace(-3, 3, 21)])
    ours = [float(prior.log_prob({"w": torch.tensor([v], dtype=torch.float64)})) for v in w]
    np.testing.assert_allclose(ours, exact.logpdf(w), rtol=1e-6 if "many" in name else 1e-12)
    split = {"a": torch.from_numpy(w[:4]), "b": torch.from_numpy(w[4:])}
    assert float(prior.log_prob(split)) == pytest.approx(sum(ours), rel=1e-12)
    single = prior.log_prob({"w": torch.from_numpy(w).float()})
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(sum(ours), rel=1e-5)


@pytest.mark.parametrize("name", ["laplace", "student_t", "cauchy", "mixture", "scale_mixture"])
def test_the_total_mass_is_one(name: str) -> None:
    p = density(PRIORS[name])
    cuts = [-np.inf, -20, -1, -0.5, 0, 0.2, 0.5, 1, 20, np.inf]
    pieces = [integrate.quad(p, a, b, epsabs=1e-10, limit=200) for a, b in pairwise(cuts)]
    assert sum(v for v, _ in pieces) == pytest.approx(1, abs=1e-8 + sum(e for _, e in pieces))


def test_the_gamma_ratio_keeps_its_digits_for_every_number_of_degrees() -> None:
    for a, expected in ((0.5, np.log(1 / np.sqrt(np.pi))), (1.0, np.log(np.sqrt(np.pi) / 2))):  # Γ(1)/Γ(½), Γ(3/2)/Γ(1)
        assert _log_gamma_ratio(a) == pytest.approx(expected, rel=1e-14)
    # Γ(a + ½)/Γ(a) · Γ(a + 1)/Γ(a + ½) = a ties the two sides of the switch at 100 together, far out too.
    for a in (3.0, 99.6, 99.9, 100.0, 1e4, 1e12):
        assert _log_gamma_ratio(a) + _log_gamma_ratio(a + 0.5) == pytest.approx(np.log(a), abs=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_draw_what_they_say(name: str) -> None:
    prior, exact = FAMILIES[name]
    drawn = prior.sample({"a": Size([500, 600]), "b": Size([5000])}, torch.Generator().manual_seed(1))
    assert drawn["a"].shape == (500, 600)
    assert stats.kstest(flat(drawn), exact.cdf).pvalue > 1e-4


def test_a_mixture_draws_what_it_says() -> None:
    parts = stats.laplace(0.5, 0.1), stats.t(4, -0.5, 0.2), stats.norm(0, 1)
    drawn = flat(PRIORS["mixture"].sample({"w": Size([300_000])}, torch.Generator().manual_seed(2)))
    shares = np.array([0.5, 0.3, 0.2])
    assert stats.kstest(drawn, lambda v: shares @ np.stack([p.cdf(v) for p in parts])).pvalue > 1e-4
    expected = np.logaddexp.reduce([np.log(s) + p.logpdf(drawn[:50]) for s, p in zip(shares, parts, strict=True)])
    ours = PRIORS["mixture"].log_prob({"w": torch.from_numpy(drawn[:50])})
    assert float(ours) == pytest.approx(expected.sum(), rel=1e-12)


def test_a_mixture_feels_its_widest_component_however_far_out() -> None:
    w = torch.tensor([1e4], dtype=torch.float64, requires_grad=True)
    mixture = Mixture((Normal(0, 1), Laplace(0, 0.5)), (0.5, 0.5))
    value = mixture.log_prob({"w": w})
    value.backward()
    assert value.item() == pytest.approx(np.log(0.5) - 2e4, rel=1e-12)  # ½ · 1/(2·½) · e^(−w/½)
    assert float(w.grad) == pytest.approx(-2.0)


def test_the_scale_mixture_is_a_mixture_of_two_normals() -> None:
    params = random_params()
    two = Mixture((Normal(0, 1.0), Normal(0, 0.05)), (0.3, 0.7))
    assert float(ScaleMixture(0.3, 1.0, 0.05).log_prob(params)) == pytest.approx(float(two.log_prob(params)), rel=1e-14)


@pytest.mark.parametrize("name", PRIORS)
def test_draws_depend_on_the_generator_alone_and_have_the_default_dtype(name: str) -> None:
    prior = PRIORS[name]
    first, again, other = (prior.sample(SHAPES, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert list(first) == list(SHAPES)
    assert all(p.shape == SHAPES[n] and p.dtype == torch.float32 for n, p in first.items())
    assert all(torch.equal(first[n], again[n]) and not torch.equal(first[n], other[n]) for n in SHAPES)
    torch.set_default_dtype(torch.float64)
    try:
        assert all(p.dtype == torch.float64 for p in prior.sample(SHAPES).values())
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", PRIORS)
def test_gradients_equal_finite_differences(name: str) -> None:
    prior = PRIORS[name]
    names = ["fc.bias", "out.weight", "fc.weight"]
    latents = {"prior." + n: v.initial.double() for n, v in prior.latents(dict.fromkeys(names, Size([2]))).items()}
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.3, -2.0], [0.07, 1.1], [-0.6, 0.4])]

    def log_prob(*tensors: torch.Tensor) -> torch.Tensor:
        return prior.log_prob(dict(zip(names, tensors, strict=True)) | latents)

    assert torch.autograd.gradcheck(log_prob, values)


@pytest.mark.parametrize("family", [Laplace, Cauchy, Normal, StudentT])
def test_numbers_per_pattern_and_fan_in(family: type) -> None:
    field = "std" if family is Normal else "scale"
    prior = family(mean={"*.bias": 0.5, "*": 0.0}, fan_in=True, **{field: {"out.*": 0.3, "*": 2.0}})
    params = random_params()
    one = {"fc.weight": (0.0, 2 / 5), "fc.bias": (0.5, 2 / 5), "out.weight": (0.0, 0.3 / 30**0.5)}
    expected = sum(family(mean=m, **{field: s}).log_prob({n: params[n]}) for n, (m, s) in one.items())
    assert float(prior.log_prob(params)) == pytest.approx(float(expected), rel=1e-12)
    shapes = {"fc.weight": Size([400, 25]), "fc.bias": Size([4000]), "out.weight": Size([200, 30])}
    drawn = prior.sample(shapes, torch.Generator().manual_seed(0))
    exact = {"normal": stats.norm(), "laplace": stats.laplace(), "cauchy": stats.cauchy(), "student_t": stats.t(4)}
    for name, (m, s) in one.items():
        assert stats.kstest((flat({name: drawn[name]}) - m) / s, exact[prior.kind].cdf).pvalue > 1e-4, name


def test_degrees_of_freedom_per_pattern() -> None:
    params = random_params()
    ours = StudentT(df={"*.bias": 3.0, "*": 8.0}, scale=0.4).log_prob(params)
    expected = sum(stats.t(3.0 if "bias" in n else 8.0, 0, 0.4).logpdf(p.numpy()).sum() for n, p in params.items())
    assert float(ours) == pytest.approx(expected, rel=1e-12)


NORMAL_Q = {"fc.weight": (-0.3, 0.2), "fc.bias": (0.2, 0.05), "out.weight": (1.5, 0.9)}
CLOSED = [
    Normal(0.1, 0.7),
    Normal(0, {"*.bias": 2.0, "*": 0.3}),
    Laplace(0.1, 0.7),
    Laplace({"*.bias": 0.2, "*": 0.0}, {"out.*": 0.1, "*": 1.0}),
    Product({"*.bias": Laplace(0.2, 0.3), "*": Normal(0, 0.5)}),
    Product({"*.bias": Flat(), "*": Laplace(0, 0.5)}),
]


@pytest.mark.parametrize("prior", CLOSED)
def test_expected_log_densities_equal_quadrature(prior: Prior) -> None:
    mean = {n: torch.tensor([m], dtype=torch.float64) for n, (m, _) in NORMAL_Q.items()}
    std = {n: torch.tensor([s], dtype=torch.float64) for n, (_, s) in NORMAL_Q.items()}
    expected = 0.0
    for name, (m, s) in NORMAL_Q.items():

        def integrand(w: float, name: str = name, m: float = m, s: float = s) -> float:
            params = mean | {name: torch.tensor([w], dtype=torch.float64)}
            return (float(prior.log_prob(params)) - float(prior.log_prob(mean))) * stats.norm(m, s).pdf(w)

        cuts = sorted({m - 10 * s, m - s, m, m + s, m + 10 * s, *(v for v in (0, 0.1, 0.2) if abs(v - m) < 10 * s)})
        pieces = pairwise(cuts)
        expected += sum(integrate.quad(integrand, a, b, epsabs=1e-11)[0] for a, b in pieces)
    ours = prior.expected_log_prob(mean, std)
    assert ours is not None
    assert float(ours) == pytest.approx(expected + float(prior.log_prob(mean)), abs=1e-9)


@pytest.mark.parametrize("prior", CLOSED)
def test_gradients_of_expectations_equal_finite_differences(prior: Prior) -> None:
    values = [torch.tensor([v[i]], dtype=torch.float64, requires_grad=True) for i in (0, 1) for v in NORMAL_Q.values()]

    def expected(*tensors: torch.Tensor) -> torch.Tensor:
        q = dict(zip(NORMAL_Q, tensors[:3], strict=True)), dict(zip(NORMAL_Q, tensors[3:], strict=True))
        return prior.expected_log_prob(*q)

    assert torch.autograd.gradcheck(expected, values)
    if not any(isinstance(part, Flat) for part in getattr(prior, "parts", {}).values()):
        assert torch.autograd.gradgradcheck(expected, values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_expectation_of_a_point_is_its_log_density_with_finite_slopes(dtype: torch.dtype) -> None:
    mean = torch.tensor([0.0, -2.0, 1e-30, 5.0], dtype=dtype, requires_grad=True)
    std = torch.tensor([0.0, 0.0, 1e-35, 1e-20], dtype=dtype, requires_grad=True)
    prior = Laplace(0, 0.5)
    value = prior.expected_log_prob({"w": mean}, {"w": std})
    assert float(value.detach()) == pytest.approx(float(prior.log_prob({"w": mean.detach()})), rel=1e-6)
    value.backward()
    torch.testing.assert_close(mean.grad, torch.tensor([0.0, 2.0, -2.0, -2.0], dtype=dtype))
    assert std.grad.isfinite().all()


def test_only_closed_forms_are_promised() -> None:
    mean, std = random_params(), {n: torch.ones_like(p) for n, p in random_params().items()}
    for prior in (StudentT(), Cauchy(), Horseshoe(), ScaleMixture(), PRIORS["mixture"]):
        assert prior.expected_log_prob(mean, std) is None
        assert Product({"*.bias": Normal(), "*": prior}).expected_log_prob(mean, std) is None


@pytest.mark.parametrize("prior", [*PRIORS.values(), Laplace({"*.bias": 0.1, "*": 0.0}, 0.2, fan_in=True)])
def test_priors_go_into_a_file_and_back(prior: Prior) -> None:
    adapter = TypeAdapter(AnyPrior)
    text = json.dumps(adapter.dump_python(prior, mode="json"))
    assert adapter.validate_python(json.loads(text)) == prior
    assert adapter.validate_json(TypeAdapter(type(prior)).dump_json(prior)) == prior
    assert pickle.loads(pickle.dumps(prior)) == copy.deepcopy(prior) == prior


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"kind": "laplace", "std": 1.0}, "std"),
        ({"kind": "laplace", "scale": 0.0}, "greater than 0"),
        ({"kind": "student_t", "df": -1.0}, "greater than 0"),
        ({"kind": "product", "parts": {}}, "at least 1"),
        ({"kind": "product", "parts": {"*": {"kind": "normal", "sdt": 1.0}}}, "sdt"),
        ({"kind": "product", "parts": {"*": {"kind": "product", "parts": {}}}}, "not another product"),
        ({"kind": "mixture", "components": [{"kind": "normal"}], "proportions": [1.0]}, "two or more components"),
        ({"kind": "mixture", "components": [{"kind": "normal"}] * 2, "proportions": [0.5, 0.6]}, "have 1.1"),
        ({"kind": "mixture", "components": [{"kind": "normal"}, {"kind": "flat"}], "proportions": [0.5, 0.5]}, "flat"),
    ],
)
def test_wrong_specifications_are_refused(specification: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(AnyPrior).validate_python(specification)


def test_log_densities_can_be_mapped_over_draws() -> None:
    draws = torch.randn(5, 7, dtype=torch.float64)
    for prior in (Laplace(), StudentT(), Horseshoe(), PRIORS["mixture"]):
        mapped = torch.func.vmap(lambda w, prior=prior: prior.log_prob({"w": w}))(draws)
        torch.testing.assert_close(mapped, torch.stack([prior.log_prob({"w": w}) for w in draws]))
