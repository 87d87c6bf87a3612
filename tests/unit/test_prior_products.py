"""A prior for each part of a network: `Product`, `as_prior`, `normal_form`, and patterns that do not fit."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Size, nn

from posterity import InvalidInput
from posterity.model.patterns import match
from posterity.model.priors import (
    Cauchy,
    Flat,
    Hierarchical,
    Informative,
    Laplace,
    Normal,
    Product,
    ScaleMixture,
    as_prior,
    normal_form,
)
from posterity.types import Prior
from tests.unit.test_priors import SHAPES, flat, random_params


def test_a_product_gives_each_part_its_own_names_and_keeps_their_order() -> None:
    params = random_params()
    product = as_prior({"*.bias": Normal(0, 1), "out.*": Laplace(0, 0.1), "*": Cauchy(0, 2)})
    expected = (
        stats.norm(0, 1).logpdf(params["fc.bias"]).sum() + stats.laplace(0, 0.1).logpdf(params["out.weight"]).sum()
    )
    expected += stats.cauchy(0, 2).logpdf(params["fc.weight"]).sum()
    assert float(product.log_prob(params)) == pytest.approx(expected, rel=1e-12)
    turned = dict(reversed(params.items()))
    assert float(product.log_prob(turned)) == pytest.approx(expected, rel=1e-12)
    drawn = product.sample({"a.bias": Size([9000]), "out.weight": Size([9000])} | {"z": Size([9000])})
    for name, exact in {
        "a.bias": stats.norm(0, 1),
        "out.weight": stats.laplace(0, 0.1),
        "z": stats.cauchy(0, 2),
    }.items():
        assert stats.kstest(flat({name: drawn[name]}), exact.cdf).pvalue > 1e-4
    weights = product.weights(params)
    assert list(weights) == list(params)
    assert all(weights[n] is params[n] for n in params)


def test_the_normal_form_of_products_and_what_has_none() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    layered = Product({"fc.*": Normal({"*.bias": 1.0, "*": 0.0}, 0.2), "*": Normal(-1, 0.5)})
    mean, std = normal_form(layered, SHAPES, like)
    assert mean.dtype == std.dtype == torch.float64
    params = random_params()
    ours = stats.norm(mean.numpy(), std.numpy()).logpdf(flat(params)).sum()
    assert ours == pytest.approx(float(layered.log_prob(params)), rel=1e-12)
    turned = dict(reversed(SHAPES.items()))
    assert torch.equal(normal_form(layered, turned, like)[0][:120], torch.full((120,), -1.0).double())
    trained = Product({"out.*": Normal(0, 1), "*": Informative.at(nn.ModuleDict({"fc": nn.Linear(25, 30)}), 0.1)})
    mean, std = normal_form(trained, SHAPES, like)
    assert (std == torch.cat([torch.full((780,), 0.1), torch.ones(120)])).all()
    for prior in (Laplace(), Flat(), Product({"*.bias": Normal(), "*": Laplace()}), Hierarchical(), ScaleMixture()):
        assert normal_form(prior, SHAPES, like) is None


def test_patterns_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"parts pattern 'head\.\*' matches no parameter"):
        as_prior({"head.*": Normal(), "*": Laplace()}).log_prob(random_params())
    with pytest.raises(InvalidInput, match=r"No parts pattern of the prior matches 'fc\.weight'\. Add '\*'"):
        as_prior({"*.bias": Normal(), "out.*": Laplace()}).sample(SHAPES)
    with pytest.raises(InvalidInput, match=r"'\*\.bias' matches only parameters that patterns before it take"):
        as_prior({"*": Normal(), "*.bias": Laplace()}).log_prob(random_params())
    with pytest.raises(InvalidInput, match="scale pattern 'fx'"):
        Laplace(0, {"fx": 1.0, "*": 2.0}).log_prob(random_params())
    assert set(match({"*.weight": 1, "*.bias": 2, "*": 3}, SHAPES, "std").values()) == {1, 2}  # a last resort may idle


def test_a_bias_whose_fan_in_lies_in_another_part_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'fc\.bias' is divided by √fan-in"):
        as_prior({"*.bias": Normal(0, 1, fan_in=True), "*": Laplace()}).log_prob(random_params())
    as_prior({"fc.*": Normal(0, 1, fan_in=True), "*": Laplace()}).log_prob(random_params())


class Own(Prior):
    """A prior of somebody's own: uniform on [−5, 5]."""

    kind: ClassVar[str] = "own"

    def log_prob(self, params):
        return -sum(p.numel() for p in params.values()) * torch.tensor(10.0, dtype=torch.float64).log()

    def sample(self, shapes, generator=None):
        return {n: torch.rand(s, generator=generator) * 10 - 5 for n, s in shapes.items()}


def test_a_part_may_be_a_prior_of_your_own() -> None:
    product = as_prior({"*.bias": Own(), "*": Normal(0, 1)})
    params = random_params()
    expected = -30 * np.log(10) + sum(stats.norm.logpdf(p.numpy()).sum() for n, p in params.items() if "bias" not in n)
    assert float(product.log_prob(params)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, "A prior of 3 was given; expected a Prior"),
        ({}, "expected a Prior"),
        ({"*": 0.1}, r"part '\*' is 0.1; expected a pattern"),
        ({"*": {"fc.*": Normal()}}, "not a mapping or a Product"),
        ({"*": Product({"*": Normal()})}, "not a mapping or a Product"),
        ({0: Normal()}, "part 0 is"),
    ],
)
def test_what_is_no_prior_is_refused(given: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        as_prior(given)


def test_a_prior_passes_through() -> None:
    prior = Laplace()
    assert as_prior(prior) is prior
