"""A network may return a tensor, or a thing that holds one as `.logits`: everywhere a tensor is read of it, and the same."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import MAP, NUTS, SGLD, SWAG, Engine, Ensemble, FullRank, Laplace, MeanField, average, fit
from posterity.errors import InvalidInput

QUIET = Engine(progress=False, device="cpu")
X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class Mapped(OrderedDict):
    """As those of transformers: entries that are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


class Pair(NamedTuple):
    logits: Tensor
    hidden: Tensor


class Net(nn.Module):
    def __init__(self, make: Callable[[Tensor, Tensor], Any] = lambda logits, hidden: logits) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head, self.make = nn.Linear(3, 4), nn.Linear(4, 2), make

    def forward(self, x: Tensor) -> Any:
        hidden = self.body(x).tanh()
        return self.make(self.head(hidden), hidden)


HOLDERS = {
    "dataclass": lambda logits, hidden: Output(logits),
    "model output": lambda logits, hidden: Mapped(loss=None, logits=logits),
    "named tuple": Pair,
}
METHODS = {
    "mean field": MeanField(epochs=1),
    "activation draws": MeanField(epochs=1, estimator="local_reparam"),
    "full rank": FullRank(epochs=1),
    "laplace": Laplace(MAP(epochs=1)),
    "kron, sampled": Laplace(MAP(epochs=1), structure="kron", prediction="sampled"),
    "sgld": SGLD(epochs=8, draws=2),
    "swag": SWAG(epochs=8),
    "nuts": NUTS(warmup=5, draws=5, chains=1),
    "ensemble": Ensemble(MAP(epochs=1), 2),
}


@pytest.mark.filterwarnings("ignore::posterity.errors.PosterityWarning")
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_logits_are_read_as_the_tensor_itself_is(method) -> None:
    expected, holder = (fit(Net(*make), (X, Y), method=method, engine=QUIET) for make in ([], [HOLDERS["dataclass"]]))
    probs = [p.predict(X, 4, generator=torch.Generator().manual_seed(2)).mean for p in (expected, holder)]
    torch.testing.assert_close(*probs)


@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS)
def test_whatever_holds_them_predicts_saves_and_loads(make, tmp_path) -> None:
    posterior = fit(Net(make), (X, Y), method=MeanField(epochs=1), engine=QUIET)
    posterior.save(tmp_path / "p.safetensors")
    again = posterity.load(tmp_path / "p.safetensors", Net(make))
    assert torch.equal(again.predict(X, 2, generator=torch.Generator().manual_seed(3)).mean,
                       posterior.predict(X, 2, generator=torch.Generator().manual_seed(3)).mean)  # fmt: skip
    assert average(posterior, X, n=4).mean.shape == (24, 2)


@pytest.mark.parametrize(
    ("make", "cure"),
    [
        (lambda logits, hidden: (logits, hidden), r"self.network\(x\)\[0\]"),
        (lambda logits, hidden: {"scores": logits}, r"self.network\(x\)\['scores'\]"),
        (lambda logits, hidden: Output(None), "must return one tensor"),
    ],
)
def test_what_has_none_is_refused_with_the_part_to_pick(make, cure: str) -> None:
    with pytest.raises(InvalidInput, match=cure):
        fit(Net(make), (X, Y), engine=QUIET)
