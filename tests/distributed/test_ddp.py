"""Law 7 for modules: under DistributedDataParallel two ranks have equal gradients, and noise of their own."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from posterity import bayesianize, kl

WORLD = 2
pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="torch was built without gloo")


def rank(number: int, port: int, estimator: str, folder: str) -> None:
    """One process: a step of the plain training loop under DDP; writes what it saw."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    distributed.init_process_group("gloo", rank=number, world_size=WORLD)
    torch.manual_seed(0)
    bnn = bayesianize(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), estimator=estimator, init=0.1)
    x, y = torch.randn(4 * WORLD, 3), torch.randint(2, (4 * WORLD,))
    own = slice(4 * number, 4 * number + 4)
    torch.manual_seed(100 + number)  # each rank draws weights of its own
    parallel = DistributedDataParallel(bnn)
    outputs = parallel(x[:4])
    loss = nn.functional.cross_entropy(parallel(x[own]), y[own]) + kl(bnn) / len(x)
    loss.backward()
    grads = torch.cat([p.grad.reshape(-1) for p in bnn.parameters()])
    torch.save({"outputs": outputs.detach(), "grads": grads}, Path(folder) / f"{number}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_gradients_are_equal_and_noise_differs(estimator: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(rank, (port, estimator, str(tmp_path)), nprocs=WORLD, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{n}.pt") for n in range(WORLD))
    assert torch.equal(first["grads"], second["grads"])
    assert (first["grads"] != 0).all()
    assert (first["outputs"] != second["outputs"]).any()
