"""Masks of dropout by hooks: for each example, for each function, and as torch's own layers drop."""

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from posterity.model.dropout import FreshMasks, HeldMasks, masked
from tests.unit.test_mc_dropout import seeded

CPU = torch.device("cpu")


def test_each_example_has_a_mask_of_its_own_in_training() -> None:
    seen: list[Tensor] = []
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(9, 1)).train()
    network[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with masked(network, {"0": 0.5}, FreshMasks(seeded())):
        network(torch.ones(7, 9))
        network(torch.ones(7, 9))
    assert len({tuple(row.tolist()) for row in torch.cat(seen)}) > 10
    assert network[0].training


@pytest.mark.parametrize("make", [nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_alpha_dropout_is_that_of_torch(make: type[nn.Module]) -> None:
    """Each value is kept or dropped; both outcomes are those of torch's layer."""
    x = torch.tensor([[-1.3, 0.7, 2.0]], dtype=torch.float64).expand(400, 3)
    torch.manual_seed(0)
    layer = make(0.3).train()
    theirs = layer(x)
    with masked(layer, {"": 0.3}, FreshMasks(seeded())):
        ours = layer(x)
    for column in range(3):
        assert len(ours[:, column].unique()) == 2
        torch.testing.assert_close(ours[:, column].unique(), theirs[:, column].unique(), rtol=1e-12, atol=1e-12)
    noise = torch.randn(200_000, 2, dtype=torch.float64, generator=seeded(1))
    with masked(layer, {"": 0.3}, FreshMasks(seeded())):
        moments = layer(noise)
    assert abs(moments.mean()) < 4 / 400_000**0.5
    assert abs(moments.var() - 1) < 4 * ((moments.square().var() / 400_000) ** 0.5)


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Dropout1d, (5, 8, 3)), (nn.Dropout2d, (5, 8, 3, 3)), (nn.Dropout3d, (5, 8, 2, 2, 2))]
)
def test_channels_are_dropped_whole(layer: type[nn.Module], shape: tuple[int, ...]) -> None:
    network = nn.Sequential(layer(0.5), nn.Flatten())
    with masked(network, {"0": 0.5}, FreshMasks(seeded())):
        values = network(torch.ones(shape)).view(*shape[:2], -1)
    assert (values == values[..., :1]).all()
    assert set(values.unique().tolist()) == {0.0, 2.0}
    assert (values[0] != values[1]).any()


def test_calls_of_one_layer_have_masks_of_their_own() -> None:
    network = nn.Sequential(nn.Dropout(0.5), nn.Identity())
    masks = HeldMasks({"0": 5}, CPU)
    with masked(network, {"0": 0.5}, masks):
        network[1].register_forward_hook(lambda module, args, output: network[0](output))
        twice = network(torch.ones(2, 400))
    # Kept by both, 1/4 of the values, are multiplied by 4; with equal masks it would be half of them.
    low, high = binom.interval(1 - 6e-5, 400, 0.25)
    assert low <= int((twice[0] == 4).sum()) <= high


def test_masked_restores_after_an_error() -> None:
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 1)).train()
    with pytest.raises(RuntimeError, match="mat1"), masked(network, {"0": 0.5, "1": 0.5}, FreshMasks(seeded())):
        network(torch.ones(2, 3))
    assert all(m.training and not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())
