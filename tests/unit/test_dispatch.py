"""What each random weight meets in a pass: how it is found out, what is refused, and what is drawn in its place."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import posterity
from posterity import Categorical, InvalidInput, MeanField, Normal, Problem
from posterity.core.dispatch import UNSEEN, hindrance, rehearse
from posterity.methods.mean_field import MeanFieldInference
from posterity.model.bayesianize import Bayesian
from posterity.train.random import NamedStreams
from posterity.types import Budget
from tests.conformance.networks import Tied

RULES = ("local_reparam", "flipout")
every_rule = pytest.mark.parametrize("estimator", RULES)


class Net(nn.Module):
    """Bare parameters and one line of computation."""

    def __init__(self, compute: Callable[["Net", Tensor], Tensor], **shapes: tuple[int, ...]):
        super().__init__()
        self.compute = compute
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape, dtype=torch.float64)))

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def converted(network: nn.Module, estimator: str, where: object = "*", init: object = 0.5) -> Bayesian:
    torch.manual_seed(0)
    return posterity.bayesianize(network, where, estimator=estimator, init=init)


def reasons(network: nn.Module, x: Tensor, *deterministic: str) -> dict[str, str]:
    params = {n: p for n, p in network.named_parameters() if n not in deterministic}
    uses = rehearse(lambda: network(x), params, params, network.buffers())
    return {n: hindrance(n, uses) for n in params}


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda n, x: functional.linear(x, n.w, n.b), {"w": "", "b": ""}),
        (lambda n, x: x @ n.w.T + n.b, {"w": "no rule for Tensor.T", "b": "no rule for Tensor.add"}),
        (
            lambda n, x: functional.linear(functional.linear(x, n.w, n.b), n.w),
            {"w": "used twice in a forward pass", "b": "its weight is used twice in a forward pass"},
        ),
        (
            lambda n, x: sum(functional.linear(x, n.w, n.b) for _ in range(4)),
            {"w": "used 4 times in a forward pass", "b": "used 4 times in a forward pass"},
        ),
        (lambda n, x: functional.linear(n.w, x, n.b[:1]), {"w": "no rule for the input of linear"}),
        (lambda n, x: x, {"w": "", "b": ""}),
    ],
    ids=["rule", "no rule", "twice", "four times", "input", "unused"],
)
def test_the_reason_is_that_of_the_pass(compute: Callable[[Net, Tensor], Tensor], expected: dict[str, str]) -> None:
    found = reasons(Net(compute, w=(5, 5), b=(5,)), inputs(3, 5))
    assert {n: found[n] for n in expected} == expected


def test_a_bias_beside_a_deterministic_weight_has_no_rule() -> None:
    assert reasons(nn.Linear(3, 2).double(), inputs(4, 3), "weight") == {"bias": "its weight is deterministic"}


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_fused_kernels(layer: type[nn.Module]) -> None:
    found = reasons(layer(3, 2).double(), inputs(5, 1, 3))
    assert set(found.values()) == {f"fused kernel {'rnn_tanh' if layer is nn.RNN else layer.__name__.lower()}"}


def test_questions_about_a_weight_are_no_uses() -> None:
    def compute(net: Net, x: Tensor) -> Tensor:
        assert net.w.shape == net.w.size() == (2, 3)
        assert net.w.dim() == net.w.ndim == 2
        assert net.w.requires_grad
        assert not net.w.is_cuda
        return functional.linear(x.to(net.w.device, net.w.dtype), net.w)

    assert reasons(Net(compute, w=(2, 3)), inputs(4, 3)) == {"w": ""}


def test_a_rehearsal_leaves_no_trace() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).double()
    kept, x = {n: b.clone() for n, b in network.named_buffers()}, inputs(6, 3)
    before = torch.get_rng_state()
    reasons(network, x)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(dict(network.named_buffers()), kept, rtol=0, atol=0)
    assert all(p.grad is None for p in network.parameters())


@every_rule
def test_a_first_step_moves_running_statistics_once(estimator: str) -> None:
    """On both roads, with a weight that only the rehearsal finds to be used twice."""
    torch.manual_seed(0)
    network = nn.Sequential(Tied(), nn.Flatten(), nn.BatchNorm1d(100)).double()
    ids, expected = torch.randint(50, (3, 2)), copy.deepcopy(network)
    expected(ids)
    bnn = posterity.bayesianize(network, estimator=estimator, init=1e-9)
    bnn(ids)
    problem = Problem(network, Normal(0, 1), Categorical(), 100)
    inference = MeanFieldInference(problem, MeanField(estimator, initial_std=1e-9), Budget(1, 1), 1e-9)
    inference.update(inference.init(NamedStreams(0, "noise")), (ids, torch.zeros(3, dtype=torch.int64)))
    for moved in (bnn.network, network):
        torch.testing.assert_close(dict(moved.named_buffers()), dict(expected.named_buffers()))


@every_rule
def test_a_first_pass_without_gradients_serves_those_with_gradients(estimator: str) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    bnn, x = posterity.bayesianize(network, estimator=estimator), torch.randn(6, 3)
    with torch.inference_mode():
        bnn(x)
    bnn(x).square().sum().backward()
    assert bnn.rho.grad.abs().min() > 0
    assert bnn.network[1].num_batches_tracked == 2


class Behind(torch.autograd.Function):
    """A matrix product that saves its weight where no mode sees it."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return grad @ w.T, x.T @ grad


@torch.jit.script
def scripted(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


@every_rule
@pytest.mark.parametrize("product", [Behind.apply, scripted], ids=["autograd.Function", "torch.jit"])
def test_what_torch_does_not_show_is_refused_rather_than_left_deterministic(
    estimator: str, product: Callable[..., Tensor]
) -> None:
    network, x = Net(lambda n, x: product(functional.linear(x, n.w), n.v), w=(3, 3), v=(3, 2)), inputs(4, 3)
    assert reasons(network, x) == {"w": "", "v": UNSEEN}
    with pytest.raises(InvalidInput, match=r"'v' is used where no torch function shows it.*estimator='weight'"):
        converted(network, estimator)(x)
    drawn = converted(network, "weight", "v")
    assert not torch.equal(drawn(x), drawn(x))
    drawn(x).sum().backward()
    assert drawn.rho.grad.abs().min() > 0
    converted(network, estimator, "w")(x)  # deterministic, it is nobody's concern


@every_rule
def test_a_random_input_of_a_linear_operation_is_drawn(estimator: str) -> None:
    """Queries that are parameters themselves, as in pooling by attention: y = Q w has E[y²] with both variances in it."""
    network = Net(lambda n, x: functional.linear(n.q, n.w) * x, q=(1, 1), w=(1, 1))
    bnn = converted(network, estimator)
    with torch.no_grad():
        drawn = torch.stack([bnn(torch.ones(1, 1).double()) for _ in range(500)]).flatten()
    q, w, variance = network.q.item(), network.w.item(), 0.25
    expected = (q**2 + variance) * (w**2 + variance)
    assert abs(float(drawn.square().mean()) - expected) < 4 * float(drawn.square().std()) / 500**0.5
    bnn(torch.ones(1, 1).double()).sum().backward()
    assert bnn.rho.grad.abs().min() > 0


@every_rule
def test_a_bias_of_two_layers_is_one_draw(estimator: str) -> None:
    """y = (x w₁ + b) − (x w₂ + b): what is drawn for b cancels."""
    network = Net(
        lambda n, x: functional.linear(x, n.w, n.b) - functional.linear(x, n.v, n.b), w=(2, 3), v=(2, 3), b=(2,)
    )
    bnn, x = converted(network, estimator, "b"), inputs(5, 3)
    torch.testing.assert_close(bnn(x), network(x))
    bnn = converted(network, estimator)
    assert not torch.equal(bnn(x), bnn(x))


@every_rule
def test_a_pass_that_uses_a_weight_in_another_way_than_the_first_is_right_too(estimator: str) -> None:
    """x Wᵀ W has the symmetric matrix Wᵀ W in it only where both factors are one draw."""
    network = Net(lambda n, x: functional.linear(x, n.w) @ n.w if n.twice else functional.linear(x, n.w), w=(4, 4))
    network.twice = False
    bnn = converted(network, estimator)
    every = torch.eye(4).double()
    bnn(every)
    bnn.network.twice = True
    for _ in range(2):
        product = bnn(every)
        torch.testing.assert_close(product, product.T)
    bnn.network.twice = False
    assert not torch.equal(bnn(every), bnn(every))
