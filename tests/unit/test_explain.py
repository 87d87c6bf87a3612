"""`explain`: rows against what is known of each network, and against what the estimators themselves then do."""

import copy
import json

import pytest
import torch
from torch import nn

import posterity
import posterity.nn as pnn
from posterity import Hierarchical, InvalidInput, LaplacePrior, Normal, ScaleMixture
from posterity.model.explain import Entry, Explanation, explain
from tests.conformance.networks import NETWORKS, Tied, encoder_layer, tokens
from tests.unit.test_dispatch import Net, inputs, scripted

ESTIMATORS = ("weight", "local_reparam", "flipout")


def rows(found: Explanation) -> dict[str, Entry]:
    return {entry.name: entry for entry in found.entries}


def small() -> nn.Module:
    """A layer of each kind that a row can speak of."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    network[3].weight.requires_grad_(False)
    return network


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_row_for_each_parameter(estimator: str) -> None:
    bnn = posterity.bayesianize(small(), ["0", "5"], prior=Normal(0, {"*.bias": 1.0, "*": 0.2}), estimator=estimator)
    found = explain(bnn, torch.randn(4, 2, 4, 4))
    drawn = "weight draw" if estimator == "weight" else estimator
    norm, rest = ("deterministic", "normalisation layer"), ("deterministic", "not selected")
    assert [(e.name, e.shape, e.numbers, (e.estimator, e.why), e.prior, e.uses, e.kl) for e in found.entries] == [
        ("0.weight", (3, 2, 3, 3), 54, (drawn, ""), "Normal(0, 0.2)", 1, "closed form"),
        ("0.bias", (3,), 3, (drawn, ""), "Normal(0, 1)", 1, "closed form"),
        ("1.weight", (3,), 3, norm, None, None, None),
        ("1.bias", (3,), 3, norm, None, None, None),
        ("3.weight", (5, 12), 60, ("frozen", ""), None, None, None),
        ("3.bias", (5,), 5, rest, None, None, None),
        ("5.weight", (2, 5), 10, (drawn, ""), "Normal(0, 0.2)", 1, "closed form"),
        ("5.bias", (2,), 2, (drawn, ""), "Normal(0, 1)", 1, "closed form"),
    ]
    assert [e.std for e in found.entries if e.std is not None] == pytest.approx([0.02] * 4)
    assert (found.random, found.deterministic, found.bytes) == (69, 71, 69 * 2 * 4)
    assert found.random + found.deterministic == sum(p.numel() for p in small().parameters())


def test_stds_are_those_of_now() -> None:
    bnn = posterity.bayesianize(nn.Linear(3, 2), init=0.1)
    with torch.no_grad():
        bnn.rho[:6] += torch.randn(6)
    found = rows(explain(bnn, torch.ones(2, 3)))
    assert found["weight"].std == pytest.approx(bnn.std["weight"].mean().item())
    assert found["bias"].std == pytest.approx(0.1)


def test_the_reasons_are_those_of_the_rules() -> None:
    tied = rows(explain(posterity.bayesianize(Tied(), estimator="flipout"), tokens()))
    assert (tied["table.weight"].why, tied["table.weight"].uses) == ("used twice in a forward pass", 2)
    raw = rows(explain(posterity.bayesianize(NETWORKS["raw parameter"].make(), estimator="flipout"), torch.ones(2, 5)))
    assert raw["w"].why == "no rule for Tensor.T"
    lstm = rows(explain(posterity.bayesianize(nn.LSTM(3, 2), estimator="local_reparam"), torch.ones(4, 1, 3)))
    assert {(e.estimator, e.why) for e in lstm.values()} == {("weight draw", "fused kernel lstm")}
    bnn = posterity.bayesianize(encoder_layer(), estimator="flipout")
    encoder = rows(explain(bnn, torch.ones(2, 5, 8)))
    assert encoder["self_attn.in_proj_weight"].why == "fused kernel multi_head_attention_forward"
    assert encoder["norm1.weight"].why == "normalisation layer"
    assert (encoder["linear1.weight"].estimator, encoder["linear1.weight"].why) == ("flipout", "")


@pytest.mark.parametrize("estimator", ["local_reparam", "flipout"])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_says_what_the_estimator_then_does(name: str, estimator: str) -> None:
    torch.manual_seed(0)
    case = NETWORKS[name]
    bnn, x = posterity.bayesianize(case.make(), "*", estimator=estimator), case.inputs()
    example = {"input_ids": x} if name in ("bert", "gpt2") else (x, x, x) if name == "attention" else x
    found = explain(bnn, example)
    case.call(bnn, x)
    unused = {e.name for e in found.entries if e.why == "not used by this example"}
    assert {e.name for e in found.entries if e.estimator == estimator} - unused == bnn._drawing.by_rule - unused
    assert all(e.uses >= 1 for e in found.entries if e.name not in unused)
    assert all(len(line) <= 120 for line in str(found).splitlines())


def test_what_no_estimator_can_see_is_said() -> None:
    network = Net(lambda n, x: scripted(x, n.w), w=(3, 2))
    found = explain(posterity.bayesianize(network, estimator="flipout"), inputs(4, 3))
    assert found.entries[0].estimator == "none"
    assert "where no torch function shows it" in found.entries[0].why
    assert explain(posterity.bayesianize(network), inputs(4, 3)).entries[0].estimator == "weight draw"


def test_what_the_example_does_not_reach_is_said() -> None:
    network = Net(lambda n, x: x @ n.w, w=(3, 2), spare=(4,))
    found = rows(explain(posterity.bayesianize(network), inputs(2, 3)))
    assert (found["spare"].why, found["spare"].uses) == ("not used by this example", 0)


@pytest.mark.parametrize(
    ("prior", "text", "kl"),
    [
        (Normal(0.5, 1.0, fan_in=True), "Normal(0.5, 0.5)", "closed form"),
        (LaplacePrior(0, 0.1), "Laplace(0, 0.1)", "closed form"),
        (ScaleMixture(0.5, 1.0, 0.01), "ScaleMixture(0.5, 1, 0.01)", "Monte Carlo"),
        ({"bias": Normal(0, 2.0), "*": Normal(0, 0.3)}, "Normal(0, 0.3)", "closed form"),
        ({"bias": ScaleMixture(), "*": Normal(0, 0.3)}, "Normal(0, 0.3)", "Monte Carlo"),
        (Hierarchical(), "Hierarchical", "closed form"),
    ],
)
def test_priors_are_written_with_the_numbers_of_each_parameter(prior: object, text: str, kl: str) -> None:
    """And the KL is called what it is: two evaluations of a closed form are equal, two estimates are not."""
    bnn = posterity.bayesianize(nn.Linear(4, 3), prior=prior)
    found = rows(explain(bnn, torch.ones(2, 4)))
    assert (found["weight"].prior, found["weight"].kl) == (text, kl)
    if not bnn.coordinates.latents:
        assert torch.equal(bnn.kl(), bnn.kl()) == (kl == "closed form")


def test_latents_of_a_prior_have_rows() -> None:
    bnn = posterity.bayesianize(nn.Linear(4, 3), prior=Hierarchical(per="row"), estimator="flipout")
    found = explain(bnn, torch.ones(2, 4))
    assert [(e.name, e.shape, e.why, e.kl) for e in found.entries[2:]] == [
        ("prior.scale.weight", (3,), "latent of the prior", "Monte Carlo"),
        ("prior.scale.bias", (3,), "latent of the prior", "Monte Carlo"),
    ]
    assert found.bytes == 2 * 4 * bnn.rho.numel()


def test_several_bayesian_modules_in_a_tree() -> None:
    shared = pnn.Linear(5, 5)
    network = nn.Sequential(nn.Linear(3, 5), shared, nn.LayerNorm(5), shared, pnn.Linear(5, 2, estimator="flipout"))
    found = explain(network, torch.ones(4, 3))
    assert [(e.name, e.estimator, e.why, e.uses) for e in found.entries] == [
        ("0.weight", "deterministic", "not selected", None),
        ("0.bias", "deterministic", "not selected", None),
        ("1.weight", "weight draw", "", 2),
        ("1.bias", "weight draw", "", 2),
        ("2.weight", "deterministic", "normalisation layer", None),
        ("2.bias", "deterministic", "normalisation layer", None),
        ("4.weight", "flipout", "", 1),
        ("4.bias", "flipout", "", 1),
    ]


def test_nothing_is_changed() -> None:
    network = nn.Sequential(nn.Dropout(0.5), posterity.bayesianize(small(), "0", estimator="flipout"), nn.Dropout(0.5))
    network[1].network[1].eval()
    kept, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    x, state = torch.randn(4, 2, 4, 4), torch.get_rng_state()
    explain(network, x)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(network.state_dict(), kept, rtol=0, atol=0)
    assert [m.training for m in network.modules()] == modes
    assert "forward" not in vars(network[1])
    assert not torch.equal(network[1](x), network[1](x))


def test_a_table_for_people_and_numbers_for_programs() -> None:
    found = explain(posterity.bayesianize(small(), "0"), torch.randn(4, 2, 4, 4))
    lines = str(found).splitlines()
    assert lines[0].split() == ["parameter", "shape", "prior", "std", "estimator", "uses", "KL"]
    assert " ".join(lines[2].split()) == "0.weight 3×2×3×3 Normal(0, 0.3) 0.02 weight draw 1 closed form"
    assert " ".join(lines[4].split()) == "1.weight 3 deterministic: normalisation layer"
    assert lines[-1].startswith("57 random and 83 deterministic numbers; the posterior takes 456 bytes")
    values = json.loads(json.dumps(found.to_dict()))
    assert (values["random"], values["deterministic"], values["bytes"]) == (57, 83, 456)
    assert values["parameters"][0] == {
        "name": "0.weight",
        "shape": [3, 2, 3, 3],
        "numbers": 54,
        "estimator": "weight draw",
        "why": "",
        "prior": "Normal(0, 0.3)",
        "std": pytest.approx(0.02),
        "uses": 1,
        "kl": "closed form",
    }


def test_long_names_are_broken_and_lost_nowhere() -> None:
    class Deep(nn.Module):
        def __init__(self, depth: int):
            super().__init__()
            self.a_rather_long_name_of_a_module = Deep(depth - 1) if depth else nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a_rather_long_name_of_a_module(x)

    text = str(explain(posterity.bayesianize(Deep(4), estimator="flipout"), torch.ones(2, 3)))
    assert max(map(len, text.splitlines())) <= 120
    name = "a_rather_long_name_of_a_module." * 5 + "weight"
    column = text.splitlines()[0].index("shape")
    assert name in "".join(line[:column].strip() for line in text.splitlines())


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Linear holds no Bayesian module; make one with bayesianize"):
        explain(nn.Linear(2, 2), torch.ones(1, 2))
    bnn = posterity.bayesianize(nn.Linear(2, 2))
    with pytest.raises(InvalidInput, match=r"cannot take this example, \[\(1, 3\)\]: mat1 and mat2 shapes"):
        explain(bnn, torch.ones(1, 3))
    with pytest.raises(InvalidInput, match="cannot take this example"):
        explain(bnn, {"unknown": torch.ones(1, 2)})
