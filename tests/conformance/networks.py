"""The table of networks that the coverage laws are held to: what each is, what it is given, and what torch cannot do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posterity.zoo.resnet import ResNet20

BATCH = 3
VOCABULARY = 50


def same(network: nn.Module, x: Tensor) -> Tensor:
    """What most networks are called like: one tensor in, one out."""
    return network(x)


def first(network: nn.Module, x: Tensor) -> Tensor:
    """The first of a recurrent layer's outputs: one for each step of the sequence."""
    return network(x)[0]


def attended(network: nn.Module, x: Tensor) -> Tensor:
    """What attention returns for a sequence that attends to itself."""
    return network(x, x, x)[0]


def logits(network: nn.Module, ids: Tensor) -> Tensor:
    """What a language model returns under this name."""
    return network(input_ids=ids).logits


@dataclass(frozen=True)
class Case:
    """A network with its inputs, and what torch itself cannot do with it."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    call: Callable[[Any, Tensor], Tensor] = same
    no_gradient: tuple[str, ...] = ()  # ends of names of parameters that no output depends on
    no_vmap: str = ""  # why, in train or eval mode alike


class Flat(nn.Module):
    """A network as a problem takes it: one tensor of outputs per example, (B, D)."""

    def __init__(self, inner: nn.Module, call: Callable[[Any, Tensor], Tensor]):
        super().__init__()
        self.inner, self.call = inner, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.inner, x).flatten(1)


class Lookup(nn.Module):
    """Token embeddings, row 0 for padding, and a head on them."""

    def __init__(self, sparse: bool = False):
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 6, padding_idx=0, sparse=sparse)
        self.head = nn.Linear(6, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids))


class Tied(nn.Module):
    """One tensor that is both the table of tokens and the head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, VOCABULARY, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids))


class Raw(nn.Module):
    """A bare parameter, multiplied as people do it without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w.T


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 4, 3, stride=2, dilation=2, groups=2, padding=2, padding_mode="circular"),
        nn.ReLU(),
        nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"),
    )


def normalised(norm: nn.Module) -> nn.Module:
    """A small CNN; its convolution has no bias, which batch normalisation would take out again."""
    return nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), norm, nn.Tanh(), nn.Flatten(), nn.Linear(64, 2))


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'hf': pip install 'posterity[hf]'")
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs the extra 'hf': pip install 'posterity[hf]'")
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=16,
        n_embd=32,
        n_layer=2,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config)


def encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)


def normal(*shape: int) -> Callable[[], Tensor]:
    """Standard normal inputs of one example's shape."""
    return lambda: torch.randn(BATCH, *shape)


def tokens() -> Tensor:
    """Sequences of 7 tokens, the last of which is padding in one of them."""
    ids = torch.randint(1, VOCABULARY, (BATCH, 7))
    ids[0, -1] = 0
    return ids


RECURRENT = "torch has no batching rule for its recurrent kernels"
RUNNING = "running statistics are updated in place"

NETWORKS = {
    "linear at the root": Case(lambda: nn.Linear(4, 3), normal(4)),
    "mlp": Case(lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), normal(4)),
    "cnn": Case(convolutions, normal(4, 9, 9)),
    "transposed convolution": Case(
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1, groups=1), normal(3, 4, 4)
    ),
    "conv1d": Case(lambda: nn.Conv1d(3, 4, 3, padding="same"), normal(3, 8)),
    "conv3d": Case(lambda: nn.Conv3d(2, 3, 2), normal(2, 4, 4, 4)),
    "batch norm": Case(lambda: normalised(nn.BatchNorm2d(4)), normal(2, 6, 6), no_vmap=RUNNING),
    "layer norm": Case(lambda: normalised(nn.LayerNorm([4, 4, 4])), normal(2, 6, 6)),
    "group norm": Case(lambda: normalised(nn.GroupNorm(2, 4)), normal(2, 6, 6)),
    "embedding": Case(Lookup, tokens),
    "sparse embedding": Case(lambda: Lookup(sparse=True), tokens),
    "tied embedding": Case(Tied, tokens),
    "raw parameter": Case(Raw, normal(5)),
    "lstm": Case(
        lambda: nn.LSTM(5, 4, 2, bidirectional=True, batch_first=True), normal(6, 5), first, no_vmap=RECURRENT
    ),
    "gru": Case(lambda: nn.GRU(5, 4, 2, bidirectional=True, batch_first=True), normal(6, 5), first, no_vmap=RECURRENT),
    "attention": Case(lambda: nn.MultiheadAttention(8, 2, batch_first=True), normal(5, 8), attended),
    "transformer encoder layer": Case(encoder_layer, normal(5, 8)),
    "resnet20 batch": Case(lambda: ResNet20(in_channels=1), normal(1, 8, 8), no_vmap=RUNNING),
    "resnet20 frn": Case(lambda: ResNet20(in_channels=1, norm="frn"), normal(1, 8, 8)),
    # A key's bias adds the same to all the scores of a query, and softmax does not see it.
    "bert": Case(bert, tokens, logits, no_gradient=("key.bias",)),
    "gpt2": Case(gpt2, tokens, logits),
}
