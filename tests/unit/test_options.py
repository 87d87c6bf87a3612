"""Options refuse a name that they do not have: another posterior than was asked for is worse than an error."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import nn

import posterity
from posterity import InvalidInput, PosterityError
from posterity.fitting import _check_made

OPTIONS = [name for name in posterity.__all__ if hasattr(getattr(posterity, name), "__pydantic_fields__")]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_misspelt_option_is_refused(name: str) -> None:
    with pytest.raises((PosterityError, TypeError), match="no_such_option"):
        getattr(posterity, name)(no_such_option=1)


def test_the_options_are_found() -> None:
    assert {"MeanField", "Optimizer", "Gaussian", "NUTS", "Laplace", "Normal"} <= set(OPTIONS)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("MeanField", {"epochs": "x"}, ["MeanField(epochs='x')", "whole number"]),
        ("MeanField", {"epochs": 0}, ["epochs=0", "at least 1"]),
        ("MeanField", {"estimator": "flip"}, ["estimator='flip'", "Did you mean 'flipout'?", "local_reparam"]),
        ("MeanField", {"epoch": 3}, ["no option 'epoch'", "Did you mean 'epochs'?"]),
        ("MeanField", {"antithetic": True}, ["pairs"]),
        ("Normal", {"std": -1.0}, ["Normal(std=-1.0)", "above 0"]),
        ("Normal", {"std": "x"}, ["number or a table"]),
        ("Ensemble", {"method": "map"}, ["method='map'", "MAP()"]),
        ("Laplace", {"method": posterity.Ensemble()}, ["not one network", "Ensemble(Laplace(…), n)"]),
        ("Cyclical", {"method": posterity.MAP()}, ["sghmc, sgld"]),
        ("Optimizer", {"lr": float("nan")}, ["lr=nan", "finite"]),
        ("Optimizer", {"name": "\x1b[31m"}, ["Adam"]),
    ],
)
def test_what_is_wrong_is_said_in_our_words(name: str, given: dict, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        getattr(posterity, name)(**given)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert text.isprintable()
    assert "pydantic" not in text
    assert "Input should" not in text


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", ["x", -1, [], {}, None, object(), float("nan"), 2**70])
def test_no_option_says_it_in_pydantics_words(name: str, value: object) -> None:
    kind = getattr(posterity, name)
    for option in kind.__pydantic_fields__:
        text = said(lambda option=option: kind(**{option: value}))
        assert "Input should" not in text
        assert len(text.splitlines()) <= 1


def said(make: Callable[[], object]) -> str:
    """What one is told, if anything; of an argument that was left out Python itself speaks."""
    try:
        make()
    except (PosterityError, TypeError) as error:
        return str(error)
    return ""


def test_a_copy_a_pickle_and_a_change_are_checked_or_the_same() -> None:
    method = posterity.Ensemble(posterity.MAP(epochs=3), 2)
    assert pickle.loads(pickle.dumps(copy.deepcopy(method))) == method
    assert replace(method, n=4).n == 4
    with pytest.raises(InvalidInput, match="at least 1"):
        replace(method, n=0)


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
