"""Laws of what a posterior does: draws (3), layers (4), resumed runs (6), copies (8), precision (9), torch's transforms (10),
refusals (11) and decompositions (12)."""

import math
import pickle
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from posterity.conformance.conjugate import Conjugate
from posterity.conformance.subject import Inferred, Subject, Task
from posterity.conformance.verdict import Check, compared, counted


def network(outputs: int = 1) -> nn.Module:
    """Return a small network of two inputs, in float64, with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, outputs)).double()


def brief(classes: bool = False) -> Task:
    """Return a task for it of 24 data: a regression, or three classes."""
    case = Conjugate.make()
    if classes:
        return Task(network(3), case.x, (case.y.long() % 3), None, brief=True)
    return Task(network(), case.x, case.y, brief=True)


def coherent(subject: Subject) -> list[Check]:
    """Law 3: one draw is one function: equal seeds give draw(cat(x, x′)) = cat(draw(x), draw(x′)); two draws differ."""
    task = brief()
    found = subject.infer(task)
    whole = found.draw(task.x, 6, 3)
    parts = torch.cat([found.draw(x, 6, 3) for x in task.x.split(10)], 1)
    checks = [compared("draws of the whole and of its parts", whole, parts, atol=1e-9)]
    if not _is_point(subject):
        checks.append(counted("two draws differ", [bool((whole[0] - whole[1]).abs().max() > 1e-6)]))
    return checks


def _is_point(subject: Subject) -> bool:
    one = torch.eye(1, dtype=torch.float64)
    return subject.covariance is not None and float(subject.covariance(one, 1)) == 0


def layer_moments(subject: Subject) -> list[Check]:
    """Law 4, in part: outputs x·w of a linear layer, w ~ N(m, diag s²), have the mean x·m and the variance x²·s²."""
    assert subject.layer is not None
    n, generator = 1000, torch.Generator().manual_seed(0)
    mean, spread = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    std, x = 0.1 + spread.abs(), torch.randn(8, 5, generator=generator, dtype=torch.float64)
    outputs = subject.layer((mean, std), x, n, 0).reshape(n, 8).double()
    variance = x.square() @ std.square()
    # Flipout's outputs are sums of signed normals: normal, as the others', so that the sample variance errs by √(2/n).
    return [
        compared("mean output", outputs.mean(0), x @ mean, error=(variance / n).sqrt()),
        compared("output variance", outputs.var(0), variance, error=(2 / n) ** 0.5 * variance),
    ]


def resumed(subject: Subject) -> list[Check]:
    """Law 6: a run that is interrupted and resumed gives the draws of one that is not, bit for bit."""
    assert subject.resumed is not None
    whole, again = subject.resumed(brief())
    return [compared("draws after a resumed run", again, whole)]


def copied(subject: Subject) -> list[Check]:
    """Law 8, in part: `deepcopy`, `pickle` and files keep every draw, bit for bit."""
    task = brief()
    found = subject.infer(task)

    def draws(of: Inferred) -> Tensor:
        return of.draw(task.x, 4, 5)

    expected = draws(found)
    checks = [
        compared("draws of a deepcopy", draws(deepcopy(found)), expected),
        compared("draws of a pickle", draws(pickle.loads(pickle.dumps(found))), expected),
    ]
    with TemporaryDirectory() as folder:
        read = found.restored(Path(folder))
        return checks if read is None else [*checks, compared("draws of a file", draws(read), expected)]


def precise(subject: Subject) -> list[Check]:
    """Law 9: the log joint in float64 is that of NumPy; bfloat16 autocast leaves draws finite."""
    checks = []
    if subject.log_joint is not None:
        task, theta = Conjugate.make().task(), np.array([0.5, -30.0, 0.1])
        residual = task.y.numpy() - task.x.numpy() @ theta[:2] - theta[2]
        exact = _log_normal(residual, task.noise_std or 1.0) + _log_normal(theta, task.prior_std)
        found = subject.log_joint(task, torch.from_numpy(theta))
        checks.append(compared("log joint in nats", found, exact, atol=1e-12 * abs(exact)))
    task = brief()
    low = replace(task, network=network().float(), x=1e3 * task.x.float(), y=task.y.float(), autocast=True)
    draws = subject.infer(low).draw(low.x, 4, 0)
    return [*checks, counted("finite draws under autocast", [bool(draws.isfinite().all())])]


def _log_normal(z: np.ndarray, std: float) -> float:
    return float((-0.5 * (z / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)).sum())


def transformed(subject: Subject) -> list[Check]:
    """Law 10, in part: a random network runs in `torch.vmap` and in `torch.compile(fullgraph=True)`, and stays random."""
    assert subject.module is not None
    x = Conjugate.make().x
    module = subject.module(network())
    with torch.no_grad():
        rows = torch.vmap(module, randomness="different")(x[:, None].expand(-1, 3, -1))
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        twice = [compiled(x) for _ in range(2)]
    return [
        counted(
            "vmap and compile: right, finite and random",
            [
                rows.shape == (24, 3, 1) and bool(rows.isfinite().all()),
                bool((twice[0] != twice[1]).any()) and bool(twice[0].isfinite().all()),
            ],
        )
    ]


def refused(subject: Subject) -> list[Check]:
    """Law 11, in part: data that cannot be are refused, and the network is left as it was."""
    assert subject.refuses is not None
    outcomes = []
    for task in _bad():
        before = deepcopy(task.network.state_dict())
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a warning is no refusal, not even where warnings are made errors
                subject.refuses(task)
            outcomes.append(False)
        except Exception as error:
            kept = all(torch.equal(v, before[k]) for k, v in task.network.state_dict().items())
            outcomes.append(kept and bool(str(error)))
    return [counted("mistakes refused before anything changed", outcomes)]


def _bad() -> Iterator[Task]:
    task, nan, inf = brief(), float("nan"), float("inf")
    holed, strange = task.x.clone(), task.y.clone()
    holed[7, 0], strange[3] = nan, inf  # a target that is NaN is one that is missing, which some can leave out
    classes = brief(classes=True)
    yield replace(task, x=holed)
    yield replace(task, x=task.x / 0)
    yield replace(task, y=strange)
    yield replace(task, y=task.y[:-1])
    yield replace(task, x=task.x[:, :1])
    yield replace(task, x=task.x.float())
    yield replace(task, x=task.x[:0], y=task.y[:0])
    yield replace(classes, y=classes.y + 1)
    yield replace(classes, y=classes.y - 1)
    yield replace(classes, y=classes.y.double())


def decomposed(subject: Subject) -> list[Check]:
    """Law 12: the total, computed here from the draws alone, is aleatoric + epistemic; both are at least 0."""
    checks, n = [], 12
    for task in (brief(), brief(classes=True)):
        found = subject.infer(task)
        parts = found.decompositions(task.x, n, 2)
        totals = _totals(found.draw(task.x, n, 2), task.noise_std)
        for name, (aleatoric, epistemic) in parts.items():
            checks.append(compared(f"total {name}", aleatoric + epistemic, totals[name], atol=1e-6))
            least = float(torch.minimum(aleatoric, epistemic).min())
            checks.append(compared(f"parts of the {name} below 0", min(0.0, least), 0.0, atol=1e-9))
    return checks


def _totals(draws: Tensor, noise_std: float | None) -> dict[str, Tensor]:
    """Return the total of each decomposition, from draws (n, B, outputs) alone."""
    if noise_std is not None:
        return {"variance": draws[..., 0].var(0, correction=0) + noise_std**2}
    softmax, positive = draws.softmax(-1).mean(0), nn.functional.softplus(draws)
    normalized = (positive / positive.sum(-1, keepdim=True)).mean(0)
    return {
        "entropy": -(softmax * softmax.log()).sum(-1),
        "softmax": softmax * (1 - softmax),
        "normalized": normalized * (1 - normalized),
    }
