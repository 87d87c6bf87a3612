"""Batches and data sets in the forms that people hold them in: read, or answered by the line to write."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import rnn
from torch.utils.data import DataLoader, TensorDataset, default_collate

from posterity import Engine, InvalidInput, MeanField, fit
from posterity.train.reading import pair, whole

X, Y = torch.randn(12, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 6)


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [(X, Y), (X.numpy(), Y.numpy()), (X.tolist(), Y.tolist()), (X, Y.tolist()), (X.numpy(), Y.bool().numpy())],
)
def test_numbers_are_read_whatever_holds_them(inputs, targets) -> None:
    for read in (pair, whole):
        for form in ((inputs, targets), [inputs, targets]):
            x, y = read(form)
            torch.testing.assert_close(x, X)
            assert y.tolist() == Y.tolist()


class Frame:
    """What pandas and polars share."""

    def __init__(self, values) -> None:
        self.values = values

    def to_numpy(self):
        return self.values


def test_frames_and_series_are_read_and_text_in_them_is_refused() -> None:
    x, y = whole((Frame(X.numpy()), Frame(Y.numpy())))
    torch.testing.assert_close(x, X)
    assert y.tolist() == Y.tolist()
    with pytest.raises(InvalidInput, match="get_dummies"):
        whole((Frame(np.array([["a"], ["b"]], dtype=object)), Y[:2]))
    with pytest.raises(InvalidInput, match=r"frame.drop\(columns='y'\)"):
        whole(Frame(X.numpy()))


class Row(dict):
    """A mapping of one's own, as those of tokenisers are."""


BATCHES = {
    "a mapping": ({"x": X, "y": Y}, r"dict with 'x', 'y'.*\(row\['x'\], row\['y'\]\)"),
    "a mapping, targets first": ({"label": Y, "image": X}, r"\(row\['image'\], row\['label'\]\)"),
    "a mapping of a class of its own": (
        Row(input_ids=X, labels=Y),
        r"Row with.*\(row\['input_ids'\], row\['labels'\]\)",
    ),
    "a triple": ([X, Y, X], r"list of 3: Tensor, Tensor, Tensor.*\(row\[0\], row\[1\]\)"),
    "no targets": ([X], r"no targets.*TensorDataset\(inputs, targets\)"),
    "a single tensor": (X, r"single tensor of shape \(12, 2\).*TensorDataset\(inputs, inputs\)"),
    "nothing": (None, "NoneType.*collate_fn"),
    "packed sequences": (rnn.pack_sequence([X[0], X[1]]), "PackedSequence.*collate_fn"),
    "a list of inputs": (([X, X], Y), r"torch.stack\(inputs\).*torch.cat"),
    "ragged inputs": (([X[:, :1], X], Y), "pad_sequence"),
    "a mapping of inputs": (({"a": X, "b": X}, Y), r"torch.cat\(\[a, b\], 1\)"),
    "several targets": ((X, [Y, Y[:1]]), "Pick one"),
    "text as labels": ((X, ["cat", "dog"] * 6), r"numpy.unique\(targets, return_inverse=True\)"),
    "an array of text": ((X, np.array(["cat", "dog"] * 6)), r"numpy.unique\(targets"),
    "text as inputs": ((["a", "b"], Y[:2]), "get_dummies.*tokens"),
    "objects": ((X, np.array([0, None] * 6, dtype=object)), r"targets.astype\('int64'\)"),
    "rows of several lengths": (([[1.0], [1.0, 2.0]], Y[:2]), "one length"),
    "another length": ((X, Y[:5]), "12 inputs but 5 targets"),
    "one number": ((X[0], Y[0]), "batch_size=None"),
    "sparse inputs": ((X.to_sparse(), Y), r"inputs.to_dense\(\)"),
}


@pytest.mark.parametrize("case", BATCHES)
def test_what_makes_no_pair_is_answered_by_what_to_write(case: str) -> None:
    batch, message = BATCHES[case]
    with pytest.raises(InvalidInput, match=message):
        pair(batch)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TensorDataset(X, Y), r"DataLoader\(dataset, batch_size=128, shuffle=True\)"),
        ({"x": X, "y": Y}, r"\(data\['x'\], data\['y'\]\)"),
        ((X, Y, X), r"\(data\[0\], data\[1\]\)"),
        (X, r"\(inputs, targets\)"),
    ],
)
def test_a_data_set_of_another_form_is_answered_by_what_to_write(data, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"expected a DataLoader.*{message}"):
        whole(data)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"x": x, "y": y} for x, y in zip(X, Y, strict=True)], ("x", "y")),
        ([(x, y, i) for i, (x, y) in enumerate(zip(X, Y, strict=True))], (0, 1)),
    ],
)
def test_the_line_to_write_trains(rows, columns) -> None:
    x, y = columns
    loader = DataLoader(rows, batch_size=4, collate_fn=lambda rows: default_collate([(row[x], row[y]) for row in rows]))
    posterior = fit(nn.Linear(2, 2), loader, method=MeanField(epochs=1), engine=Engine(progress=False))
    assert posterior.predict(X, 2).mean.shape == (12, 2)
