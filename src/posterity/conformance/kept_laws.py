"""Laws of what a method leaves alone: frozen weights and statistics (17), statistics of other functions (18), padding (19)."""

import torch
from torch import Tensor, nn

from posterity.conformance.conjugate import Conjugate
from posterity.conformance.subject import Subject, Task
from posterity.conformance.verdict import Check, compared

AWAY = 30.0  # how far the new data are from those that frozen statistics are of: a tenth of the way is seen


def frozen(subject: Subject) -> list[Check]:
    """Law 17: frozen weights, and statistics of frozen normalisation, are what they were, whatever data come.

    The frozen features are ReLU(1 − u), u standardised by the statistics of earlier data: inputs whose u is above 1 have the
    same ones, 0, and so the same output of every function. Other weights, or statistics of the new data, tell them apart.
    """
    case = Conjugate.make()
    features, probes = _features(case.x), case.x[:8].abs() + 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(features, nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    found = subject.infer(Task(network, case.x + AWAY, case.y, brief=True))
    outputs = found.draw(probes, 4, 0).reshape(4, len(probes))
    return [compared("outputs at inputs of the same frozen features", outputs, outputs[:, :1].expand_as(outputs))]


def _features(x: Tensor) -> nn.Module:
    """Return frozen features that count in another way than the new data would."""
    turn, norm = nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2)
    shift = nn.Linear(2, 2)
    features = nn.Sequential(turn, norm, shift, nn.ReLU()).double()
    with torch.no_grad():
        turn.weight.copy_(torch.eye(2))
        shift.weight.copy_(-torch.eye(2))
        shift.bias.fill_(1.0)
    norm.running_mean, norm.running_var = x.mean(0), x.var(0)
    return features.eval().requires_grad_(False)


def normalised(subject: Subject) -> list[Check]:
    """Law 18: a function of a network with batch normalisation computes with statistics of its own, those of the training data.

    The normalised features have the mean 0 over the training data, and so has every function that is linear in them.
    """
    case = Conjugate.make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 1, bias=False)).double()
    found = subject.infer(Task(network, case.x + AWAY, case.y, brief=True))
    outputs = found.draw(case.x + AWAY, 4, 0).reshape(4, -1)
    return [
        compared("mean of each function over the training data", outputs.mean(1), torch.zeros(4).double(), atol=1e-9)
    ]


class Bag(nn.Module):
    """Sums the rows of a table that whole numbers name; 0 is padding, whose row is 0 in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.head = nn.Embedding(6, 3, padding_idx=0), nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(torch.tanh(self.first(self.table(x.long()).sum(1))))
        return result


def padded(subject: Subject) -> list[Check]:
    """Law 19: a row of padding is the same in every draw, so that a padded example is predicted like the one without."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Bag().double()
        words = torch.randint(1, 6, (24, 3)).double()
    short, long = (nn.functional.pad(words, (0, many)) for many in (1, 30))
    found = subject.infer(Task(network, short, (words == 2).any(1).double(), brief=True))
    alone, among = (found.draw(inputs, 4, 0).reshape(4, -1) for inputs in (short, long))
    return [compared("outputs of padded examples and of those that are less so", among, alone)]
