"""One row of the table of networks through `torch.compile(fullgraph=True)`.

`python -m tests.conformance.compiled "conv1d" inductor`: the row's name, and one of torch's backends.

Exits with `SKIPPED`, and says why, where torch does not compile the plain network so.
"""

import sys

import torch
from torch import nn

import posterity
from tests.conformance.networks import NETWORKS, Case

SKIPPED = 77


def step(case: Case, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Forward and backward: outputs, with all gradients left in the parameters."""
    network.zero_grad()
    outputs = case.call(network, x)
    outputs.square().mean().backward()
    return outputs.detach()


def main(name: str, backend: str) -> int:
    """Compile the plain network, then the Bayesian one."""
    torch.manual_seed(0)
    case = NETWORKS[name]
    network, x = case.make(), case.inputs()
    try:
        step(case, torch.compile(network, fullgraph=True, backend=backend), x)
    except Exception as error:
        print(f"torch does not compile the plain network in one graph: {str(error).splitlines()[0]}")
        return SKIPPED
    torch.compiler.reset()
    bnn = posterity.bayesianize(network, "*", init=0.1)
    compiled = torch.compile(bnn, fullgraph=True, backend=backend)
    assert not torch.equal(step(case, compiled, x), step(case, compiled, x)), "draws do not differ"
    assert bnn.rho.grad.abs().max() > 0, "no gradient reached the stds"
    with torch.no_grad():
        bnn.rho.fill_(-1000.0)
        outputs, expected = case.call(compiled.eval(), x), case.call(bnn.network.eval(), x)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)  # fused kernels round differently
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
