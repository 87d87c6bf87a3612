"""The optimiser against the method, an exact posterior, and what loops do: errors, schedules, saved states."""

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import posterity
from posterity import Categorical, InvalidInput, Normal, Problem, optim
from posterity.methods import ivon as method
from posterity.methods.ivon import IVONInference
from posterity.optim import IVON
from posterity.train.random import NamedStreams
from posterity.types import Budget
from tests.conformance.table import Conjugate

X = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step(network: nn.Module, optimizer: IVON, generator: torch.Generator | None = None, blocks: int = 1) -> None:
    for _ in range(blocks):
        with optimizer.sampled(generator):
            functional.cross_entropy(network(X), Y).backward()
    optimizer.step()


def interrupted(network: nn.Module, optimizer: IVON, error: type[BaseException]) -> None:
    with optimizer.sampled():
        functional.cross_entropy(network(X), Y).backward()
        raise error


def test_steps_are_those_of_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two draws a step from equal noise: means, Hessians and stds agree to rounding."""
    network, generator = mlp(), seeded()
    noises = [torch.randn(26, dtype=torch.float64, generator=generator) for _ in range(12)]
    whole, flat = iter(noises), iter(torch.cat(noises))
    monkeypatch.setattr(method, "noise_like", lambda like, generator: next(whole))
    monkeypatch.setattr(
        optim, "noise_like", lambda p, generator: torch.stack([next(flat) for _ in range(p.numel())]).view_as(p)
    )
    problem = Problem(copy.deepcopy(network), Normal(0, 0.5), Categorical(), 80)
    settings = posterity.IVON(lr=0.3, schedule="constant", hessian_momentum=0.9, initial_hessian=0.2, draws=2)
    inference = IVONInference(problem, settings, Budget(1, 10))
    state = inference.init(NamedStreams(0, "t"))
    optimizer = IVON(network.parameters(), 80, 0.3, 0.5, betas=(0.9, 0.9), initial_hessian=0.2)
    start = problem.theta()
    for _ in range(6):
        inference.update(state, (X, Y))
        step(network, optimizer, blocks=2)
        for key, own in (("mean", lambda p: p), ("hessian", lambda p: optimizer.state[p]["hessian"])):
            found = torch.cat([own(p).detach().reshape(-1) for p in network.parameters()])
            torch.testing.assert_close(found, state[key], rtol=1e-10, atol=1e-12)
    stds = torch.cat([optimizer.std(p).reshape(-1) for p in network.parameters()])
    torch.testing.assert_close(stds, inference.posterior(state).std, rtol=1e-10, atol=0)
    assert (state["mean"] - start).abs().max() > 0.1


def test_the_conjugate_posterior_is_found() -> None:
    """With a schedule of torch's; the std is mean field's, 1/√diag(precision), and not the marginal one."""
    case, means, stds = Conjugate.make(), [], []
    for seed in range(4):
        torch.manual_seed(seed)
        layer, generator = nn.Linear(2, 1).double(), seeded(seed)
        optimizer = IVON(layer.parameters(), 24, 0.1, case.prior_std, betas=(0.9, 0.99), initial_hessian=1.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
        for _ in range(500):
            for _ in range(2):
                with optimizer.sampled(generator):
                    (0.5 * ((layer(case.x).squeeze(1) - case.y) / case.noise).square().mean()).backward()
            optimizer.step()
            schedule.step()
        means.append(torch.cat([p.detach().reshape(-1) for p in layer.parameters()]))
        stds.append(torch.cat([optimizer.std(p).reshape(-1) for p in layer.parameters()]))
    mean, std = torch.stack(means), torch.stack(stds)
    assert ((mean.mean(0) - case.mean).abs() < 4 * mean.std(0) / 2 + 1e-3).all()
    exact = case.precision.diagonal().rsqrt()
    # The second-order term's bias is of order 1 − β₂ = 1 %.
    assert ((std.mean(0) - exact).abs() < 4 * std.std(0) / 2 + 0.01 * exact).all()
    marginal = torch.linalg.inv(case.precision).diagonal().sqrt()
    assert ((std.mean(0) - marginal).abs() > 0.2 * marginal)[:2].all()


def test_draws_have_the_std_that_is_said() -> None:
    layer = nn.Linear(400, 50, bias=False)
    optimizer, mean = IVON(layer.parameters(), 100, prior_std=0.3, initial_hessian=0.5), layer.weight.detach().clone()
    exact = (100 * 0.5 + 1 / 0.3**2) ** -0.5
    torch.testing.assert_close(optimizer.std(layer.weight), torch.full((50, 400), exact))
    with torch.no_grad(), optimizer.draw(seeded()):
        noise = (layer.weight - mean) / exact
    assert abs(noise.mean()) < 4 / 20_000**0.5
    assert abs(noise.var() - 1) < 4 * (2 / 20_000) ** 0.5
    assert torch.equal(layer.weight, mean)
    assert layer.weight.grad is None


def test_an_error_in_a_block_leaves_the_mean_and_the_gradients_as_they_were() -> None:
    network = mlp()
    optimizer = IVON(network.parameters(), 80)
    with optimizer.sampled():
        functional.cross_entropy(network(X), Y).backward()
    kept = [(p.detach().clone(), p.grad.clone(), optimizer.state[p]["curvature"].clone()) for p in network.parameters()]
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            interrupted(network, optimizer, error)
        for p, (mean, grad, curvature) in zip(network.parameters(), kept, strict=True):
            assert torch.equal(p, mean)
            assert torch.equal(p.grad, grad)
            assert torch.equal(optimizer.state[p]["curvature"], curvature)
    with pytest.raises(RuntimeError), optimizer.draw():
        network(X[:, :2])
    assert all(torch.equal(p, mean) for p, (mean, _, _) in zip(network.parameters(), kept, strict=True))
    optimizer.step()  # of the one good block


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    network, generator = mlp(), seeded()
    optimizer = IVON(network.parameters(), 80, 0.2, betas=(0.9, 0.95))
    for _ in range(3):
        step(network, optimizer, generator)
    file = io.BytesIO()
    torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, file)
    noise = generator.get_state()
    for _ in range(3):
        step(network, optimizer, generator)
    other, saved = mlp(), torch.load(io.BytesIO(file.getvalue()))
    resumed = IVON(other.parameters(), 1)  # all settings but the parameters are in the state
    other.load_state_dict(saved["network"])
    resumed.load_state_dict(saved["optimizer"])
    assert float(resumed.state[next(other.parameters())]["step"]) == 3
    generator.set_state(noise)
    for _ in range(3):
        step(other, resumed, generator)
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        for key in ("step", "gradient", "hessian", "curvature"):
            assert torch.equal(optimizer.state[a][key], resumed.state[b][key]), key
    copied = pickle.loads(pickle.dumps(optimizer))
    assert copied.param_groups[0]["betas"] == (0.9, 0.95)


def test_without_a_gradient_a_weight_returns_to_its_prior_and_a_frozen_one_stays() -> None:
    used, unused, frozen = (nn.Parameter(torch.full((2,), 0.7)) for _ in range(3))
    frozen.requires_grad_(False)
    optimizer = IVON([used, unused, frozen], 5, 0.2, 0.4, betas=(0.9, 0.9), initial_hessian=0.5)
    for _ in range(300):
        with optimizer.sampled(seeded()):
            assert torch.equal(frozen, torch.full((2,), 0.7))
            assert not torch.equal(unused, torch.full((2,), 0.7))
            used.sum().backward()
        optimizer.step()
    assert unused.abs().max() < 1e-3
    torch.testing.assert_close(optimizer.std(unused), torch.full((2,), 0.4), rtol=1e-3, atol=0)
    assert torch.equal(frozen, torch.full((2,), 0.7))
    assert frozen not in optimizer.state


def test_groups_have_settings_and_precisions_of_their_own() -> None:
    single, double = nn.Linear(3, 2), nn.Linear(2, 2).double()
    groups = [{"params": single.parameters(), "prior_std": 0.1}, {"params": double.parameters(), "lr": 0.0}]
    optimizer = IVON(groups, 1000, initial_hessian=0.1)
    before = [p.detach().clone() for p in double.parameters()]
    with optimizer.sampled():
        functional.cross_entropy(double(single(X.float()).double()), Y).backward()
    optimizer.step()
    assert optimizer.state[single.weight]["hessian"].dtype == torch.float32
    assert optimizer.state[double.weight]["hessian"].dtype == torch.float64
    assert all(torch.equal(p, b) for p, b in zip(double.parameters(), before, strict=True))
    fresh = IVON(groups, 1000, initial_hessian=0.1)
    assert float(fresh.std(single.bias)[0]) == pytest.approx((1000 * 0.1 + 100) ** -0.5)
    assert float(fresh.std(double.bias)[0]) == pytest.approx((1000 * 0.1 + 1) ** -0.5)


def test_parameters_on_several_devices() -> None:
    here, elsewhere = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, device="meta"))
    optimizer = IVON([here, elsewhere], 10)
    with pytest.raises(InvalidInput, match="generator on cpu .* parameters on cpu, meta"), optimizer.sampled(seeded()):
        pass
    with optimizer.sampled():
        here.sum().backward()
    optimizer.step()
    assert not torch.equal(here, torch.ones(3))
    assert optimizer.state[elsewhere]["hessian"].device.type == "meta"


def test_blocks_are_averaged_and_losses_in_a_block_add_up() -> None:
    networks = [mlp() for _ in range(3)]
    optimizers = [IVON(n.parameters(), 80, 0.3) for n in networks]
    noise = seeded().get_state()
    for number, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
        generator = seeded()
        if number == 0:  # one draw, twice: the mean of two equal draws is that draw
            for _ in range(2):
                generator.set_state(noise)
                with optimizer.sampled(generator):
                    functional.cross_entropy(network(X), Y).backward()
        elif number == 1:
            optimizer.zero_grad()
            with optimizer.sampled(generator):
                for part in (slice(0, 4), slice(4, 8)):
                    (0.5 * functional.cross_entropy(network(X[part]), Y[part])).backward()
        else:
            with optimizer.sampled(seeded(5)):  # forgotten by zero_grad
                functional.cross_entropy(network(X), Y).backward()
            optimizer.zero_grad()
            with optimizer.sampled(generator):
                functional.cross_entropy(network(X), Y).backward()
        optimizer.step()
    for p in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(p[0], p[1], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(p[0], p[2], rtol=1e-12, atol=1e-13)


def test_a_closure_is_a_block() -> None:
    networks = [mlp(), mlp()]
    optimizers = [IVON(n.parameters(), 80, 0.3) for n in networks]

    def closure() -> Tensor:
        optimizers[1].zero_grad()
        loss = functional.cross_entropy(networks[1](X), Y)
        loss.backward()
        return loss

    for seed in range(3):
        torch.manual_seed(seed)
        step(networks[0], optimizers[0])
        torch.manual_seed(seed)
        assert optimizers[1].step(closure).item() > 0
    assert all(torch.equal(a, b) for a, b in zip(*(n.parameters() for n in networks), strict=True))


def test_sparse_gradients() -> None:
    tables = [nn.Embedding(5, 2, sparse=sparse).double() for sparse in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    for table in tables:
        optimizer, generator = IVON(table.parameters(), 20, 0.3), seeded()
        for _ in range(3):
            with optimizer.sampled(generator):
                table(torch.tensor([0, 2, 2])).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(tables[0].weight, tables[1].weight, rtol=1e-12, atol=0)


def test_misuse_is_refused_by_the_name_of_its_fix() -> None:
    network = mlp()
    optimizer = IVON(network.parameters(), 80)
    with pytest.raises(InvalidInput, match=r"step\(\) without a draw: .*with optimizer.sampled"):
        optimizer.step()
    with pytest.raises(InvalidInput, match="leave the block first"), optimizer.sampled():
        optimizer.step()
    with pytest.raises(InvalidInput, match=r"inside a block of sampled\(\)"), optimizer.sampled(), optimizer.draw():
        pass
    with pytest.raises(InvalidInput, match=r"shape \(2,\) is none of the optimiser's"):
        optimizer.std(torch.zeros(2))
    with pytest.raises(InvalidInput, match=r"bfloat16.*torch.autocast"):
        IVON(mlp().bfloat16().parameters(), 80)
    with pytest.raises(InvalidInput, match="float16"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, dtype=torch.float16))]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_data": 0},
        {"num_data": float("nan")},
        {"lr": -0.1},
        {"prior_std": 0.0},
        {"initial_hessian": float("inf")},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        IVON(mlp().parameters(), **{"num_data": 10, **wrong})
