"""Curvature of networks of every kind against Jacobians and Hessians taken whole by autograd."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posterity import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    InvalidInput,
    Normal,
    Problem,
    TensorData,
)
from posterity.core.curvature import (
    CategoricalCurvature,
    DiagonalCurvature,
    FullCurvature,
    IndependentCurvature,
    LowRankCurvature,
    ScoreCurvature,
    top_eigenspace,
)
from posterity.core.kronecker import KroneckerBlock, KroneckerCurvature
from posterity.methods.laplace import Laplace
from posterity.methods.passes import measured
from posterity.methods.totals import LowRankTotal
from posterity.model.outputs import output_curvature


class Tokens(nn.Module):
    """Embedding, attention in either layout, mean over tokens."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 6, batch_first=batch_first)
        self.head = nn.Linear(4, 3)
        self.first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        e = self.embed(x)
        e = self.block(e) if self.first else self.block(e.transpose(0, 1)).transpose(0, 1)
        return self.head(e.mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 3, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Tied(nn.Module):
    """One weight at two places, another by a function that no rule knows, and tokens folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.gain = nn.Parameter(torch.ones(3))
        self.fold = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.one(torch.tanh(self.one(x)))) * self.gain
        return torch.tanh(self.fold(h.reshape(-1, 1))).reshape(len(x), -1)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1, dilation=(1, 2)),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 2, padding="same"),
        nn.Tanh(),
        nn.Conv2d(4, 4, 2, groups=2),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 2, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 3, bias=False),
    )


def flat(dims: int) -> nn.Module:
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    return nn.Sequential(conv(2, 3, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2))


NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 3)), (3,)),
    "tokens_linear": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Flatten(), nn.Linear(20, 3)), (5, 3)),
    "conv2d": (convolutions, (2, 7, 9)),
    "conv1d": (lambda: flat(1), (2, 6)),
    "conv3d": (lambda: flat(3), (2, 4, 4, 4)),
    "tokens": (Tokens, "tokens"),
    "tokens_second": (lambda: Tokens(False), "tokens"),
    "recurrent": (Recurrent, (4, 2)),
    "tied": (Tied, (3,)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
N = 5


def problem_of(name: str, where: object = "*", likelihood: object = None) -> tuple[Problem, TensorData]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make()
    inputs = torch.randint(7, (N, N)) if shape == "tokens" else torch.randn(N, *shape, dtype=torch.float64)
    if shape != "tokens":
        network(inputs.float())  # lazy layers, running statistics
    network = network.double().eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return Problem(network, Normal(0, 0.5), likelihood or Categorical(), N, where), TensorData(
        inputs, torch.zeros(N).long(), 3
    )


def whole_jacobian(problem: Problem, inputs: Tensor) -> Tensor:
    """J, (N, D, R), by reverse mode, one output at a time on the ordinary network."""
    params = [problem.params[n] for n in problem.coordinates.random_names]
    torch.backends.mha.set_fastpath_enabled(False)
    outputs = problem.network(inputs)
    torch.backends.mha.set_fastpath_enabled(True)
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(f, params, retain_graph=True, materialize_grads=True)])
        for f in outputs.flatten()
    ]
    return torch.stack(rows).reshape(*outputs.shape, -1)


def exact(problem: Problem, data: TensorData) -> Tensor:
    """G = Σ Jᵀ Λ J, with Λ the Hessian of the negative log-likelihood in the outputs, by autograd."""
    jacobian = whole_jacobian(problem, data.inputs)
    total = torch.zeros(jacobian.shape[-1], jacobian.shape[-1], dtype=torch.float64)
    for f, j, y in zip(problem.network(data.inputs).detach(), jacobian, data.targets, strict=True):
        hessian = torch.func.hessian(lambda f, y=y: -problem.likelihood(f[None], {}).log_prob(y[None]).sum())(f)
        total += j.T @ hessian @ j
    return total


def found(problem: Problem, data: TensorData, structure: str, **options: object):
    return measured(problem, problem.theta(), data, Laplace(structure=structure, **options)).curvature


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


@every_network
def test_full_is_that_of_autograd(name: str) -> None:
    problem, data = problem_of(name)
    expected = exact(problem, data)
    assert expected.diagonal().max() > 1e-3
    close(found(problem, data, "full").matrix, expected)
    with pytest.raises(AssertionError):
        close(2 * found(problem, data, "full").matrix, expected)


@every_network
def test_diagonal_is_that_of_the_full(name: str) -> None:
    problem, data = problem_of(name)
    close(found(problem, data, "diag").values, exact(problem, data).diagonal())


@pytest.mark.parametrize("structure", ["full", "diag"])
@pytest.mark.parametrize("where", ["last_layer", "*.bias", ["0", "3.weight"]])
def test_parts_of_a_network_have_their_part_of_the_curvature(structure: str, where: object) -> None:
    problem, data = problem_of("mlp", where)
    expected = exact(problem, data)
    own = found(problem, data, structure)
    close(own.matrix if structure == "full" else own.values, expected if structure == "full" else expected.diagonal())


@every_network
def test_products_are_those_of_the_full(name: str) -> None:
    problem, data = problem_of(name)
    expected = exact(problem, data)
    directions = torch.randn(len(expected), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    close(LowRankTotal(problem, data, Laplace(structure="low_rank"))._product(directions), expected @ directions)


def test_as_many_directions_as_weights_are_exact() -> None:
    problem, data = problem_of("mlp", "last_layer")
    factor = found(problem, data, "low_rank", rank=15).factor
    close(factor @ factor.T, exact(problem, data))


def test_few_directions_are_the_largest() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64))[0]
    values = 1e4 * 0.7 ** torch.arange(60, dtype=torch.float64)
    matrix = (basis * values) @ basis.T
    factor = top_eigenspace(lambda v: matrix @ v, 60, 5, 3, matrix).factor
    torch.testing.assert_close(factor.square().sum(0), values[:5], rtol=1e-3, atol=0)
    close(factor.T @ factor, (factor.T @ factor).diagonal().diag())
    torch.testing.assert_close(factor @ factor.T, (basis[:, :5] * values[:5]) @ basis[:, :5].T, rtol=0, atol=2.0)


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "mlp"])
def test_blocks_that_no_kronecker_product_serves_are_exact(name: str) -> None:
    problem, data = problem_of(name)
    expected = exact(problem, data)
    served, blocks = set(), 0
    for block in found(problem, data, "kron").blocks:
        index = torch.cat([torch.arange(a, b) for a, b in block.slices])
        served |= set(index.tolist())
        if not isinstance(block, KroneckerBlock):
            close(block.curvature.matrix, expected[index][:, index])
            blocks += 1
    assert served == set(range(len(expected)))
    assert blocks == {"conv2d": 6, "tokens": 8, "tokens_second": 8, "recurrent": 4, "tied": 3}.get(name, 0)


def dense(block: KroneckerBlock) -> Tensor:
    """L ⊗ R over the block's coordinates: weights row by row, then biases."""
    left = block.left_values.diag() if block.left_basis is None else _matrix(block.left_values, block.left_basis)
    product = torch.kron(left, _matrix(block.right_values, block.right_basis))
    if len(block.slices) == 1:
        return product
    rows, columns = len(left), len(block.right_values)
    index = torch.arange(rows * columns).view(rows, columns)
    order = torch.cat([index[:, :-1].flatten(), index[:, -1]])
    return product[order][:, order]


def _matrix(values: Tensor, basis: Tensor) -> Tensor:
    return (basis * values) @ basis.T


@pytest.mark.parametrize("name", ["tokens_linear", "conv1d", "conv3d", "conv2d"])
def test_kronecker_factors_are_sums_over_places(name: str) -> None:
    """Against factors by autograd on a network whose first weight is untied: one copy for each place of each example."""
    problem, data = problem_of(name)
    network, layer = problem.network, problem.network[0]
    block = found(problem, data, "kron").blocks[0]
    inputs, results = [], []
    handle = layer.register_forward_hook(lambda m, i, y: (inputs.append(i[0]), results.append(y), y.clone())[2])
    outputs = network(data.inputs)
    handle.remove()
    x, y = inputs[0].detach(), results[0]
    probs = outputs.detach().softmax(-1)
    lefts = []
    for n in range(N):
        values, basis = torch.linalg.eigh(probs[n].diag() - torch.outer(probs[n], probs[n]))
        for value, vector in zip(values.clamp_min(0), basis.T, strict=True):  # another root of Λ than the library's
            (g,) = torch.autograd.grad((outputs[n] * vector).sum() * value.sqrt(), [y], retain_graph=True)
            lefts.append(g[n].reshape(len(layer.weight), -1) if y.dim() > 3 or name != "tokens_linear" else g[n].T)
    left = sum(g @ g.T for g in lefts)
    # What a convolution sees at each place: the response to weights that are one at a single entry.
    units = torch.eye(layer.weight[0].numel(), dtype=torch.float64).reshape(-1, *layer.weight.shape[1:])
    if name == "tokens_linear":
        a = x.reshape(-1, x.shape[-1])
    else:
        probe = type(layer)(
            layer.in_channels, len(units), layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False
        )
        probe.weight = nn.Parameter(units)
        a = probe(x).detach().movedim(1, -1).reshape(-1, len(units))
    a = torch.cat([a, torch.ones(len(a), 1, dtype=torch.float64)], 1)
    expected = torch.kron(left, a.T @ a / len(a))
    rows, columns = len(left), a.shape[1]
    index = torch.arange(rows * columns).view(rows, columns)
    order = torch.cat([index[:, :-1].flatten(), index[:, -1]])
    close(dense(block), expected[order][:, order])
    with pytest.raises(AssertionError):
        close(2 * dense(block), expected[order][:, order])


def test_one_datum_of_one_place_makes_kronecker_exact() -> None:
    torch.manual_seed(0)
    problem = Problem(nn.Linear(3, 4).double(), Normal(0, 1), Categorical(), 1)
    data = TensorData(torch.randn(1, 3, dtype=torch.float64), torch.tensor([2]))
    (block,) = found(problem, data, "kron").blocks
    close(dense(block), exact(problem, data))


def test_a_lookup_has_a_diagonal_factor_and_repeated_tokens_add_up() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2)).double()
    x = torch.tensor([[0, 0], [1, 3], [3, 0]])
    problem = Problem(network, Normal(0, 1), Categorical(), 3)
    data = TensorData(x, torch.zeros(3).long(), 2)
    close(found(problem, data, "diag").values, exact(problem, data).diagonal())
    block = next(b for b in found(problem, data, "kron").blocks if b.slices[0][0] == 0)
    assert block.left_basis is None
    torch.testing.assert_close(block.left_values, torch.tensor([3, 1, 0, 2, 0]).double() / 6)
    one = replace(data, inputs=x[1:2, :1].expand(1, 2), targets=data.targets[:1])  # one token twice, in one datum
    problem = replace(problem, num_data=1)
    assert found(problem, one, "diag").values[3 * 1] > 0
    close(found(problem, one, "diag").values, exact(problem, one).diagonal())


LIKELIHOODS = {
    "categorical": (Categorical(), 3, torch.tensor([0, 2, 1, 1])),
    "bernoulli": (Bernoulli(), 1, torch.tensor([0.0, 1.0, 1.0, 0.0]).double()),
    "gaussian": (Gaussian(std=0.3), 2, torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()),
    "heteroscedastic": (
        HeteroscedasticGaussian(0.1),
        2,
        torch.randn(4, generator=torch.Generator().manual_seed(0)).double(),
    ),
}


def expected_fisher(likelihood: object, f: Tensor) -> Tensor:
    """E[score scoreᵀ] over the likelihood's own targets: a sum over classes, or Gauss–Hermite quadrature."""

    def score(y: Tensor) -> Tensor:
        leaf = f.clone().requires_grad_()
        (g,) = torch.autograd.grad(likelihood(leaf[None], {}).log_prob(y[None]).sum(), [leaf])
        return torch.outer(g, g)

    distribution = likelihood(f[None], {})
    if isinstance(likelihood, Categorical | Bernoulli):
        values = range(max(2, len(f)))
        return sum(distribution.log_prob(torch.tensor([y])).exp() * score(torch.tensor(y)) for y in values)
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    mean, std = distribution.mean[0], distribution.stddev[0]
    if mean.dim() == 0:
        return sum(w * score(mean + std * z) for z, w in zip(nodes.tolist(), weights.tolist(), strict=True))
    grid = [(a, b, u * v) for a, u in zip(nodes, weights, strict=True) for b, v in zip(nodes, weights, strict=True)]
    return sum(w * score(mean + std * torch.tensor([a, b]).double()) for a, b, w in grid)


@pytest.mark.parametrize("kind", ["ggn", "fisher"])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_curvature_in_the_outputs(name: str, kind: str) -> None:
    likelihood, width, y = LIKELIHOODS[name]
    f = torch.randn(4, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    problem = Problem(nn.Linear(2, width).double(), Normal(0, 1), likelihood, 4)
    own = output_curvature(problem, f, y, kind, {})
    if kind == "ggn":
        expected = torch.stack([expected_fisher(likelihood, row) for row in f])
    else:
        leaf = f.clone().requires_grad_()
        (score,) = torch.autograd.grad(likelihood(leaf, {}).log_prob(y).sum(), [leaf])
        expected = score[:, :, None] * score[:, None]
    columns = torch.stack([own.column(k) for k in range(own.width)], -1)
    close(columns @ columns.mT, expected)
    close(own.total(), expected.sum(0))
    close(own.diagonal(), expected.diagonal(dim1=1, dim2=2))
    u = torch.randn(3, 4, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    close(own.times(u), (expected @ u[..., None])[..., 0])


def test_probabilities_that_underflow_have_no_curvature() -> None:
    own = CategoricalCurvature(torch.tensor([[200.0, 0.0]]).softmax(-1))
    assert own.column(1).isfinite().all()
    assert own.total().abs().max() < 1e-30


def random_curvatures() -> dict[str, tuple[object, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    left, right = (a @ a.T for a in (torch.randn(n, n, generator=generator, dtype=torch.float64) for n in (2, 3)))
    block = KroneckerBlock(((0, 4), (4, 6)), *torch.linalg.eigh(left), *torch.linalg.eigh(right))
    return {
        "full": (FullCurvature(factor @ factor.T), factor @ factor.T),
        "diag": (DiagonalCurvature(factor[:, 0].square()), factor[:, 0].square().diag()),
        "low_rank": (LowRankCurvature(factor), factor @ factor.T),
        "kron": (KroneckerCurvature((block,)), dense(block)),
    }


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("name", ["full", "diag", "low_rank", "kron"])
def test_determinants_and_their_gradients(name: str, even: bool) -> None:
    curvature, matrix = random_curvatures()[name]
    logs = torch.tensor([0.3, 0.3 if even else -1.2, 0.5], dtype=torch.float64, requires_grad=True)
    count = 4 if name == "kron" else 3
    precision = torch.cat([logs[:1].exp().expand(count), logs[1:2].exp().expand(len(matrix) - count)])
    value, expected = (
        curvature.log_det(precision, logs[2].exp()),
        torch.logdet(logs[2].exp() * matrix + precision.diag()),
    )
    torch.testing.assert_close(value, expected)
    if name != "kron" or even:  # where weight and bias share a std, as tuning has it
        grads, wanted = (torch.autograd.grad(v, [logs], retain_graph=True)[0] for v in (value, expected))
        if name == "kron":
            grads, wanted = (torch.stack([g[:2].sum(), g[2]]) for g in (grads, wanted))
        torch.testing.assert_close(grads, wanted)


@pytest.mark.filterwarnings("ignore:The gradients of:posterity.PosterityWarning")
def test_what_mixes_examples_or_has_no_derivative_is_refused_by_name() -> None:
    x, y = torch.zeros(4, 3).long(), torch.zeros(4).long()
    renormed = nn.Sequential(nn.Embedding(5, 3, max_norm=1.0), nn.Flatten(), nn.Linear(9, 2))
    bag = nn.Sequential(nn.EmbeddingBag(5, 3), nn.Linear(3, 2))
    from posterity import Engine, fit

    with pytest.raises(InvalidInput, match=r"Embedding '0' has max_norm.*where='!0.weight'"):
        fit(renormed, (x, y), method=Laplace(None), engine=Engine(progress=False))
    fit(renormed, (x, y), method=Laplace(None), where="!0.weight", engine=Engine(progress=False))
    for options in ({}, {"structure": "low_rank", "prediction": "sampled"}):
        with pytest.raises(InvalidInput, match=r"EmbeddingBag '0' has no forward derivative.*where='!0.weight'"):
            fit(bag, (x, y), method=Laplace(None, **options), engine=Engine(progress=False))
    fit(bag, (x, y), method=Laplace(None, "full", prediction="sampled"), engine=Engine(progress=False)).draw(x, 2)
    mixing = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))
    with pytest.raises(InvalidInput, match=r"BatchNorm1d '1' has no running statistics"):
        fit(mixing, (x.float(), y), method=Laplace(None), engine=Engine(progress=False))


def test_curvature_types_have_the_width_of_their_columns() -> None:
    values = torch.ones(2, 3)
    assert [c(values).width for c in (CategoricalCurvature, IndependentCurvature, ScoreCurvature)] == [3, 3, 1]
