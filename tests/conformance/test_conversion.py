"""What conversions of networks are known to get wrong: each of these was refused, or silently changed, somewhere."""

import re

import pytest
import torch
from torch import nn

import posterity
from posterity import InvalidInput, Normal
from posterity.model.bayesianize import Bayesian
from tests.conformance.networks import NETWORKS, Tied, bert, encoder_layer, gpt2, logits, tokens

ESTIMATORS = ("weight", "local_reparam", "flipout")
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


def converted(network: nn.Module, estimator: str, init: float = 0.1) -> Bayesian:
    """All of a network random, in float64."""
    return posterity.bayesianize(network.double(), "*", estimator=estimator, init=init)


def without_noise(bnn: Bayesian) -> Bayesian:
    with torch.no_grad():
        bnn.rho.fill_(-1000.0)
    return bnn


@every_estimator
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_transformer_encoder_layer_is_converted(estimator: str, mode: str) -> None:
    network, x = encoder_layer().double(), torch.randn(3, 5, 8).double()
    bnn = converted(network, estimator).train(mode == "training")
    assert len(bnn.random_names) == len(list(network.parameters())) == 12
    assert not torch.equal(bnn(x), bnn(x))
    network.train(mode == "training")
    torch.testing.assert_close(without_noise(bnn)(x), network(x))


@every_estimator
def test_gpt2s_transposed_convolutions_and_tied_head_are_converted(estimator: str) -> None:
    bnn, ids = converted(gpt2(), estimator), tokens()
    assert {"transformer.h.0.attn.c_attn.weight", "transformer.h.1.mlp.c_proj.bias"} <= set(bnn.random_names)
    assert "lm_head.weight" not in bnn.random_names  # it is transformer.wte.weight
    assert not torch.equal(logits(bnn, ids), logits(bnn, ids))
    torch.testing.assert_close(logits(without_noise(bnn), ids), logits(bnn.network, ids))


@every_estimator
def test_a_bidirectional_lstm_of_three_layers_keeps_its_layers_and_directions(estimator: str) -> None:
    network, x = nn.LSTM(5, 4, 3, bidirectional=True).double(), torch.randn(6, 2, 5).double()
    bnn = converted(network, estimator)
    assert len(bnn.random_names) == 3 * 2 * 4  # layers, directions; two weights and two biases each
    outputs, (hidden, cell) = bnn(x)
    assert (outputs.shape, hidden.shape, cell.shape) == ((6, 2, 8), (6, 2, 4), (6, 2, 4))
    torch.testing.assert_close(without_noise(bnn)(x), network(x))


@every_estimator
@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), 8),
        (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), 8),
        (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), 16),
    ],
    ids=["circular", "reflect", "output_padding"],
)
def test_padding_mode_and_output_padding_are_kept(estimator: str, layer: object, side: int) -> None:
    network, x = layer().double(), torch.randn(2, 3, 8, 8).double()
    bnn = converted(network, estimator)
    assert bnn(x).shape == (2, 4, side, side)
    torch.testing.assert_close(without_noise(bnn)(x), network(x))


@every_estimator
def test_a_linear_layer_at_the_root_is_converted(estimator: str) -> None:
    bnn, x = converted(nn.Linear(4, 3), estimator), torch.randn(2, 4).double()
    assert bnn.random_names == ("weight", "bias")
    assert (bnn(x) != bnn(x)).all()


@every_estimator
def test_a_tied_embedding_and_head_stay_one_random_variable(estimator: str) -> None:
    """Head(table(all tokens)) = W Wᵀ is symmetric only where both are the same draw of W."""
    network, every = Tied(), torch.arange(50)
    bnn = converted(network, estimator, init=0.5)
    assert bnn.random_names == ("table.weight",)
    assert bnn.rho.numel() == network.table.weight.numel()
    outputs = bnn(every)
    torch.testing.assert_close(outputs, outputs.T)
    assert not torch.equal(outputs, bnn(every))
    plain = posterity.deterministic(bnn)
    assert plain.head.weight is plain.table.weight


def test_torchs_fused_encoder_computes_with_the_drawn_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """In evaluation without gradients, torch gives the whole layer to one kernel, which must get the draw."""
    fused, calls = torch._transformer_encoder_layer_fwd, []
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a: calls.append(1) or fused(*a))
    bnn, x = converted(encoder_layer(), "weight").eval(), torch.randn(3, 5, 8).double()
    with torch.no_grad():
        torch.manual_seed(1)
        outputs = bnn(x)
        assert len(calls) == 1
        assert not torch.equal(outputs, bnn(x))
    torch.manual_seed(1)
    draw = bnn.draw()
    assert len(calls) == 2
    expected = torch.func.functional_call(bnn.network, draw, (x,))  # with gradients: layer by layer
    assert len(calls) == 2
    torch.testing.assert_close(outputs, expected)


@every_estimator
def test_a_sequence_meets_one_draw_of_the_recurrent_weights(estimator: str) -> None:
    """A GRU without recurrent weights and biases, on one input repeated: h_t = n (1 − zᵗ), with the same n and z."""
    network = nn.GRU(5, 4, batch_first=True, bias=False)
    nn.init.zeros_(network.weight_hh_l0)
    bnn = posterity.bayesianize(network.double(), "weight_ih_l0", estimator=estimator, init=1.0)
    x = torch.randn(3, 1, 5).double()
    h = bnn(x.expand(3, 6, 5))[0]
    z = h[:, 1] / h[:, 0] - 1
    steps = torch.arange(1, 7)[None, :, None]
    torch.testing.assert_close(h, h[:, :1] / (1 - z[:, None]) * (1 - z[:, None] ** steps))
    assert not torch.equal(h, bnn(x.expand(3, 6, 5))[0])


def test_an_lstm_computes_with_the_weights_that_were_drawn() -> None:
    bnn, x = converted(nn.LSTM(5, 4, 2, bidirectional=True), "weight"), torch.randn(6, 2, 5).double()
    torch.manual_seed(1)
    outputs = bnn(x)[0]
    torch.manual_seed(1)
    with torch.no_grad():
        for name, draw in bnn.draw().items():
            bnn.network.get_parameter(name).copy_(draw)
        torch.testing.assert_close(outputs, bnn.network(x)[0])


@every_estimator
def test_the_row_for_padding_gets_no_gradient_as_in_torch(estimator: str) -> None:
    bnn = converted(NETWORKS["embedding"].make(), estimator)
    bnn(tokens()).square().sum().backward()
    stds = bnn.rho.grad[: bnn.network.table.weight.numel()].view_as(bnn.network.table.weight)
    for gradient in (bnn.network.table.weight.grad, stds):
        assert gradient[0].abs().max() == 0
        assert gradient[1:].abs().max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "claseifier.*"}, "Did you mean 'classifier"),
        ({"where": nn.Conv2d}, "no such module holds trainable parameters"),
        ({"where": []}, r"where=\[\] selects nothing"),
        ({"prior": Normal(0, {"*.wieght": 1.0, "*": 0.1})}, "matches no parameter"),
        ({"prior": {"*.bias": Normal(0, 1)}}, r"Add '\*' as the last pattern"),
        ({"init": -0.1}, "must be positive and finite"),
        ({"init": {"bert.pooler.dense.weight": torch.ones(1)}}, "has no initial std"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_changed(arguments: dict[str, object], message: str) -> None:
    network = bert()
    before = {n: (p, p.data_ptr(), p.detach().clone()) for n, p in network.named_parameters()}
    state = torch.get_rng_state()
    with pytest.raises(InvalidInput, match=message):
        posterity.bayesianize(network, **arguments)
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in network.named_parameters():
        same, pointer, value = before[name]
        assert parameter is same
        assert parameter.data_ptr() == pointer
        torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=0)


def test_one_of_two_tied_names_is_refused() -> None:
    with pytest.raises(InvalidInput, match=re.escape("takes 'head.weight' and leaves 'table.weight'")):
        posterity.bayesianize(Tied(), "head")
