"""Both forms of a hierarchical prior start at the weights, take steps that mean the same, and end at the same predictions."""

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import (
    MAP,
    SGHMC,
    SGLD,
    SWAG,
    Categorical,
    Cyclical,
    Engine,
    HalfCauchy,
    HalfNormal,
    Hierarchical,
    InverseGamma,
    LogNormal,
    MeanField,
    Normal,
    Problem,
    Product,
    TensorData,
    fit,
)
from posterity.data import load
from posterity.model.initial import initial_std

QUIET = Engine(progress=False, device="cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))


def starts(prior: posterity.Prior, own: nn.Module | None = None) -> dict[str, Tensor]:
    problem = Problem(own or network(), prior, Categorical(), 100)
    views = problem.layout.views(problem.theta())
    return {n.removeprefix("prior.scale."): v.exp() for n, v in views.items() if n.startswith("prior.")}


@pytest.mark.parametrize("centered", [True, False])
def test_scales_start_at_those_of_their_weights(centered: bool) -> None:
    own = dict(network().named_parameters())
    by_tensor = starts(Hierarchical(centered=centered))
    assert {n: s.item() for n, s in by_tensor.items()} == pytest.approx(
        {n: p.square().mean().sqrt().item() for n, p in own.items()}, rel=1e-5
    )
    by_layer = starts(Hierarchical(per="layer", centered=centered))
    layer = torch.cat([own["0.weight"].flatten(), own["0.bias"]])
    assert by_layer["0"].item() == pytest.approx(layer.square().mean().sqrt().item(), rel=1e-5)
    laplace = starts(Hierarchical("laplace", centered=centered))
    assert laplace["2.weight"].item() == pytest.approx(own["2.weight"].abs().mean().item(), rel=1e-5)
    part = starts(Product({"0.*": Normal(0, 1), "*": Hierarchical(centered=centered)}))
    assert set(part) == {"2.weight", "2.bias"}


def test_rows_borrow_from_their_parameter() -> None:
    own = network()
    with torch.no_grad():
        own[0].bias[0] = 1e-7
        own[0].weight[3] *= 10
    rows = starts(Hierarchical(per="row"), own)
    assert rows["0.bias"].min() > 0.5 * rows["0.bias"].max()
    expected = own[0].weight[3].square().mean().sqrt().item()
    assert rows["0.weight"][3].item() == pytest.approx(expected, rel=0.1)


def test_an_initial_std_and_weights_of_zero() -> None:
    assert starts(Hierarchical(initial_std=0.25))["0.weight"].item() == pytest.approx(0.25, rel=1e-5)
    zero = network()
    nn.init.zeros_(zero[2].weight)
    assert starts(Hierarchical(), zero)["2.weight"].item() == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("scale", [HalfNormal(1.0), HalfCauchy(0.1), InverseGamma(2.0, 0.02), LogNormal(-2.0, 0.5)])
def test_scales_stay_within_the_reach_of_their_prior(scale: object) -> None:
    low, high = scale.reach()
    draws = scale.sample(torch.empty(200_000), torch.Generator().manual_seed(0))
    for edge, share in ((low, 1e-3), (high, 1 - 1e-3)):
        assert float((draws < edge).double().mean()) == pytest.approx(share, abs=4 * (1e-3 / 200_000) ** 0.5)
    for factor, edge in ((1e-6, low), (1e6, high)):
        own = network()
        with torch.no_grad():
            own[0].weight.mul_(factor)
        assert starts(Hierarchical(scale=scale), own)["0.weight"].item() == pytest.approx(edge, rel=1e-4)


@pytest.mark.parametrize("init", [0.02, {n: torch.full(p.shape, 0.03) for n, p in network().named_parameters()}])
def test_stds_at_the_start_are_those_of_the_weights(init: object) -> None:
    centred, other = (Problem(network(), Hierarchical(centered=c), Categorical(), 9).coordinates for c in (True, False))
    count = centred.network
    expected, std = (initial_std(where, init)[:count] for where in (centred, other))
    torch.testing.assert_close(std * other.unit()[:count], expected)
    torch.testing.assert_close(other.weights(other.theta())[:count], centred.theta()[:count])


@pytest.mark.parametrize("method", [MAP(epochs=1), SWAG(epochs=1)], ids=["Adam", "SGD"])
def test_a_first_step_is_the_same_in_both_forms(method: object) -> None:
    """Without a prior to speak of (many data) and with scales that hardly move, the weights take the same step."""
    x, y = torch.randn(50, 64), torch.arange(50) % 10
    moved = []
    for centered in (True, False):
        problem = Problem(network(), Hierarchical(scale=LogNormal(-2.5, 1e-4), centered=centered), Categorical(), 10**9)
        inference = posterity.methods.map.PointInference(problem, method.optimizer, 1)
        state = inference.init(QUIET.streams())
        inference.update(state, (x, y))
        moved.append(problem.coordinates.weights(state["theta"])[: problem.coordinates.network])
    start = torch.cat([p.detach().flatten() for p in network().parameters()])
    assert (moved[0] - start).abs().max() > 1e-4
    torch.testing.assert_close(moved[0], moved[1], rtol=0.02, atol=1e-5)


def test_the_maximum_that_is_looked_for_is_the_same_in_both_forms_and_bounded() -> None:
    forms = [
        Problem(network(), Hierarchical(per="layer", centered=c), Categorical(), 9).coordinates for c in (True, False)
    ]
    values = [where.bounded_log_prior(where.theta()) for where in forms]
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-3)
    where, theta = forms[0], forms[0].theta()
    smaller = theta.clone()
    smaller[: where.network] *= 1e-3
    smaller[where.network :] -= 3 * torch.log(torch.tensor(10.0))  # weights and scales together, a thousandth
    assert where.log_prior(smaller) > where.log_prior(theta) + 1000  # without a bound
    assert where.bounded_log_prior(smaller) < where.bounded_log_prior(theta)


def digits() -> tuple[TensorData, Tensor, Tensor]:
    data = load("digits").standardised()
    train = TensorData(data.train_inputs[:600].flatten(1), data.train_targets[:600], batch_size=60)
    return train, data.test_inputs.flatten(1), data.test_targets


@pytest.mark.parametrize("per", ["layer", "row", pytest.param("tensor", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method",
    [
        SWAG(),
        pytest.param(Cyclical(), marks=pytest.mark.slow),
        pytest.param(Cyclical(SGLD()), marks=pytest.mark.slow),
        pytest.param(SGHMC(), marks=pytest.mark.slow),
    ],
    ids=["SWAG", "Cyclical", "Cyclical SGLD", "SGHMC"],
)
def test_both_forms_predict_alike_at_the_defaults(method: object, per: str) -> None:
    train, x, y = digits()
    scores = []
    for centered in (True, False):
        prior = Hierarchical(scale=HalfNormal(0.5), per=per, centered=centered)
        torch.manual_seed(1)
        posterior = fit(network(), train, prior=prior, method=method, engine=QUIET)
        scores.append(posterior.predict(x, 16, generator=torch.Generator().manual_seed(0)).scores(y))
    error = (0.06 * 0.94 / len(y)) ** 0.5
    assert min(s["accuracy"] for s in scores) > 0.94 - 5 * error
    assert abs(scores[0]["accuracy"] - scores[1]["accuracy"]) < 5 * error


def test_mean_field_in_the_non_centred_form_arrives_at_its_defaults() -> None:
    train, x, y = digits()
    prior = Hierarchical(scale=HalfNormal(0.5), per="layer", centered=False)
    posterior = fit(network(), train, prior=prior, method=MeanField(), engine=QUIET)
    assert posterior.predict(x, 16).scores(y)["accuracy"] > 0.85
