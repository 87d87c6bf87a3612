"""The forms in which people hold targets: read where they are unambiguous, else answered by the line to write, which trains."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from posterity import (
    Bernoulli,
    Categorical,
    Engine,
    Gaussian,
    HeteroscedasticGaussian,
    InvalidInput,
    MeanField,
    TensorData,
    fit,
)
from posterity.predict.predictive import Classification

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()  # two classes
Z = Y + (X[:, 1] > 0)  # three
IMAGES = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
MAPS = (IMAGES.sum(1) > 0).long()
VOID = MAPS.clone()
VOID[:, 0] = 255
WORDS = torch.randn(20, 5, 2, generator=torch.Generator().manual_seed(2))
TAGS = (WORDS[..., 0] > 0).long()
ONCE = MeanField(epochs=1)


def linear(width: int) -> nn.Module:
    return nn.Linear(2, width)


def conv(width: int) -> nn.Module:
    return nn.Conv2d(3, width, 1)


def trained(network: nn.Module, inputs, targets, likelihood=None):
    engine = Engine(progress=False, device="cpu")
    return fit(network, (inputs, targets), likelihood=likelihood, method=ONCE, engine=engine)


# name: network, inputs, targets, likelihood; words of the answer; network, inputs, targets, likelihood as it says
CASES = {
    "void in label maps": (
        (conv(2), IMAGES, VOID, None),
        r"targets.long\(\).masked_fill\(targets == 255, -100\)",
        (conv(2), IMAGES, VOID.long().masked_fill(VOID == 255, -100), None),
    ),
    "void in bytes": (
        (conv(2), IMAGES, VOID.byte(), Categorical("BCHW")),
        r"targets.long\(\).masked_fill\(targets == 255, -100\)",
        (conv(2), IMAGES, VOID.byte().long().masked_fill(VOID.byte() == 255, -100), None),
    ),
    "masks of 0 and 255": (
        (conv(2), IMAGES, MAPS * 255, None),
        r"Values 0 and 255: write \(targets > 0\).long\(\)",
        (conv(2), IMAGES, (MAPS * 255 > 0).long(), None),
    ),
    "labels from 1": ((linear(3), X, Z + 1, None), "Labels from 1 on: targets - 1", (linear(3), X, Z, None)),
    "labels -1 and 1": (
        (linear(2), X, 2 * Y - 1, None),
        r"\(targets > 0\).long\(\)",
        (linear(2), X, (2 * Y - 1 > 0).long(), None),
    ),
    "-1 for unknown": (
        (linear(3), X, torch.where(X[:, 1] > 1, -1, Z), None),
        r"targets.masked_fill\(targets == -1, -100\)",
        (linear(3), X, torch.where(X[:, 1] > 1, -100, Z), None),
    ),
    "one logit": ((linear(1), X, Y, None), r"likelihood=Bernoulli\(\)", (linear(1), X, Y.float(), Bernoulli())),
    "one logit, floats": ((linear(1), X, Y.float(), None), r"Bernoulli\(\)", (linear(1), X, Y.float(), Bernoulli())),
    "real values, no likelihood": (
        (linear(1), X, X[:, 0], None),
        r"Real values: likelihood=Gaussian\(\)",
        (linear(1), X, X[:, 0], Gaussian()),
    ),
    "real columns, no likelihood": (
        (linear(2), X, X, None),
        r"Real values: likelihood=Gaussian\(\)",
        (linear(2), X, X, Gaussian()),
    ),
    "many whole numbers": (
        (linear(1), X, torch.arange(60) * 7, None),
        r"values rather than classes: likelihood=Gaussian\(\), targets.float\(\)",
        (linear(1), X, (torch.arange(60) * 7).float(), Gaussian()),
    ),
    "class labels as floats": (
        (linear(3), X, Z.float(), None),
        r"Class labels held as floats: targets.long\(\)",
        (linear(3), X, Z.float().long(), None),
    ),
    "one-hot": (
        (linear(3), X, functional.one_hot(Z, 3), None),
        r"One-hot rows: targets.argmax\(-1\)",
        (linear(3), X, functional.one_hot(Z, 3).argmax(-1), None),
    ),
    "soft labels that sum to more": (
        (linear(3), X, functional.one_hot(Z, 3) * 0.9 + 0.1, None),
        r"shares of each class that are at least 0 and sum to 1; target 0 is",
        (linear(3), X, functional.one_hot(Z, 3) * 0.9 + 0.1 / 3, None),
    ),
    "several labels without a likelihood": (
        (linear(3), X, (torch.arange(180).reshape(60, 3) % 2), None),
        r"Several labels for each example: likelihood=Bernoulli\(\)",
        (linear(3), X, (torch.arange(180).reshape(60, 3) % 2), Bernoulli()),
    ),
    "a column of labels": (
        (linear(3), X, Z[:, None], None),
        r"A column: targets.squeeze\(-1\).long\(\)",
        (linear(3), X, Z[:, None].squeeze(-1).long(), None),
    ),
    "maps with a channel": (
        (conv(2), IMAGES, MAPS[:, None], Categorical("BCHW")),
        r"An axis too many: targets.squeeze\(1\)",
        (conv(2), IMAGES, MAPS[:, None].squeeze(1).long(), Categorical("BCHW")),
    ),
    "labels with gaps": (
        (linear(2), X, Y * 70 + 10, None),
        r"targets.unique\(return_inverse=True\)",
        (linear(2), X, (Y * 70 + 10).unique(return_inverse=True)[1], None),
    ),
    "too few outputs": ((linear(2), X, Z, None), "Give the network 3 outputs", (linear(3), X, Z, None)),
    "NaN labels": (
        (linear(2), X, torch.where(X[:, 1] > 1, math.nan, Y.float()), None),
        "Some are NaN.*keep.*−100",
        (linear(2), X, torch.where(X[:, 1] > 1, -100, Y), None),
    ),
    "a column of 0 and 1": (
        (linear(1), X, Y[:, None].float(), Bernoulli()),
        r"A column: targets.squeeze\(-1\)",
        (linear(1), X, Y[:, None].float().squeeze(-1), Bernoulli()),
    ),
    "-1 and 1 for one logit": (
        (linear(1), X, (2 * Y - 1).float(), Bernoulli()),
        r"\(targets > 0\).float\(\)",
        (linear(1), X, Y.float(), Bernoulli()),
    ),
    "1 and 2 for one logit": ((linear(1), X, Y + 1, Bernoulli()), "targets - 1", (linear(1), X, Y, Bernoulli())),
    "two logits": (
        (linear(2), X, Y, Bernoulli()),
        r"likelihood=Categorical\(\), targets.long\(\)",
        (linear(2), X, Y.long(), Categorical()),
    ),
    "three classes for one logit": (
        (linear(1), X, Z, Bernoulli()),
        r"likelihood=Categorical\(\), targets.long\(\), and 3 outputs",
        (linear(3), X, Z, Categorical()),
    ),
    "probabilities for one logit": (
        (linear(1), X, X[:, 0].sigmoid(), Bernoulli()),
        r"\(targets > 0.5\).float\(\)",
        (linear(1), X, (X[:, 0].sigmoid() > 0.5).float(), Bernoulli()),
    ),
    "values for one logit": (
        (linear(1), X, X[:, 0], Bernoulli()),
        r"likelihood=Gaussian\(\)",
        (linear(1), X, X[:, 0], Gaussian()),
    ),
    "binary masks": (
        (conv(1), IMAGES, MAPS[:, None].float(), Bernoulli()),
        r"likelihood=Bernoulli\('BCHW'\)",
        (conv(1), IMAGES, MAPS[:, None].float(), Bernoulli("BCHW")),
    ),
    "binary masks without a channel": (
        (conv(1), IMAGES, MAPS, Bernoulli("BCHW")),
        r"targets.unsqueeze\(1\)",
        (conv(1), IMAGES, MAPS.unsqueeze(1), Bernoulli("BCHW")),
    ),
    "image to image": (
        (conv(3), IMAGES, IMAGES, Gaussian()),
        r"nn.Sequential\(network, nn.Flatten\(\)\), \(inputs, targets.flatten\(1\)\)",
        (nn.Sequential(conv(3), nn.Flatten()), IMAGES, IMAGES.flatten(1), Gaussian()),
    ),
    "counts": (
        (linear(1), X, Z, Gaussian()),
        r"Counts.*targets.float\(\)",
        (linear(1), X, Z.float(), Gaussian()),
    ),
    "a column of values": (
        (linear(1), X, X[:, :1], Gaussian()),
        r"A column: targets.squeeze\(-1\).float\(\)",
        (linear(1), X, X[:, :1].squeeze(-1).float(), Gaussian()),
    ),
    "one value for several outputs": (
        (linear(3), X, X[:, 0], Gaussian()),
        "needs one output of the network, which has 3",
        (linear(1), X, X[:, 0], Gaussian()),
    ),
    "class labels for values": (
        (linear(3), X, Z, Gaussian()),
        r"Labels of 3 classes: likelihood=Categorical\(\)",
        (linear(3), X, Z, Categorical()),
    ),
    "two columns for one output": (
        (linear(1), X, X, Gaussian()),
        "Give the network 2 outputs, one for each column",
        (linear(2), X, X, Gaussian()),
    ),
    "infinite values": (
        (linear(1), X, torch.where(X[:, 1] > 1, math.inf, X[:, 0]), Gaussian()),
        r"is NaN or infinite; remove.*keep = targets.isfinite\(\), then inputs\[keep\], targets\[keep\]",
        (linear(1), X[X[:, 1] <= 1], X[X[:, 1] <= 1, 0], Gaussian()),
    ),
    "heteroscedastic columns": (
        (linear(2), X, X[:, :1], HeteroscedasticGaussian()),
        r"A column: targets.squeeze\(-1\)",
        (linear(2), X, X[:, 0], HeteroscedasticGaussian()),
    ),
    "doubles": (
        (linear(2), X.numpy().astype(np.float64), Y.numpy(), None),
        r"give torch.as_tensor\(inputs\).to\(torch.float32\)",
        (linear(2), X.double().to(torch.float32), Y, None),
    ),
    "one logit, a column": (
        (linear(1), X, Y[:, None], None),
        r"likelihood=Bernoulli\(\), targets.squeeze\(-1\).float\(\)",
        (linear(1), X, Y[:, None].squeeze(-1).float(), Bernoulli()),
    ),
    "one logit, other labels": (
        (linear(1), X, Y * 3 - 1, None),
        r"Bernoulli\(\), \(targets == 2\).float\(\)",
        (linear(1), X, (Y * 3 - 1 == 2).float(), Bernoulli()),
    ),
    "one logit, a column of 1 and 2": (
        (linear(1), X, Y[:, None] + 1, Categorical()),
        r"\(targets.squeeze\(-1\) == 2\).float\(\)",
        (linear(1), X, (Y[:, None] + 1).squeeze(-1).float() - 1, Bernoulli()),
    ),
    "one logit at each place": (
        (conv(1), IMAGES, MAPS, None),
        r"Bernoulli\('BCHW'\), \(targets == 1\).float\(\).unsqueeze\(1\)",
        (conv(1), IMAGES, (MAPS == 1).float().unsqueeze(1), Bernoulli("BCHW")),
    ),
    "masks without a likelihood": (
        (conv(1), IMAGES, MAPS[:, None], None),
        r"Masks: likelihood=Bernoulli\('BCHW'\)",
        (conv(1), IMAGES, MAPS[:, None], Bernoulli("BCHW")),
    ),
    "masks of 0 and 255 without a likelihood": (
        (conv(1), IMAGES, (MAPS[:, None] * 255).byte(), None),
        r"Bernoulli\('BCHW'\), \(targets > 0\).float\(\)",
        (conv(1), IMAGES, ((MAPS[:, None] * 255).byte() > 0).float(), Bernoulli("BCHW")),
    ),
    "label maps with an axis": (
        (conv(2), IMAGES, MAPS[:, None], None),
        r"An axis too many: targets.squeeze\(1\).long\(\)",
        (conv(2), IMAGES, MAPS[:, None].squeeze(1).long(), None),
    ),
    "one-hot label maps": (
        (conv(2), IMAGES, functional.one_hot(MAPS, 2).movedim(-1, 1), None),
        r"One-hot label maps: targets.argmax\(1\)",
        (conv(2), IMAGES, functional.one_hot(MAPS, 2).movedim(-1, 1).argmax(1), None),
    ),
    "images from images": (
        (conv(3), IMAGES, IMAGES, None),
        r"Gaussian\(\), fit\(nn.Sequential\(network, nn.Flatten\(\)\), \(inputs, targets.flatten\(1\)",
        (nn.Sequential(conv(3), nn.Flatten()), IMAGES, IMAGES.flatten(1).float(), Gaussian()),
    ),
    "images from images, flattened half way": (
        (nn.Sequential(conv(3), nn.Flatten()), IMAGES, IMAGES, Gaussian()),
        r"targets.flatten\(1\).float\(\)",
        (nn.Sequential(conv(3), nn.Flatten()), IMAGES, IMAGES.flatten(1).float(), Gaussian()),
    ),
    "not flattened": (
        (nn.Sequential(conv(2), nn.AdaptiveAvgPool2d(1)), IMAGES, MAPS[:, 0, 0], None),
        r"nn.Sequential\(network, nn.Flatten\(\)\)",
        (nn.Sequential(nn.Sequential(conv(2), nn.AdaptiveAvgPool2d(1)), nn.Flatten()), IMAGES, MAPS[:, 0, 0], None),
    ),
    "not pooled": (
        (conv(2), IMAGES, MAPS[:, 0, 0], None),
        r"nn.AdaptiveAvgPool2d\(1\) and nn.Flatten\(\)",
        (nn.Sequential(conv(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), IMAGES, MAPS[:, 0, 0], None),
    ),
    "label maps of another size": (
        (conv(2), IMAGES, MAPS[:, ::2, ::2], None),
        r"these have shape \(6, 2, 2\): resize them in the network",
        (nn.Sequential(conv(2), nn.Upsample((2, 2))), IMAGES, MAPS[:, ::2, ::2], Categorical("BCHW")),
    ),
    "a real column, no likelihood": (
        (linear(1), X, X[:, :1], None),
        r"likelihood=Gaussian\(\), targets.squeeze\(-1\)",
        (linear(1), X, X[:, :1].squeeze(-1), Gaussian()),
    ),
    "truths as values": (
        (linear(1), X, Y.bool(), Gaussian()),
        r"likelihood=Bernoulli\(\). As values: targets.float\(\)",
        (linear(1), X, Y.bool(), Bernoulli()),
    ),
    "several labels, some infinite": (
        (linear(2), X, torch.where(X > 1, math.inf, (X > 0).float()), Bernoulli()),
        r"targets.isfinite\(\).flatten\(1\).all\(1\).*targets.nan_to_num\(-100, -100, -100\)",
        (linear(2), X, torch.where(X > 1, math.nan, (X > 0).float()).nan_to_num(-100, -100, -100), Bernoulli()),
    ),
    "whole numbers": (
        (linear(2), (X * 3).long(), Y, None),
        r"give torch.as_tensor\(inputs\).to\(torch.float32\)",
        (linear(2), (X * 3).long().to(torch.float32), Y, None),
    ),
    "indices as floats": (
        (nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(4, 2)), (X > 0).float(), Y, None),
        r"whole numbers: give inputs.long\(\)",
        (nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(4, 2)), (X > 0).float().long(), Y, None),
    ),
    "indices out of range": (
        (nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(4, 2)), (X > 0).long() + 8, Y, None),
        "have 9 rows, numbered from 0; inputs go up to 9",
        (nn.Sequential(nn.Embedding(10, 2), nn.Flatten(), nn.Linear(4, 2)), (X > 0).long() + 8, Y, None),
    ),
    "bytes": (
        (conv(2), IMAGES.clamp(0).byte(), MAPS, None),
        r"\(inputs\).to\(torch.float32\), and / 255",
        (conv(2), IMAGES.clamp(0).byte().to(torch.float32) / 255, MAPS, None),
    ),
    "channels last": (
        (nn.Sequential(conv(2), nn.Flatten(), nn.Linear(32, 2)), IMAGES.movedim(1, -1), MAPS[:, 0, 0], None),
        r"channels stand last: give inputs.movedim\(-1, 1\)",
        (nn.Sequential(conv(2), nn.Flatten(), nn.Linear(32, 2)), IMAGES, MAPS[:, 0, 0], None),
    ),
    "one-hot rows of two classes for one logit": (
        (linear(1), X, functional.one_hot(Y, 2), None),
        r"One-hot rows of two classes: likelihood=Bernoulli\(\), targets.argmax\(-1\)",
        (linear(1), X, functional.one_hot(Y, 2).argmax(-1), Bernoulli()),
    ),
    "one-hot rows of two classes for Bernoulli": (
        (linear(1), X, functional.one_hot(Y, 2).float(), Bernoulli()),
        r"One-hot rows of two classes: targets.argmax\(-1\)",
        (linear(1), X, functional.one_hot(Y, 2).float().argmax(-1), Bernoulli()),
    ),
    "one-hot rows of three classes for Bernoulli": (
        (linear(1), X, functional.one_hot(Z, 3).float(), Bernoulli()),
        r"Categorical\(\), targets.argmax\(-1\), and 3 outputs",
        (linear(3), X, functional.one_hot(Z, 3).argmax(-1), Categorical()),
    ),
    "one-hot rows and more outputs": (
        (linear(4), X, functional.one_hot(Z, 3), None),
        r"One-hot rows: targets.argmax\(-1\)\.$",
        (linear(4), X, functional.one_hot(Z, 3).argmax(-1), None),
    ),
    "one-hot rows and fewer outputs": (
        (linear(2), X, functional.one_hot(Z, 3), None),
        r"targets.argmax\(-1\), and 3 outputs",
        (linear(3), X, functional.one_hot(Z, 3).argmax(-1), None),
    ),
    "lists of class labels": (
        (linear(3), X, torch.stack([Z, Y], 1), None),
        r"one_hot\(targets.long\(\), 3\).amax\(1\).float\(\)",
        (linear(3), X, functional.one_hot(torch.stack([Z, Y], 1).long(), 3).amax(1).float(), Bernoulli()),
    ),
    "several labels and one output": (
        (linear(1), X, (X > 0).long(), None),
        r"Bernoulli\(\), and 2 outputs",
        (linear(2), X, (X > 0).long(), Bernoulli()),
    ),
    "labels -1 to 1": (
        (linear(3), X, Z - 1, None),
        r"Labels from −1 on: targets \+ 1.*not known",
        (linear(3), X, Z - 1 + 1, None),
    ),
    "labels from 1 with unknown ones": (
        (linear(3), X, torch.where(X[:, 1] > 1, -100, Z + 1), None),
        r"\(targets - 1\).masked_fill\(targets == -100, -100\)",
        (linear(3), X, torch.where(X[:, 1] > 1, -100, Z), None),
    ),
    "-1 and 1 with unknown ones": (
        (linear(2), X, torch.where(X[:, 1] > 1, -100, 2 * Y - 1)[:, None], None),
        r"\(targets.squeeze\(-1\) > 0\).long\(\).masked_fill\(targets.squeeze\(-1\) == -100, -100\)",
        (linear(2), X, torch.where(X[:, 1] > 1, -100, Y), None),
    ),
    "-1 for unknown, one logit": (
        (linear(1), X, torch.where(X[:, 1] > 1, -1, Y), Bernoulli()),
        r"targets.masked_fill\(targets == -1, -100\)",
        (linear(1), X, torch.where(X[:, 1] > 1, -100, Y), Bernoulli()),
    ),
    "void in binary masks": (
        (conv(1), IMAGES, torch.where(VOID == 255, 255, MAPS).byte()[:, None], Bernoulli("BCHW")),
        r"targets.float\(\).masked_fill\(targets == 255, -100\)",
        (conv(1), IMAGES, VOID.float().masked_fill(VOID == 255, -100)[:, None], Bernoulli("BCHW")),
    ),
    "probabilities for two outputs": (
        (linear(2), X, X[:, 0].sigmoid(), None),
        r"torch.stack\(\[1 - targets, targets\], -1\)",
        (linear(2), X, torch.stack([1 - X[:, 0].sigmoid(), X[:, 0].sigmoid()], -1), None),
    ),
    "a column of labels for two logits": (
        (linear(2), X, Y[:, None].float(), Bernoulli()),
        r"Categorical\(\), targets.squeeze\(-1\).long\(\)",
        (linear(2), X, Y, Categorical()),
    ),
    "one logit for each token": (
        (linear(1), WORDS, TAGS, None),
        r"Bernoulli\('BTC'\), \(targets == 1\).float\(\).unsqueeze\(-1\)",
        (linear(1), WORDS, (TAGS == 1).float().unsqueeze(-1), Bernoulli("BTC")),
    ),
    "labels of tokens for one logit": (
        (linear(1), WORDS, TAGS.float(), Bernoulli("BTC")),
        r"targets.unsqueeze\(-1\)",
        (linear(1), WORDS, TAGS.float().unsqueeze(-1), Bernoulli("BTC")),
    ),
    "a column of labels of tokens": (
        (linear(2), WORDS, TAGS[..., None], None),
        r"targets.squeeze\(-1\).long\(\)",
        (linear(2), WORDS, TAGS, None),
    ),
    "one-hot labels of tokens": (
        (linear(2), WORDS, functional.one_hot(TAGS, 2), None),
        r"One-hot label maps: targets.argmax\(-1\)",
        (linear(2), WORDS, functional.one_hot(TAGS, 2).argmax(-1), None),
    ),
    "one-hot label maps, classes last": (
        (conv(2), IMAGES, functional.one_hot(MAPS, 2), Categorical("BCHW")),
        r"One-hot label maps: targets.argmax\(-1\)",
        (conv(2), IMAGES, functional.one_hot(MAPS, 2).argmax(-1), Categorical("BCHW")),
    ),
    "values of tokens": (
        (linear(1), WORDS, WORDS[..., 0], None),
        r"Real values at each place: likelihood=Gaussian\(\).*targets.flatten\(1\)",
        (nn.Sequential(linear(1), nn.Flatten()), WORDS, WORDS[..., 0].flatten(1).float(), Gaussian()),
    ),
    "label maps, flattened": (
        (conv(2), IMAGES, MAPS.flatten(1), None),
        r"targets.unflatten\(1, \(4, 4\)\)",
        (conv(2), IMAGES, MAPS.flatten(1).unflatten(1, (4, 4)), None),
    ),
    "class labels as floats for values": (
        (linear(3), X, Z.float(), Gaussian()),
        r"Labels of 3 classes: likelihood=Categorical\(\), targets.long\(\)",
        (linear(3), X, Z.float().long(), Categorical()),
    ),
    "two columns, mean and noise": (
        (linear(2), X, X, HeteroscedasticGaussian()),
        "Give the network 4 outputs, two for each column",
        (linear(4), X, X, HeteroscedasticGaussian()),
    ),
    "one column, means and noises": (
        (linear(4), X, X[:, 0], HeteroscedasticGaussian()),
        "needs 2 outputs of the network, which has 4",
        (linear(2), X, X[:, 0], HeteroscedasticGaussian()),
    ),
    "complex numbers": (
        (linear(2), X, torch.view_as_complex(X.contiguous()), Gaussian()),
        r"view_as_real\(targets\).flatten\(1\)",
        (linear(2), X, torch.view_as_real(torch.view_as_complex(X.contiguous())).flatten(1), Gaussian()),
    ),
    "a value with two axes": (
        (linear(1), X, X[:, :1, None], Gaussian()),
        r"targets.flatten\(1\).squeeze\(-1\).float\(\)",
        (linear(1), X, X[:, :1, None].flatten(1).squeeze(-1).float(), Gaussian()),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_answer_says_what_to_write_and_that_trains(case: str) -> None:
    wrong, words, right = CASES[case]
    with pytest.raises(InvalidInput, match=words):
        trained(*wrong)
    posterior = trained(*right)
    assert posterior.predict(right[1], 2).log_prob(right[2]).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli(), Categorical("BTC"), Bernoulli("BTC")])
def test_labels_of_every_integer_type_train_alike(dtype: torch.dtype, likelihood) -> None:
    sites = likelihood.axes is not None
    targets = Y.reshape(20, 3) if sites else Y
    inputs = X.reshape(20, 3, 2) if sites else X
    width = 1 if isinstance(likelihood, Bernoulli) else 2
    targets = targets[..., None] if sites and width == 1 else targets
    found = []
    for kind in (torch.int64, dtype):
        torch.manual_seed(0)
        posterior = trained(linear(width), inputs, targets.to(kind), likelihood)
        found.append(posterior.mean)
        scores = posterior.predict(inputs, 2, generator=torch.Generator().manual_seed(0)).scores(targets.to(kind))
        assert math.isfinite(scores["nll"])
    assert torch.equal(*found)


@pytest.mark.parametrize("sites", [(3,), (1, 2, 2)])
def test_several_binary_labels_are_sites(sites: tuple[int, ...]) -> None:
    axes = None if len(sites) == 1 else "BCHW"
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, *sites, generator=generator)
    targets = torch.randint(0, 2, (5, *sites), generator=generator)
    from posterity.predict.predictive import predictive

    distribution = Bernoulli(axes)(logits, {})
    assert distribution.batch_shape == (4, 5)
    each = -functional.binary_cross_entropy_with_logits(logits, targets.expand_as(logits).float(), reduction="none")
    torch.testing.assert_close(distribution.log_prob(targets), each.flatten(2).sum(-1))
    found = predictive(distribution, logits)
    assert isinstance(found, Classification)
    torch.testing.assert_close(found.mean[..., 1], logits.sigmoid().mean(0))
    torch.testing.assert_close(found.log_prob(targets), each.flatten(2).sum(-1).exp().mean(0).log())
    known = targets.clone()
    known.view(5, -1)[:, 0] = -100
    torch.testing.assert_close(found.log_prob(known), each.flatten(2)[..., 1:].sum(-1).exp().mean(0).log())


@pytest.mark.parametrize(
    ("make", "inputs", "targets", "likelihood"),
    [
        (lambda: linear(2), X, Y, Categorical()),
        (lambda: linear(1), X, Y.float(), Bernoulli()),
        (lambda: linear(2), X.reshape(20, 3, 2), Y.reshape(20, 3), Categorical("BTC")),
        (lambda: linear(3), X, functional.one_hot(Z, 3), Bernoulli()),
    ],
)
def test_batches_without_a_known_label_train_and_all_unknown_is_refused(make, inputs, targets, likelihood) -> None:
    known = targets.clone()
    known[5:15] = -100
    rows: list = []
    engine = Engine(progress=False, device="cpu", on_epoch=lambda name, row: rows.append(row))
    data = TensorData(inputs, known, batch_size=1, held_out=(inputs[5:15], known[5:15]))
    posterior = fit(make(), data, likelihood=likelihood, method=ONCE, engine=engine)
    assert all(math.isfinite(rows[0][name]) for name in ("nll", "accuracy"))
    found = posterior.predict(inputs, 4, generator=torch.Generator().manual_seed(0))
    assert found.log_prob(known)[5:15].abs().max() == 0
    alone = posterior.predict(inputs[:5], 4, generator=torch.Generator().manual_seed(0)).scores(known[:5])
    both = posterior.predict(inputs[:15], 4, generator=torch.Generator().manual_seed(0)).scores(known[:15])
    assert both["accuracy"] == pytest.approx(alone["accuracy"])
    assert both["nll"] == pytest.approx(alone["nll"], rel=1e-5)
    assert "accuracy" not in found.scores(torch.full_like(known, -100))
    with pytest.raises(InvalidInput, match="All labels are -100.*nothing to learn"):
        fit(make(), (inputs, torch.full_like(known, -100)), likelihood=likelihood, method=ONCE, engine=engine)


def test_a_label_that_is_not_known_has_no_curvature() -> None:
    from posterity import Normal, Problem
    from posterity.model.outputs import output_curvature

    outputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, -100, 2, 1, -100, 0])
    for likelihood, width, targets in (
        (Categorical(), 3, labels),
        (Bernoulli(), 1, labels.clamp(max=1)),
        (Bernoulli(), 3, None),
    ):
        f = outputs[:, :width]
        y = labels.clamp(max=1)[:, None].expand(6, 3) if targets is None else targets
        problem = Problem(linear(width), Normal(0, 1), likelihood, 6)
        keep = labels != -100
        some = output_curvature(problem, f[keep], y[keep], "ggn", {}).total()
        torch.testing.assert_close(output_curvature(problem, f, y, "ggn", {}).total(), some)


@pytest.mark.parametrize("axes", ["", "CB", "B", "B-H"])
def test_axes_of_binary_labels_start_with_the_batch(axes: str) -> None:
    with pytest.raises(ValueError, match="start with B"):
        Bernoulli(axes)


@pytest.mark.parametrize(("likelihood", "width"), [(Categorical(), 2), (Bernoulli(), 1)])
def test_a_label_that_is_not_known_adds_nothing(likelihood, width: int) -> None:
    outputs = torch.randn(4, width, generator=torch.Generator().manual_seed(0))
    log_probs = likelihood(outputs, {}).log_prob(torch.tensor([1, -100, 0, -100]))
    assert (log_probs == 0).tolist() == [False, True, False, True]
