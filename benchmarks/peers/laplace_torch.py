"""Curvature, evidence and predictive variance beside laplace-torch's, on a LeNet with trained-looking weights.

    pip install --no-deps --target peers laplace-torch==0.3 curvlinops-for-pytorch backpack-for-pytorch asdfghjkl einconv \
        unfoldNd opt_einsum einops tqdm linear_operator jaxtyping wadler_lindig
    PYTHONPATH=peers python benchmarks/peers/laplace_torch.py > docs/results/laplace_oracle.md

Both in float64 on the same weights and data. laplace-torch has a factor for each bias by itself where ours joins weight and
bias in one block, so that its Kronecker form differs but for a network without biases, which is compared.
"""

from importlib.metadata import version

import torch
from laplace import Laplace as PeerLaplace
from laplace.curvature import BackPackGGN, CurvlinopsGGN
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import posterity
from posterity import Categorical, Engine, Laplace, Normal

STD = 0.3
PEERS = {"full": "full", "diag": "diag", "kron": "kron"}


def network(bias: bool) -> nn.Module:
    """LeNet-5's shape for 16 × 16 images."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 4, 5, bias=bias), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3, bias=bias), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(24, 16, bias=bias), nn.Tanh(), nn.Linear(16, 10, bias=bias),
    ]  # fmt: skip
    return nn.Sequential(*layers).double().eval()


def ours(net: nn.Module, x: Tensor, y: Tensor, structure: str, where: str | None) -> tuple[float, Tensor]:
    method = Laplace(None, structure)
    found = posterity.fit(
        net,
        (x, y),
        prior=Normal(0, STD),
        likelihood=Categorical(),
        where=where,
        method=method,
        engine=Engine(progress=False),
    )
    return found.log_evidence, found.moments(x[:20])[1]


def theirs(net: nn.Module, x: Tensor, y: Tensor, structure: str, where: str | None) -> tuple[float, Tensor]:
    subset = "last_layer" if where else "all"
    backend = BackPackGGN if structure == "diag" else CurvlinopsGGN
    peer = PeerLaplace(net, "classification", subset, structure, prior_precision=STD**-2, backend=backend)
    peer.fit(DataLoader(TensorDataset(x, y), batch_size=50))
    variance = peer._glm_predictive_distribution(x[:20])[1]
    return float(peer.log_marginal_likelihood()), variance.diagonal(dim1=1, dim2=2).detach()


def main() -> None:
    torch.set_default_dtype(torch.float64)  # BackPACK makes tensors of its own
    print(
        f"# Laplace approximations beside laplace-torch {version('laplace-torch')}\n\n"
        "A LeNet for 16 × 16 images with 10 classes, 200 images, float64, prior std 0.3, the same weights in both; relative\n"
        "differences. The evidence is log p(D) in nats, the variances are those of the linearised outputs at 20 inputs.\n\n"
        "| weights | structure | log p(D), ours | laplace-torch | largest relative difference of variances |\n"
        "|---|---|---|---|---|"
    )
    for bias in (True, False):
        net = network(bias)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(200, 1, 16, 16, generator=generator, dtype=torch.float64)
        y = torch.randint(10, (200,), generator=generator)
        for where in (None, "last_layer"):
            for structure in PEERS:
                if bias and structure == "kron":
                    continue
                (mine, variance), (other, expected) = (f(net, x, y, structure, where) for f in (ours, theirs))
                largest = float((variance / expected - 1).abs().max())
                name = f"{where or 'all'}, {'with' if bias else 'without'} biases"
                print(f"| {name} | `{structure}` | {mine:.6f} | {other:.6f} | {largest:.1e} |", flush=True)
    print("\n`PYTHONPATH=peers python benchmarks/peers/laplace_torch.py`; how `peers` is made is said there.")


if __name__ == "__main__":
    main()
