"""What mean field gets wrong about a hierarchical scale, against the exact answer. Writes docs/studies/hierarchical_bias.md.

y = X w + noise, thirty sums of ten weights w ~ N(0, s²), s ~ HalfNormal(1). Given s everything is Gaussian, so p(log s | y)
is a one-dimensional integral, done on a grid. Beside it, mean field in both parameterisations.

    python examples/hierarchical_bias.py
"""

import statistics
import sys
from math import log
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import posterity
from posterity import Engine, Gaussian, HalfNormal, Hierarchical, MeanField, Optimizer, TensorData
from posterity.bench.bound import Bounds, nelbo

PAGE = Path(__file__).parent.parent / "docs" / "studies" / "hierarchical_bias.md"
NOISE, SEEDS = 0.5, 5
LAST = 200  # epochs, of one step each, that a bound is averaged over
READING = (
    "Where the data determine the weights, the centred form is nearly right: given the weights, s hangs on Σw² alone, which q",
    "knows well. The non-centred q is far too sure of s: in the posterior s and z trade off along s·z = const, and a q without",
    "correlations keeps only what is left when z is held. Where the data say little, both q put s too low, and the centred one",
    "less so. Hence `Hierarchical` is centred unless you say otherwise; samplers, which keep correlations, may want the other.",
)


def data(rows: int) -> tuple[Tensor, Tensor]:
    """`rows` noisy sums of ten weights of scale 0.8."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(rows, 10, generator=generator, dtype=torch.float64)
    w = 0.8 * torch.randn(10, generator=generator, dtype=torch.float64)
    return x, x @ w + NOISE * torch.randn(rows, generator=generator, dtype=torch.float64)


def exact(rows: int) -> tuple[float, float, float]:
    """Mean and std of log s under the posterior, and −log p(y) per sum, by quadrature."""
    x, y = data(rows)
    grid = torch.linspace(-6, 4, 2001, dtype=torch.float64)
    noise = NOISE**2 * torch.eye(rows, dtype=torch.float64)
    log_density = torch.stack(
        [
            MultivariateNormal(torch.zeros_like(y), noise + (2 * u).exp() * x @ x.T).log_prob(y)
            + HalfNormal(1.0).log_prob(u)
            for u in grid
        ]
    )
    weights = log_density.softmax(0)
    mean = float((weights * grid).sum())
    evidence = float(log_density.logsumexp(0)) + log(float(grid[1] - grid[0]))
    return mean, float((weights * (grid - mean).square()).sum().sqrt()), -evidence / rows


def mean_field(rows: int, centered: bool, seed: int) -> tuple[float, float, float]:
    """The same of a fit, whose −ELBO stands in the place of −log p(y)."""
    torch.manual_seed(seed)
    bounds, (x, y) = Bounds(), data(rows)
    posterior = posterity.fit(
        nn.Linear(10, 1, bias=False).double(),
        TensorData(x, y, rows),
        likelihood=Gaussian(std=NOISE),
        prior=Hierarchical(scale=HalfNormal(1.0), centered=centered),
        method=MeanField(epochs=3000, draws=2, antithetic=True, optimizer=Optimizer(lr=0.03)),
        engine=Engine(seed=seed, progress=sys.stderr.isatty(), on_epoch=bounds),
    )
    draws = posterior.latents["prior.scale.weight"].draws.log()
    return float(draws.mean()), float(draws.std()), statistics.fmean(map(nelbo, bounds.histories["fit"][-LAST:]))


def main() -> None:
    lines = [
        "# A scale by mean field, and the exact one",
        "",
        "`python examples/hierarchical_bias.py`. " + " ".join((__doc__ or "").split("\n\n")[1].split("\n")),
        "",
        f"Posterior of log s; mean field: mean ± standard deviation over {SEEDS} seeds. −ELBO in nats per sum, averaged over",
        f"the last {LAST} of 3,000 steps of the whole data; exact: −log p(y), which no −ELBO is below.",
        "",
        "| data | | mean of log s | std of log s | −ELBO |",
        "|---|---|---|---|---|",
    ]
    for rows, said in ((30, "30 sums, which determine the weights"), (5, "5 sums, which do not")):
        lines.append(f"| {said} | exact | {' | '.join(f'{value:.3f}' for value in exact(rows))} |")
        for centered in (True, False):
            fits = [mean_field(rows, centered, seed) for seed in range(SEEDS)]
            cells = [f"{statistics.mean(v):.3f} ± {statistics.stdev(v):.3f}" for v in zip(*fits, strict=True)]
            name = "centred" if centered else "non-centred"
            lines.append(f"| | mean field, {name} | {' | '.join(cells)} |")
    lines += ["", *READING]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
