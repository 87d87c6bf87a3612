"""Options refuse a name that they do not have: another posterior than was asked for is worse than an error."""

import pytest
from pydantic import ValidationError
from torch import nn

import posterity
from posterity import InvalidInput
from posterity.fitting import _check_made

OPTIONS = [name for name in posterity.__all__ if hasattr(getattr(posterity, name), "__pydantic_fields__")]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_misspelt_option_is_refused(name: str) -> None:
    with pytest.raises((ValidationError, TypeError), match="no_such_option"):
        getattr(posterity, name)(no_such_option=1)


def test_the_options_are_found() -> None:
    assert {"MeanField", "Optimizer", "Gaussian", "NUTS", "Laplace", "Normal"} <= set(OPTIONS)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "mean_field"}, "method is 'mean_field'"),
        ({"method": posterity.MAP}, "method is the class MAP"),
        ({"likelihood": posterity.Gaussian}, "likelihood is the class Gaussian"),
        ({"engine": "cpu"}, "engine is 'cpu'"),
    ],
)
def test_names_and_classes_are_no_objects(given: dict, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        _check_made(**{"network": nn.Linear(1, 1), "likelihood": None, "method": None, "engine": None, **given})
