"""Each explicit layer computes what torch's does, with random weights, and its divergence is the exact one."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence
from torch.utils._pytree import tree_leaves

import posterity
import posterity.nn as pnn
from posterity import InvalidInput, Normal
from posterity.model.bayesianize import Bayesian

ESTIMATORS = ("weight", "local_reparam", "flipout")
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


@dataclass(frozen=True)
class Case:
    name: str
    args: tuple[Any, ...]
    inputs: tuple[Tensor, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def layer(self, **ours: Any) -> pnn.Layer:
        torch.manual_seed(0)
        made: pnn.Layer = getattr(pnn, self.name)(*self.args, **self.options, dtype=torch.float64, **ours)
        return made

    def plain(self, weights: dict[str, Tensor]) -> nn.Module:
        layer: nn.Module = getattr(nn, self.name)(*self.args, **self.options, dtype=torch.float64)
        layer.load_state_dict(weights)
        return layer


ATTENDED = (noise(2, 5, 4), noise(2, 6, 3), noise(2, 6, 5))
CASES = {
    "linear": Case("Linear", (4, 3), (noise(5, 4),)),
    "linear, no bias": Case("Linear", (4, 3, False), (noise(5, 2, 4),)),
    "conv1d": Case("Conv1d", (4, 6, 3), (noise(2, 4, 9),), {"stride": 2, "groups": 2, "padding": 1}),
    "conv2d": Case("Conv2d", (2, 4, (3, 2)), (noise(2, 2, 7, 6),), {"dilation": 2, "padding_mode": "circular"}),
    "conv2d, same": Case("Conv2d", (2, 3, 3), (noise(2, 2, 5, 6),), {"padding": "same", "bias": False}),
    "conv3d": Case("Conv3d", (2, 3, 2), (noise(2, 2, 4, 3, 5),)),
    "transposed 1d": Case("ConvTranspose1d", (4, 2, 3), (noise(2, 4, 5),), {"stride": 2, "output_padding": 1}),
    "transposed 2d": Case("ConvTranspose2d", (4, 2, 3, 2, 1), (noise(2, 4, 4, 3),), {"groups": 2}),
    "transposed 3d": Case("ConvTranspose3d", (2, 3, 2), (noise(2, 2, 3, 3, 3),), {"dilation": 2}),
    "embedding": Case("Embedding", (5, 3), (torch.tensor([[0, 1, 2], [4, 3, 1]]),)),
    "lstm": Case("LSTM", (4, 3), (noise(2, 5, 4),), {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "lstm, projected": Case("LSTM", (4, 3), (noise(5, 2, 4),), {"proj_size": 2}),
    "gru": Case("GRU", (4, 3, 2), (noise(5, 2, 4),)),
    "attention": Case("MultiheadAttention", (4, 2), (noise(5, 2, 4),) * 3, {"add_bias_kv": True}),
    "cross-attention": Case(
        "MultiheadAttention", (4, 2), ATTENDED, {"kdim": 3, "vdim": 5, "batch_first": True, "add_bias_kv": True}
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
RECURRENT = ("lstm, projected", "gru")


def tensors(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def seeded(compute: Callable[[], Any]) -> Any:
    torch.manual_seed(3)
    return compute()


def test_every_layer_that_is_offered_is_tested() -> None:
    offered = {n for n, value in vars(pnn).items() if isinstance(value, type) and value is not pnn.Layer}
    assert offered == {case.name for case in CASES.values()}


@every_case
def test_the_signature_is_torchs_and_ours_by_keyword(case: Case) -> None:
    ours = inspect.signature(getattr(pnn, case.name)).parameters
    theirs = inspect.signature(getattr(nn, case.name)).parameters
    added = {"prior": None, "std": 0.02, "estimator": "weight"}
    assert [n for n in ours if n not in added] == list(theirs)
    assert all(ours[n] == parameter for n, parameter in theirs.items())
    assert {n: ours[n].default for n in added} == added
    assert all(ours[n].kind is inspect.Parameter.KEYWORD_ONLY for n in added)


@every_case
@every_estimator
def test_with_std_to_0_it_is_torchs_layer(case: Case, estimator: str) -> None:
    layer = case.layer(std=1e-9, estimator=estimator)
    expected = case.plain(layer.network.state_dict())(*case.inputs)
    found = layer(*case.inputs)
    assert type(found) is type(expected)
    for ours, theirs in zip(tensors(found), tensors(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@every_case
@every_estimator
def test_two_calls_differ_everywhere(case: Case, estimator: str) -> None:
    layer = case.layer(std=0.1, estimator=estimator)
    for first, second in zip(tensors(layer(*case.inputs)), tensors(layer(*case.inputs)), strict=True):
        assert (first != second).all()


@every_case
@every_estimator
def test_the_output_alone_gives_every_mean_and_std_a_gradient(case: Case, estimator: str) -> None:
    layer = case.layer(std=0.1, estimator=estimator)
    tensors(layer(*case.inputs))[0].square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).all(), name


@every_case
def test_a_drawn_weight_computes_and_differentiates_as_torchs_layer_with_it(case: Case) -> None:
    layer = case.layer(std=0.1)
    draws = {n: draw.detach() for n, draw in seeded(layer.draw).items()}
    plain = case.plain(draws)
    found, expected = seeded(lambda: layer(*case.inputs)), plain(*case.inputs)
    for ours, theirs in zip(tensors(found), tensors(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for outputs in (found, expected):
        tensors(outputs)[0].square().sum().backward()
    gradients = {n: p.grad for n, p in plain.named_parameters()}
    for name, mean in layer.network.named_parameters():
        torch.testing.assert_close(mean.grad, gradients[name], rtol=1e-10, atol=1e-12)
    # ∂L/∂ρ = ∂L/∂w · ε · σ′(ρ), ε = (w − μ) / σ
    means, stds = dict(layer.network.named_parameters()), layer.std
    parts = [(gradients[n] * (draws[n] - means[n]) / stds[n]).reshape(-1) for n in layer.random_names]
    torch.testing.assert_close(layer.rho.grad, torch.cat(parts) * layer.rho.sigmoid(), rtol=1e-7, atol=1e-12)


@every_case
def test_kl_is_torchs_summed(case: Case) -> None:
    layer = case.layer(std=0.07, prior=Normal(0.1, 0.4))
    q = [TorchNormal(mean, layer.std[name]) for name, mean in layer.network.named_parameters()]
    p = TorchNormal(torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64))
    exact = torch.stack([kl_divergence(part, p).sum() for part in q]).sum()
    torch.testing.assert_close(posterity.kl(layer), exact, rtol=1e-12, atol=0)


@every_case
@every_estimator
def test_deterministic_is_torchs_layer_exactly(case: Case, estimator: str) -> None:
    layer = case.layer(estimator=estimator)
    plain = posterity.deterministic(layer)
    expected = case.plain(layer.network.state_dict())
    assert type(plain) is type(expected)
    for ours, theirs in zip(tensors(plain(*case.inputs)), tensors(expected(*case.inputs)), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("estimator", "between_examples", "between_places"),
    [("weight", False, False), ("flipout", True, False), ("local_reparam", True, True)],
)
def test_the_estimator_is_the_one_asked_for(estimator: str, between_examples: bool, between_places: bool) -> None:
    """What a convolution makes of two equal, constant images says where its noise is drawn."""
    torch.manual_seed(0)
    layer = pnn.Conv2d(3, 8, 1, std=0.3, estimator=estimator, dtype=torch.float64)
    first, second = layer(torch.ones(2, 3, 2, 2, dtype=torch.float64))
    assert torch.allclose(first[:, 0, 0], second[:, 0, 0], rtol=1e-12) is not between_examples
    assert torch.allclose(first[:, 0, 0], first[:, 1, 1], rtol=1e-12) is not between_places


@pytest.mark.parametrize("name", RECURRENT)
@every_estimator
def test_one_draw_serves_all_time_steps(name: str, estimator: str) -> None:
    """A sequence in one call is what the same draw, made anew at every step, computes step by step."""
    case = CASES[name]
    layer = case.layer(std=0.3, estimator=estimator)
    (sequence,) = case.inputs
    whole, _ = seeded(lambda: layer(sequence))
    state = None
    for step, inputs in enumerate(sequence):
        output, state = seeded(lambda x=inputs, s=state: layer(x[None], s))
        torch.testing.assert_close(output[0], whole[step], rtol=1e-10, atol=1e-12)


@every_estimator
def test_the_row_of_padding_is_known(estimator: str) -> None:
    layer = pnn.Embedding(6, 3, padding_idx=-2, std=0.5, estimator=estimator)
    with torch.no_grad():
        layer.network.weight[4] = torch.tensor([1.0, -2.0, 3.0])
    torch.manual_seed(0)
    outputs = torch.stack([layer(torch.tensor([4, 1, 4])) for _ in range(20)])
    torch.testing.assert_close(outputs[:, [0, 2]], layer.network.weight[4].expand(20, 2, 3), rtol=0, atol=1e-8)
    assert outputs[:, 1].std(0).min() > 0.2
    outputs.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    drawn = posterity.posterior(layer).draw(torch.tensor([4, 1]), 10)
    assert torch.equal(drawn[:, 0], layer.network.weight[4].expand(10, 3))


def test_a_layer_of_your_own_takes_two_lines() -> None:
    class Bilinear(pnn.Layer):
        torch_layer = nn.Bilinear

    layer = Bilinear(2, 3, 4, std=1e-7)
    x, y = torch.ones(5, 2), torch.ones(5, 3)
    torch.testing.assert_close(layer(x, y), posterity.deterministic(layer)(x, y), rtol=0, atol=1e-5)
    assert layer.in2_features == 3


def test_priors_by_name_and_relative_stds_speak_of_torchs_names() -> None:
    prior = {"bias": Normal(0, 1.0), "weight": Normal(0, 3.0, fan_in=True)}
    layer = pnn.Linear(9, 2, prior=prior, std=posterity.Relative(0.1))
    torch.testing.assert_close(layer.std["weight"], layer.network.weight.abs() * 0.1)
    expected = kl_divergence(TorchNormal(layer.network.weight, layer.std["weight"]), TorchNormal(0.0, 1.0)).sum()
    expected = expected + kl_divergence(TorchNormal(layer.network.bias, layer.std["bias"]), TorchNormal(0.0, 1.0)).sum()
    torch.testing.assert_close(layer.kl(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"std": 0.0}, InvalidInput, "must be positive"),
        ({"std": {"weigth": torch.ones(2, 3)}}, InvalidInput, "'weigth' is not.* Did you mean 'weight'"),
        ({"std": {"weight": torch.ones(2, 3)}}, InvalidInput, "'bias' has no initial std"),
        ({"prior": Normal(0, {"kernel": 1.0, "*": 0.3})}, InvalidInput, "kernel"),
        ({"in_feature": 3}, TypeError, "in_feature"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        pnn.Linear(3, 2, **options)


@pytest.mark.parametrize(
    ("prior", "estimator", "words"),
    [(None, "local", "Did you mean 'local_reparam'"), (0.3, "weight", "expected a Prior, as Normal")],
)
def test_wrong_types_are_refused_without_a_type_checker(prior: object, estimator: str, words: str) -> None:
    unchecked = inspect.unwrap(Bayesian.__init__)  # these tests run under one, users do not
    with pytest.raises(InvalidInput, match=words):
        unchecked(Bayesian.__new__(Bayesian), nn.Linear(3, 2), "*", prior, estimator, 0.02)
