"""Predictions from several threads, interrupted ones, in forks and in other processes; and the memory that they take."""

import asyncio
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import posterity
from posterity import Categorical, Normal, Problem
from posterity.core.jacobian import _Shared
from posterity.core.threads import Spares
from posterity.errors import OutOfMemory
from posterity.model.lending import lent, twin
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.dropout import Dropout
from posterity.posteriors.full_rank import FullRankGaussian
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.kronecker import KroneckerGaussian, LowRankPrecisionGaussian, Part
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from tests.processes import python

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
MIB = 2**20


@cache
def families() -> dict[str, FunctionPosterior]:
    """Every family, of one network; some share it as an object."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3)).eval()
    problem = Problem(network, Normal(0, 1), Categorical(), num_data=60)
    theta = problem.theta()
    size = len(theta)
    std, factor = torch.full((size,), 0.3), 0.1 * torch.randn(size, 2)
    empty = torch.empty(0, 0)
    gaussian = DiagonalGaussian(problem, theta, std)
    block = Part(torch.tensor([[0, size]]), std[None], empty, empty)
    normed = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    other = Problem(normed, Normal(0, 1), Categorical(), num_data=60)
    thetas = other.theta() + 0.3 * torch.randn(12, other.layout.size)
    statistics = {"1.running_mean": torch.randn(12, 8), "1.running_var": torch.rand(12, 8) + 0.5}
    own = {
        "point": Point(problem, theta),
        "diagonal": gaussian,
        "low_rank": LowRankGaussian(problem, theta, std, factor),
        "full_rank": FullRankGaussian(problem, theta, 0.3 * torch.eye(size)),
        "kronecker": KroneckerGaussian(problem, theta, (block,)),
        "precision": LowRankPrecisionGaussian(problem, theta, std, torch.eye(size)[:, :2], torch.tensor([0.5, 0.2])),
        "dropout": Dropout(problem, theta, {"2": 0.3}),
        "samples": Samples(problem, theta + 0.3 * torch.randn(20, size)),
        "statistics": Samples(other, thetas, statistics=statistics),
        "linearised": Linearised(problem, gaussian),
        "probit": Linearised(problem, gaussian, "probit"),
    }
    return {**own, "mixture": Mixture.of([own[n] for n in ("diagonal", "point", "dropout", "linearised")])}


def predicted(posterior: FunctionPosterior, i: int) -> Tensor:
    generator = torch.Generator().manual_seed(i)
    inputs = X[i % 20 : i % 20 + 40]
    if i % 3 == 0:
        return posterity.average(posterior, inputs, 8, generator=generator).mean
    return posterior.predict(inputs, 8, generator=generator).mean


def state(posterior: FunctionPosterior) -> list[Any]:
    """All that a prediction could leave behind in the posterior's networks."""
    parts = posterior.components if isinstance(posterior, Mixture) else [posterior]
    found: list[Any] = []
    for network in (part.problem.network for part in parts):
        found += [(id(p), p.data_ptr(), p.sum().item()) for p in [*network.parameters(), *network.buffers()]]
        found += [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    return found


@pytest.mark.parametrize("name", list(families()))
def test_threads_give_the_serial_numbers(name: str) -> None:
    posterior = families()[name]
    before = state(posterior)
    serial = [predicted(posterior, i) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: predicted(posterior, i), range(24)))
    for one, other in zip(found, serial, strict=True):
        torch.testing.assert_close(one, other)
    assert state(posterior) == before


def test_a_server_of_asyncio_and_all_families_at_once() -> None:
    jobs = [(posterior, i) for i in range(4) for posterior in families().values()]

    async def served() -> list[Tensor]:
        return await asyncio.gather(*(asyncio.to_thread(predicted, *job) for job in jobs))

    for found, job in zip(asyncio.run(served()), jobs, strict=True):
        torch.testing.assert_close(found, predicted(*job))


def interrupted(run: Callable[[], object], after: int) -> bool:
    """Raise KeyboardInterrupt at so many lines of the library's own code, or torch's modes; say whether it came so far."""
    count = 0
    places = ("posterity", "torch/overrides.py", "torch/utils/_contextlib.py", "torch/autograd/grad_mode.py")

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        name = frame.f_code.co_filename.replace(os.sep, "/")
        if not any(place in name for place in places) or "tests" in name:
            return None
        if event == "line":
            count += 1
            if count == after:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        run()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False


@pytest.mark.parametrize("name", ["diagonal", "dropout", "statistics", "linearised"])
def test_an_interrupt_anywhere_leaves_nothing_behind(name: str) -> None:
    posterior = families()[name]
    posterior.predict(X, 4)
    before, expected = state(posterior), predicted(posterior, 1)
    modes = (
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.overrides._len_torch_function_stack(),
    )
    points, after = 0, 1
    while interrupted(lambda: predicted(posterior, 1), after):
        points, after = points + 1, after + 1 + after // 12
        assert state(posterior) == before
        now = torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()
        assert (*now, torch.overrides._len_torch_function_stack()) == modes
    assert points > 20
    with ThreadPoolExecutor(1) as pool:  # another thread waits for nobody
        torch.testing.assert_close(pool.submit(predicted, posterior, 1).result(timeout=20), expected)


def test_a_state_of_the_process_ends_wherever_its_user_is_interrupted() -> None:
    inside = 0

    class State:  # as torch's: nothing ends it but its end
        def __enter__(self) -> None:
            nonlocal inside
            inside += 1

        def __exit__(self, *_: object) -> None:
            nonlocal inside
            inside -= 1

    def used() -> None:
        with shared.held():
            pass

    shared, after = _Shared(State), 1
    while interrupted(used, after):
        assert inside == 0, after
        after += 1
    assert after > 10


def answer(queue: Any, posterior: FunctionPosterior) -> None:
    torch.set_num_threads(1)
    queue.put(predicted(posterior, 1).tolist())


def answered(kind: str, posterior: FunctionPosterior) -> Tensor:
    context = multiprocessing.get_context(kind)
    queue = context.Queue()
    process = context.Process(target=answer, args=(queue, posterior))  # type: ignore[attr-defined]
    process.start()
    try:
        return torch.tensor(queue.get(timeout=60))
    finally:
        process.join(20)
        process.kill()


def test_a_forked_child_predicts_while_its_parent_does() -> None:
    torch.set_num_threads(1)
    for name in ("linearised", "dropout"):
        posterior = families()[name]
        expected = predicted(posterior, 1)
        with ThreadPoolExecutor(2) as pool:
            busy = [pool.submit(predicted, posterior, i) for i in range(60)]
            torch.testing.assert_close(answered("fork", posterior), expected)
            for job in busy:
                job.result()


def test_another_process_predicts_from_a_pickle() -> None:
    posterior = families()["mixture"]
    torch.testing.assert_close(answered("forkserver", posterior), predicted(posterior, 1))
    assert pickle.loads(pickle.dumps(posterior)).problem.spares is not posterior.problem.spares


def test_a_network_that_cannot_be_copied_is_used_in_turns() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError

    closure = nn.Linear(4, 3)

    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.run = closure, lambda x: closure(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.run(x)

    for network in (Held(), Behind()):
        problem = Problem(network.eval(), Normal(0, 1), Categorical(), num_data=60)
        posterior = DiagonalGaussian(problem, problem.theta(), torch.full((15,), 0.3))
        serial = [predicted(posterior, i) for i in range(24)]
        assert serial[1].std() > 0
        assert not torch.equal(serial[1], predicted(Point(problem, problem.theta()), 1))
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda i, q=posterior: predicted(q, i), range(24)))  # type: ignore[misc]
        torch.testing.assert_close(torch.stack(found), torch.stack(serial))
        assert problem.spares is not None
        assert problem.spares.single


def test_what_is_changed_in_the_network_is_seen() -> None:
    network = nn.Sequential(nn.Linear(4, 3)).eval()
    problem = Problem(network, Normal(0, 1), Categorical(), num_data=60)
    posterior, seen = Point(problem, problem.theta()), []
    posterior.predict(X, 1)
    handle = network[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    posterior.predict(X, 1)
    count = len(seen)
    assert count > 0
    handle.remove()
    posterior.predict(X, 1)
    assert len(seen) == count


def test_copies_share_their_tensors_and_are_kept() -> None:
    posterior = families()["statistics"]
    with lent(posterior.problem, X) as own:
        assert own.network is not posterior.problem.network
        assert {p.data_ptr() for p in own.network.parameters()} == {
            p.data_ptr() for p in posterior.problem.network.parameters()
        }
        assert next(iter(own.network.buffers())) is next(iter(posterior.problem.network.buffers()))
    with lent(posterior.problem, X) as again:
        assert again is own
    assert isinstance(deepcopy(posterior.problem).spares, Spares)
    assert twin(posterior.problem.network) is not None


def test_a_bayesian_module_keeps_its_weights() -> None:
    bnn = posterity.bayesianize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), init=0.1)
    before = {name: value.clone() for name, value in bnn.state_dict().items()}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: bnn(X), range(200)))
    assert all(isinstance(p, nn.Parameter) for p in bnn.parameters())
    for name, value in bnn.state_dict().items():
        assert torch.equal(value, before[name])
    assert pickle.loads(pickle.dumps(bnn))(X).shape == (60, 3)


MEASURED = """
import sys, torch
from posterity import Categorical, Normal, Problem
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.zoo import MLP
torch.set_num_threads(1)
def peak(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
problem = Problem(MLP((8, 64, 4)).eval(), Normal(0, 1), Categorical(), 10)
theta = problem.theta()
posterior = DiagonalGaussian(problem, theta, 0.1 * torch.ones_like(theta))
x = torch.randn(300_000, 8)
posterior.predict(x[:2], 8)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = peak("VmRSS")
kept = getattr(posterior, sys.argv[1])(x, 8, max_bytes=32 * 2**20)
print(peak("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("what", "held"), [("draw", 1), ("predict", 3)])
def test_memory_rises_by_the_result_and_the_budget(what: str, held: int) -> None:
    """Probabilities, their logarithms and the outputs are what a classification holds."""
    found = python(MEASURED, what).done()
    result = held * 8 * 300_000 * 4 * 4
    assert int(found.stdout) < result + 2 * 32 * MIB


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_out_of_memory_says_what_to_lower(error: Exception) -> None:
    class Large(nn.Linear):
        full = False

        def forward(self, x: Tensor) -> Tensor:
            if Large.full:
                raise error
            return super().forward(x)

    problem = Problem(Large(4, 3).eval(), Normal(0, 1), Categorical(), num_data=60)
    posterior = DiagonalGaussian(problem, problem.theta(), torch.ones(15))
    Large.full = True
    for ask in (posterior.draw, posterior.predict, lambda *a: posterity.average(posterior, *a)):
        with pytest.raises(OutOfMemory, match="Lower n; give fewer inputs at a time; or lower max_bytes"):
            ask(X, 8)  # type: ignore[operator]


def test_a_result_in_parts_is_that_of_the_whole() -> None:
    posterior = families()["diagonal"]
    x = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    parts, whole = (
        posterior.predict(x, 8, generator=torch.Generator().manual_seed(0), max_bytes=size) for size in (60_000, 2**30)
    )
    for name in ("probs", "log_probs", "outputs", "mean", "mutual_information"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))
