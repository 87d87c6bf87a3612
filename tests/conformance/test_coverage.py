"""Any network: each row of the table of networks, made Bayesian as it is, by each estimator and on both roads.

The roads are `bayesianize`, for a training loop of one's own, and `Problem` with `MeanField`.
"""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import Categorical, MeanField, Normal, Optimizer, Problem
from posterity.core.layout import Layout, trainable
from posterity.methods.mean_field import MeanFieldInference
from posterity.model.bayesianize import Bayesian
from posterity.model.selection import NORMALISATION
from posterity.train.random import NamedStreams
from posterity.types import Budget
from tests.conformance import compiled
from tests.conformance.compiled import SKIPPED
from tests.conformance.networks import NETWORKS, Case, Flat
from tests.processes import Forked

pytestmark = pytest.mark.filterwarnings("ignore:The network normalises")  # any statistics will do here

ESTIMATORS = ("weight", "local_reparam", "flipout")
every_network = pytest.mark.parametrize("name", NETWORKS)
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def made(name: str, dtype: torch.dtype = torch.float64) -> tuple[Case, nn.Module, Tensor]:
    """A row's network with weights of its own, and inputs."""
    torch.manual_seed(0)
    case = NETWORKS[name]
    network, x = case.make().to(dtype), case.inputs()
    return case, network, x.to(dtype) if x.is_floating_point() else x


def seeded(case: Case, network: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(1)
    return case.call(network, x)


def gradients(case: Case, network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """∂(mean square of the outputs)/∂parameter, by the network's own names, dense."""
    network.zero_grad()
    case.call(network, x).square().mean().backward()
    plain = network.network if isinstance(network, Bayesian) else network
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for n, p in plain.named_parameters()}


def without_noise(bnn: Bayesian) -> Bayesian:
    """The same with σ = softplus(−1000) = 0."""
    with torch.no_grad():
        bnn.rho.fill_(-1000.0)
    return bnn


@every_network
@every_estimator
def test_draws_differ_and_gradients_reach_every_mean_and_std(name: str, estimator: str) -> None:
    case, network, x = made(name)
    bnn = posterity.bayesianize(network, "*", estimator=estimator, init=0.1)
    assert set(bnn.random_names) == set(trainable(network))
    assert not torch.equal(case.call(bnn, x), case.call(bnn, x))
    means = gradients(case, bnn, x)
    stds = Layout.of(bnn.std).views(bnn.rho.grad)
    for random in bnn.random_names:
        if not random.endswith(case.no_gradient):
            assert means[random].abs().max() > 0, f"no gradient for the mean of {random}"
            assert stds[random].abs().max() > 0, f"no gradient for the std of {random}"


@every_network
@every_estimator
def test_without_noise_it_is_the_original_with_its_gradients(name: str, estimator: str) -> None:
    case, network, x = made(name)
    bnn = without_noise(posterity.bayesianize(network, "*", estimator=estimator))
    torch.testing.assert_close(case.call(bnn, x), case.call(network, x))
    torch.testing.assert_close(gradients(case, bnn, x), gradients(case, network, x))
    assert dict(network.named_buffers()).keys() == dict(bnn.network.named_buffers()).keys()
    for ours, theirs in zip(bnn.network.buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)  # running statistics moved as often
    torch.testing.assert_close(case.call(bnn.eval(), x), case.call(network.eval(), x))


@every_network
def test_conversion_and_training_leave_the_original_alone(name: str) -> None:
    case, network, x = made(name)
    network.train()
    next(network.children(), network).eval()  # a mode that is not the same everywhere
    kept, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    for estimator in ESTIMATORS:
        bnn = posterity.bayesianize(network, "*", estimator=estimator, init=0.1)
        assert [m.training for m in bnn.network.modules()] == modes
        optimizer = torch.optim.SGD(bnn.parameters(), 0.1)
        (case.call(bnn, x).square().mean() + posterity.kl(bnn) / 100).backward()
        optimizer.step()
        assert any((p != q).any() for p, q in zip(bnn.network.parameters(), network.parameters(), strict=True))
    assert [m.training for m in network.modules()] == modes
    assert all(p.grad is None for p in network.parameters())
    torch.testing.assert_close(network.state_dict(), kept, rtol=0, atol=0)


@every_network
@every_estimator
def test_copies_draw_the_same_under_the_same_seed(name: str, estimator: str) -> None:
    case, network, x = made(name)
    bnn = posterity.bayesianize(network, "*", estimator=estimator, init=0.1).eval()
    again = posterity.bayesianize(network, "*", estimator=estimator, init=0.5).eval()
    again.load_state_dict(bnn.state_dict())
    before = pickle.loads(pickle.dumps(bnn))  # one that has not run yet
    expected = seeded(case, bnn, x)
    for same in (copy.deepcopy(bnn), pickle.loads(pickle.dumps(bnn)), before, again):
        torch.testing.assert_close(seeded(case, same, x), expected, rtol=0, atol=0)


def lowered(case: Case, network: nn.Module, x: Tensor) -> None:
    """Skip where torch itself cannot: its LSTM in bfloat16 needs instructions that not every processor has."""
    try:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            case.call(copy.deepcopy(network), x)
    except RuntimeError as error:
        pytest.skip(f"the plain network fails, too: {error}")


@every_network
@every_estimator
def test_autocast_is_finite_and_goes_on_drawing(name: str, estimator: str) -> None:
    case, network, x = made(name, torch.float32)
    lowered(case, network, x)
    bnn = posterity.bayesianize(network, "*", estimator=estimator, init=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = case.call(bnn, x)
        assert not torch.equal(outputs, case.call(bnn, x))
    assert outputs.isfinite().all()
    outputs.float().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in bnn.parameters())


@every_network
def test_normalisation_is_deterministic_unless_it_is_selected(name: str) -> None:
    _, network, _ = made(name)
    norms = {
        f"{prefix}.{n}".removeprefix(".")
        for prefix, module in network.named_modules()
        if isinstance(module, NORMALISATION)
        for n, _ in module.named_parameters()
    }
    assert set(posterity.bayesianize(network).random_names) == set(trainable(network)) - norms
    assert bool(norms) == any(word in name for word in ("norm", "transformer", "batch", "bert", "gpt2"))


@every_network
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_over_draws_equals_a_loop(name: str) -> None:
    """In one call, `vmap` computes with many draws; with local reparameterisation and Flipout there is no such draw."""
    case, network, x = made(name)
    bnn = posterity.bayesianize(network, "*", init=0.1)
    draws = [{n: w.detach() for n, w in bnn.draw().items()} for _ in range(3)]
    stacked = {n: torch.stack([draw[n] for draw in draws]) for n in draws[0]}

    def run(draw: dict[str, Tensor]) -> Tensor:
        plain = bnn.network

        def called(*args: object, **kwargs: object) -> object:
            return torch.func.functional_call(plain, draw, args, kwargs)

        return case.call(called, x)

    for training in (True, False):
        bnn.train(training)
        if case.no_vmap and (training or "recurrent" in case.no_vmap):
            with pytest.raises(RuntimeError, match=r"Batching rule not implemented|running_mean"), torch.no_grad():
                torch.func.vmap(run)(stacked)  # should torch learn it one day, this test says so
            continue
        with torch.no_grad():
            torch.testing.assert_close(torch.func.vmap(run)(stacked), torch.stack([run(draw) for draw in draws]))
            many = torch.func.vmap(lambda _: case.call(bnn, x), randomness="different")(torch.arange(2))
        assert not torch.equal(many[0], many[1])


DEEP = ("resnet20 batch", "resnet20 frn", "bert", "gpt2")  # whose kernels would take minutes: traced, not made


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("mlp", "aot_eager"),
        *(pytest.param(n, "aot_eager" if n in DEEP else "inductor", marks=pytest.mark.slow) for n in NETWORKS),
    ],
)
def test_compile_takes_the_whole_graph_where_torch_does(name: str, backend: str) -> None:
    """In a process of its own, since the compiler cannot read through checks of types."""
    NETWORKS[name].make()  # skips here where the network needs a library that is not installed
    done = Forked(compiled.main, name, backend).done()
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr


def inference(
    name: str, estimator: str, initial_std: float, dtype: torch.dtype = torch.float64
) -> tuple[MeanFieldInference, Tensor, Problem]:
    """A row's network in a problem, whose likelihood takes its outputs for logits."""
    case, network, x = made(name, dtype)
    problem = Problem(Flat(network, case.call), Normal(0, 0.3), Categorical(), 100, where="*")
    method = MeanField(estimator, temperature=0.0, initial_std=initial_std, optimizer=Optimizer(lr=0.01))
    return MeanFieldInference(problem, method, Budget(1, 1), initial_std), x, problem


@every_network
@every_estimator
def test_problem_gradients_reach_every_mean_and_std(name: str, estimator: str) -> None:
    """With temperature 0 the KL is silent: what the step has moved, the likelihood has moved."""
    running, x, problem = inference(name, estimator, 0.1)
    state = running.init(NamedStreams(0, "noise"))
    before = {k: state[k].clone() for k in ("mean", "rho")}
    problem.check((x, torch.zeros(len(x), dtype=torch.int64)))
    state, info = running.update(state, (x, torch.zeros(len(x), dtype=torch.int64)))
    assert info["nll"].isfinite()
    for part in before:
        moved = problem.layout.views((state[part] - before[part]).abs())
        for random, change in moved.items():
            if not random.endswith(NETWORKS[name].no_gradient):
                assert change.max() > 0, f"no gradient for the {part} of {random}"


@every_network
def test_problem_draws_differ_and_are_the_network_without_noise(name: str) -> None:
    running, x, _ = inference(name, "weight", 0.1)
    draws = running.posterior(running.init(NamedStreams(0, "noise"))).draw(x, 2)
    assert not torch.equal(draws[0], draws[1])
    still, x, problem = inference(name, "weight", 1e-12)
    draws = still.posterior(still.init(NamedStreams(0, "noise"))).draw(x, 2)
    with torch.no_grad():
        expected = problem.network.eval()(x)
    torch.testing.assert_close(draws, torch.stack([expected, expected]))


@every_network
def test_problem_draws_differ_under_autocast(name: str) -> None:
    """Autocast keeps the weights that it has lowered; the next draw must not meet the last one's."""
    lowered(*made(name, torch.float32))
    running, x, _ = inference(name, "weight", 0.1, torch.float32)
    posterior = running.posterior(running.init(NamedStreams(0, "noise")))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        draws = posterior.draw(x, 2)
    assert draws.isfinite().all()
    assert not torch.equal(draws[0], draws[1])
