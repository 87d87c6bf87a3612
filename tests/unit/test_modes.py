"""Which modules keep still in training: those placed in eval mode, and normalisation of what is frozen."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from posterity.model.modes import still, train


class Backbone(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv1d(2, 3, 1), norm, nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.conv(x)))


def network(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(Backbone(norm), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 2))


NORMS: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm1d(3),
    "batch without parameters": lambda: nn.BatchNorm1d(3, affine=False),
    "instance": lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
    "instance without parameters": lambda: nn.InstanceNorm1d(3, track_running_stats=True),
    "synchronised": lambda: nn.SyncBatchNorm(3),
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.BatchNorm1d(3), dim=None),
}
every_norm = pytest.mark.parametrize("norm", [pytest.param(make, id=name) for name, make in NORMS.items()])


@every_norm
def test_normalisation_of_a_frozen_part_keeps_still(norm: Callable[[], nn.Module]) -> None:
    net = network(norm())
    assert still(net) == frozenset()
    net[0].requires_grad_(False)
    assert still(net) == still(net.eval()) == {"0.norm"}


def test_a_layer_by_itself_may_be_frozen_or_trained_within_what_is_not() -> None:
    net = network(nn.BatchNorm1d(3))
    net[0].norm.requires_grad_(False)
    assert still(net) == {"0.norm"}
    net[0].conv.requires_grad_(False)
    net[0].norm.bias.requires_grad_(True)  # its statistics go with what is trained
    assert still(net) == frozenset()
    net[0].norm = nn.BatchNorm1d(3, affine=False)
    net[0].conv.requires_grad_(True)
    assert still(net) == frozenset()


def test_what_has_no_running_statistics_does_the_same_in_both_modes_and_is_not_named() -> None:
    for norm in (nn.BatchNorm1d(3, track_running_stats=False), nn.InstanceNorm1d(3), nn.GroupNorm(1, 3)):
        assert still(network(norm).requires_grad_(False)) == {"2"}


def test_no_parameters_at_all_are_not_frozen_ones() -> None:
    assert still(nn.Sequential(nn.BatchNorm1d(3, affine=False))) == frozenset()
    assert still(nn.BatchNorm1d(3, affine=False)) == frozenset()
    assert still(nn.BatchNorm1d(3).requires_grad_(False)) == {""}


def test_what_was_placed_in_eval_mode_stays_there_and_in_a_network_in_eval_mode_nothing_was() -> None:
    net = network(nn.BatchNorm1d(3))
    net[0].eval()
    net[0].conv.train()
    assert still(net) == {"0", "0.norm", "0.drop"}
    train(net.eval(), {"0", "0.norm", "0.drop"})
    assert [n for n, m in net.named_modules() if not m.training] == ["0", "0.norm", "0.drop"]
    assert still(net.eval()) == frozenset()


@every_norm
def test_statistics_that_keep_still_do_not_move(norm: Callable[[], nn.Module]) -> None:
    net = network(norm())
    net[0].requires_grad_(False)
    before = {n: b.clone() for n, b in net[0].named_buffers()}
    other = net[2].running_mean.clone()
    train(net, still(net))
    if not isinstance(net[0].norm, nn.SyncBatchNorm):  # which needs an accelerator to be trained
        net(torch.randn(5, 2, 4) + 7)
        assert not torch.equal(other, net[2].running_mean)
    assert all(torch.equal(b, before[n]) for n, b in net[0].named_buffers())


def test_a_module_in_several_places_has_one_mode() -> None:
    norm = nn.BatchNorm1d(2)
    net = nn.Sequential(norm, nn.Linear(2, 2), norm)
    norm.eval()
    train(net, still(net))
    assert not norm.training
    assert net[1].training
