"""The explicit layers: each is torch's layer of that name and `Layer`, nothing else."""

import torch
from torch import Tensor, nn

from posterity.nn.layer import Layer


class Linear(Layer):
    """y = x Wᵀ + b, (..., in_features) → (..., out_features), with W and b random.

    `Linear(in_features, out_features, bias=True, device=None, dtype=None, *, prior=None, std=0.02, estimator="weight")`

    >>> layer = Linear(3, 2, std=0.1)
    >>> layer.out_features, tuple(layer.network.weight.shape), tuple(layer.std["bias"].shape)
    (2, (2, 3), (2,))
    """

    torch_layer = nn.Linear


class Conv1d(Layer):
    """A convolution with random kernel and bias, (B, C, L) → (B, C′, L′).

    `Conv1d(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,
    padding_mode="zeros", device=None, dtype=None, *, prior=None, std=0.02, estimator="weight")`

    One draw of the kernel serves all places with `estimator="weight"`; `local_reparam` draws at each place, which is for
    training alone.
    """

    torch_layer = nn.Conv1d


class Conv2d(Layer):
    """A convolution with random kernel and bias, (B, C, H, W) → (B, C′, H′, W′); arguments as for `Conv1d`.

    >>> Conv2d(1, 6, 5, padding=2, estimator="flipout")(torch.ones(4, 1, 28, 28)).shape
    torch.Size([4, 6, 28, 28])
    """

    torch_layer = nn.Conv2d


class Conv3d(Layer):
    """A convolution with random kernel and bias, (B, C, D, H, W) → (B, C′, D′, H′, W′); arguments as for `Conv1d`."""

    torch_layer = nn.Conv3d


class ConvTranspose1d(Layer):
    """A transposed convolution with random kernel and bias, (B, C, L) → (B, C′, L′).

    `ConvTranspose1d(in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True,
    dilation=1, padding_mode="zeros", device=None, dtype=None, *, prior=None, std=0.02, estimator="weight")`
    """

    torch_layer = nn.ConvTranspose1d


class ConvTranspose2d(Layer):
    """A transposed convolution with random kernel and bias, in 2 dimensions; arguments as for `ConvTranspose1d`."""

    torch_layer = nn.ConvTranspose2d


class ConvTranspose3d(Layer):
    """A transposed convolution with random kernel and bias, in 3 dimensions; arguments as for `ConvTranspose1d`."""

    torch_layer = nn.ConvTranspose3d


class Embedding(Layer):
    """Rows of a random table, (...) integers → (..., embedding_dim).

    `Embedding(num_embeddings, embedding_dim, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False,
    sparse=False, device=None, dtype=None, *, prior=None, std=0.02, estimator="weight")`

    The row of `padding_idx` is known, as in torch: every draw has its mean there.

    >>> Embedding(5, 2, padding_idx=0)(torch.tensor([0]))
    tensor([[0., 0.]], grad_fn=<EmbeddingBackward0>)
    """

    torch_layer = nn.Embedding

    @property
    def std(self) -> dict[str, Tensor]:
        """σ of each row, by name; 0 for the row of `padding_idx`."""
        stds = dict(super().std)
        if self.padding_idx is not None:
            known = torch.tensor(self.padding_idx, device=self.rho.device)
            stds["weight"] = stds["weight"].index_fill(0, known, 0)
        return stds


class LSTM(Layer):
    """Long short-term memory with random weights and biases: one draw for the whole batch and all time steps.

    `LSTM(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False, proj_size=0,
    device=None, dtype=None, *, prior=None, std=0.02, estimator="weight")`

    Returns torch's `(output, (h, c))`.

    >>> output, (h, c) = LSTM(3, 5, batch_first=True)(torch.ones(2, 7, 3))
    >>> output.shape, h.shape
    (torch.Size([2, 7, 5]), torch.Size([1, 2, 5]))
    """

    torch_layer = nn.LSTM


class GRU(Layer):
    """Gated recurrent units with random weights and biases: one draw for the whole batch and all time steps.

    `GRU(input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False, device=None,
    dtype=None, *, prior=None, std=0.02, estimator="weight")`

    Returns torch's `(output, h)`.
    """

    torch_layer = nn.GRU


class MultiheadAttention(Layer):
    """Attention with random projections: one draw for the whole batch and all positions.

    `MultiheadAttention(embed_dim, num_heads, dropout=0.0, bias=True, add_bias_kv=False, add_zero_attn=False, kdim=None,
    vdim=None, batch_first=False, device=None, dtype=None, *, prior=None, std=0.02, estimator="weight")`

    Returns torch's `(output, weights)`. Inside `nn.TransformerEncoderLayer`, which reads the weights of its attention, use
    `posterity.bayesianize` on the whole layer instead.
    """

    torch_layer = nn.MultiheadAttention
