"""Which parameters a selection makes random, and what it refuses."""

import re

import pytest
from torch import nn

from posterity.errors import InvalidInput
from posterity.model.selection import Not, select


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def network() -> nn.ModuleDict:
    encoder = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    return nn.ModuleDict({"encoder": encoder, "lstm": nn.LSTM(2, 2), "head": nn.Linear(2, 1)})


ENCODER = {"encoder.0.weight", "encoder.0.bias", "encoder.2.weight", "encoder.2.bias"}
HEAD = {"head.weight", "head.bias"}
LSTM = {"lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0"}
NORM = {"encoder.1.weight", "encoder.1.bias"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, ENCODER | HEAD | LSTM),
        ("*", ENCODER | HEAD | LSTM | NORM),
        ("last_layer", HEAD),
        ("head", HEAD),
        ("head.weight", {"head.weight"}),
        ("encoder.*", ENCODER | NORM),
        (re.compile(r"encoder\.[02]"), ENCODER),
        (nn.Linear, ENCODER | HEAD),
        (nn.Sequential, ENCODER | NORM),
        (nn.LayerNorm, NORM),
        (
            lambda name, module: isinstance(module, nn.Linear) and name.endswith("bias"),
            {n for n in ENCODER | HEAD if "bias" in n},
        ),
        (["head", nn.LSTM], HEAD | LSTM),
        (["encoder", "!*.bias"], {"encoder.0.weight", "encoder.1.weight", "encoder.2.weight"}),
        (Not(nn.LSTM), ENCODER | HEAD),
        (["!lstm", Not("encoder")], HEAD),
        (frozenset({"head.bias"}), {"head.bias"}),
    ],
)
def test_a_selection_takes_exactly(where: object, expected: set[str]) -> None:
    assert select(network(), where) == expected


def test_frozen_parameters_are_never_taken() -> None:
    net = network()
    net["head"].weight.requires_grad_(False)
    assert select(net, "head") == {"head.bias"}


def test_tied_weights_are_one_variable_by_any_of_their_names() -> None:
    assert select(Tied()) == {"embedding.weight"}
    assert select(Tied(), ["head", "embedding"]) == {"embedding.weight"}


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("encodr.*", ["encodr", "Did you mean 'encoder"]),
        (re.compile("nothing"), ["nothing"]),
        (nn.Conv2d, ["Conv2d", "LSTM", "Linear"]),
        (["head", "haed"], ["haed", "Did you mean 'head'"]),
        ([], ["None for the whole"]),
        (lambda name, module: False, ["matches no trainable parameter"]),
        (["head", "!head"], ["selects no trainable parameter"]),
        (3, ["3", "pattern"]),
        (frozenset({"head.wieght"}), ["head.wieght", "head.weight"]),
    ],
)
def test_what_matches_nothing_is_refused_with_the_nearest(where: object, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as raised:
        select(network(), where)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("where", ["head", nn.Embedding, ["*", "!head"]])
def test_half_of_a_tied_pair_is_refused(where: object) -> None:
    with pytest.raises(InvalidInput, match="same tensor"):
        select(Tied(), where)
