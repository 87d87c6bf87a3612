"""ResNet-20: the equations of its parts, the whole from its numbers alone, its count, its start."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from posterity import Categorical, Normal, Problem
from posterity.errors import InvalidInput
from posterity.methods.ensemble import reinitialise
from posterity.zoo import ResNet20, build
from posterity.zoo.resnet import FilterResponseNorm


def images(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_filter_response_norm_is_its_equation():
    norm = FilterResponseNorm(3).double()
    with torch.no_grad():
        for i, parameter in enumerate(norm.parameters()):
            parameter.copy_(images(3, seed=10 + i))
    x = images(2, 3, 4, 5, dtype=torch.float64)
    array, (gamma, beta, tau) = x.numpy(), (p.detach().numpy() for p in (norm.weight, norm.bias, norm.threshold))
    for b in range(2):
        for c in range(3):
            scale = ((array[b, c] ** 2).sum() / 20 + 1e-6) ** -0.5
            expected = (gamma[c] * array[b, c] * scale + beta[c]).clip(min=tau[c])
            torch.testing.assert_close(norm(x)[b, c], torch.from_numpy(expected), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(norm, x.requires_grad_())


def test_filter_response_norm_starts_at_one_zero_zero_and_again():
    norm = FilterResponseNorm(2)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.fill_(5.0)
    norm.reset_parameters()
    assert [p.tolist() for p in (norm.weight, norm.bias, norm.threshold)] == [[1, 1], [0, 0], [0, 0]]


def twin_of_resnet(state: dict[str, torch.Tensor], x: torch.Tensor, norm: str) -> torch.Tensor:
    """Compute a ResNet-20 in eval mode from its numbers alone."""
    act = functional.relu if norm == "batch" else functional.silu

    def layer(name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight, channels = state[f"{name}.conv.weight"], (1, -1, 1, 1)
        x = functional.conv2d(x, weight, state.get(f"{name}.conv.bias"), stride, padding=weight.shape[-1] // 2)
        scale, shift = (state[f"{name}.norm.{n}"].reshape(channels) for n in ("weight", "bias"))
        if norm == "batch":
            mean, variance = (state[f"{name}.norm.running_{n}"].reshape(channels) for n in ("mean", "var"))
            return scale * (x - mean) / (variance + 1e-5).sqrt() + shift
        x = x / ((x**2).flatten(2).mean(-1)[..., None, None] + 1e-6).sqrt()
        threshold = state[f"{name}.norm.threshold"].reshape(channels)
        return torch.where(scale * x + shift > threshold, scale * x + shift, threshold)

    x = act(layer("stem", x))
    for i, (before, after) in enumerate(pairwise([16, 16, 16, 16, 32, 32, 32, 64, 64, 64])):
        stride, shortcut = (1, x) if before == after else (2, None)
        if shortcut is None and norm == "frn":
            shortcut = layer(f"blocks.{i}.shortcut", x, 2)
        elif shortcut is None:
            shortcut = functional.avg_pool2d(x, 1, 2)  # every second pixel
            shortcut = torch.cat([shortcut, torch.zeros_like(shortcut)], 1)
        x = act(layer(f"blocks.{i}.second", act(layer(f"blocks.{i}.first", x, stride))) + shortcut)
    return functional.linear(x.flatten(2).mean(-1), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize("norm", ["batch", "frn"])
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (9, 13)])
def test_resnet20_is_the_composition_that_it_says(norm, size):
    network = ResNet20(7, 2, norm=norm).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "norm" in name and value.is_floating_point():  # away from 0 and 1, where mistakes cancel
                value.add_(torch.rand(value.shape, generator=generator) * 0.5)
    x = images(3, 2, *size, dtype=torch.float64)
    torch.testing.assert_close(network(x), twin_of_resnet(network.state_dict(), x, norm), rtol=1e-9, atol=1e-9)


def test_resnet20_is_counted_by_hand():
    convolutions = 3 * 9 * 16 + 6 * 16 * 9 * 16 + (16 + 5 * 32) * 9 * 32 + (32 + 5 * 64) * 9 * 64
    batch, frn = (dict(ResNet20(norm=norm).named_parameters()) for norm in ("batch", "frn"))

    def size(params: dict[str, nn.Parameter], ending: str) -> int:
        return sum(p.numel() for n, p in params.items() if n.endswith(ending))

    assert size(batch, "conv.weight") == convolutions == 267_696
    assert size(frn, "conv.weight") == convolutions + 16 * 32 + 32 * 64
    assert size(batch, "conv.bias") == 0
    assert size(batch, "norm.weight") == size(batch, "norm.bias") == 7 * 16 + 6 * 32 + 6 * 64
    for ending in ("conv.bias", "norm.weight", "norm.bias", "norm.threshold"):
        assert size(frn, ending) == 7 * (16 + 32 + 64)
    assert sum("conv.weight" in n for n in batch) == 19  # and one linear layer
    assert not any("shortcut" in n for n in batch)


def test_resnet20_with_filter_responses_sees_each_example_alone():
    x = images(4, 3, 16, 16)
    alone, with_others = ResNet20(norm="frn").train(), ResNet20(norm="batch").train()
    torch.testing.assert_close(alone(x)[:1], alone(x[:1]), rtol=1e-4, atol=1e-5)
    assert (with_others(x)[:1] - with_others(x[:1])).abs().max() > 1e-2
    assert dict(alone.named_buffers()) == {}


def test_resnet20_starts_as_he_et_al_say_and_can_be_drawn_afresh():
    network = ResNet20(norm="frn")
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    reinitialise(Problem(network, Normal(0, 1), Categorical(), 10), 1)
    for name, parameter in network.named_parameters():
        if name.endswith("conv.weight"):
            assert not torch.equal(parameter, before[name])
            n, std = parameter.numel(), (2 / parameter[0].numel()) ** 0.5
            assert abs(parameter.mean()) < 4.5 * std / n**0.5
            assert abs(parameter.std() - std) < 4.5 * std / (2 * n) ** 0.5
        elif not name.startswith("fc"):
            assert torch.equal(parameter, before[name])


def test_a_prior_can_be_centred_at_the_scales_where_they_start():
    for norm in ("batch", "frn"):
        params = dict(ResNet20(norm=norm).named_parameters())
        shapes = {n: p.shape for n, p in params.items()}
        mean, _ = Normal({"*.norm.weight": 1.0, "*": 0.0}, 0.3).resolve(shapes)
        start = torch.cat([p.detach().flatten() if "norm" in n else torch.zeros(p.numel()) for n, p in params.items()])
        assert torch.equal(mean, start)


def test_an_unknown_norm_names_the_nearest():
    with pytest.raises(InvalidInput, match="Unknown norm 'bacth'. Did you mean 'batch'"):
        ResNet20(norm="bacth")
    with pytest.raises(InvalidInput, match="Unknown norm"):
        build("resnet20", (3, 32, 32), 10, norm="layer")
