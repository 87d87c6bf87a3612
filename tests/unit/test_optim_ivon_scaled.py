"""The IVON optimiser with lower precision: gradient scalers, overflow, autocast."""

import copy

import pytest
import torch
from torch.nn import functional

from posterity import InvalidInput
from posterity.optim import IVON
from tests.unit.test_optim_ivon import X, Y, mlp, seeded, step


def test_scaled_gradients_are_unscaled_with_their_curvature() -> None:
    networks = [mlp(), mlp()]
    plain, scaled = (IVON(n.parameters(), 80, 0.3, betas=(0.9, 0.9)) for n in networks)
    scaler, generators = torch.amp.GradScaler("cpu", init_scale=2.0**14), (seeded(), seeded())
    for _ in range(4):
        step(networks[0], plain, generators[0], blocks=2)
        for _ in range(2):
            with scaled.sampled(generators[1]):
                scaler.scale(functional.cross_entropy(networks[1](X), Y)).backward()
        scaler.step(scaled)
        scaler.update()
    for a, b in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
        torch.testing.assert_close(plain.state[a]["hessian"], scaled.state[b]["hessian"], rtol=1e-12, atol=0)


def test_a_step_that_overflowed_is_left_out() -> None:
    network, scaler = mlp(), torch.amp.GradScaler("cpu", init_scale=2.0**14)
    optimizer = IVON(network.parameters(), 80, 0.3)
    step(network, optimizer)
    before = copy.deepcopy((list(network.parameters()), list(optimizer.state.values())))
    with optimizer.sampled():
        scaler.scale(functional.cross_entropy(network(X), Y) * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**13
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), before[0], strict=True))
    for state, kept in zip(optimizer.state.values(), before[1], strict=True):
        assert all(torch.equal(state[k], kept[k]) for k in state)
    with optimizer.sampled():  # and the next step is as good as any
        scaler.scale(functional.cross_entropy(network(X), Y)).backward()
    scaler.step(optimizer)
    assert all(p.isfinite().all() for p in network.parameters())
    assert not torch.equal(next(network.parameters()), before[0][0])


def test_gradients_unscaled_without_their_curvature_are_refused_and_nothing_is_left_behind() -> None:
    network, scaler = mlp(), torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = IVON(network.parameters(), 80, 0.3)
    with optimizer.sampled():
        scaler.scale(functional.cross_entropy(network(X), Y)).backward()
    scaler.unscale_(optimizer)
    with pytest.raises(InvalidInput, match="leave it out"):
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    twin = mlp()
    other = IVON(twin.parameters(), 80, 0.3)
    with optimizer.sampled(seeded()):
        scaler.scale(functional.cross_entropy(network(X), Y)).backward()
    scaler.step(optimizer)
    step(twin, other, seeded())
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_under_autocast_each_block_computes_with_its_own_draw() -> None:
    network, x = mlp().float(), X.float()
    optimizer = IVON(network.parameters(), 8, initial_hessian=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = [network(x)]
        for seed in (0, 1):
            with optimizer.sampled(seeded(seed)):
                outputs.append(network(x))
                functional.cross_entropy(outputs[-1], Y).backward()
        outputs.append(network(x))
    optimizer.step()
    assert outputs[0].dtype == torch.bfloat16
    assert torch.equal(outputs[0], outputs[3])
    assert not torch.equal(outputs[1], outputs[0])
    assert not torch.equal(outputs[1], outputs[2])
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in network.parameters())
