"""Rows of padding are constants: in every draw of every method, in conversions, in files, and for anyone's own optimiser."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

import posterity
import posterity.nn as pnn
from posterity import (
    HMC,
    IVON,
    MAP,
    MLE,
    NUTS,
    SGHMC,
    SGLD,
    SWAG,
    Categorical,
    Cyclical,
    Engine,
    Ensemble,
    FullRank,
    Hierarchical,
    Laplace,
    LowRank,
    MCDropout,
    MeanField,
    Mismatch,
    Normal,
    Optimizer,
    Problem,
    Refine,
    bayesianize,
    fit,
    kl,
)
from posterity.core.layout import ConstantRows, Layout
from posterity.model.initial import curvature_std, initial_std
from posterity.model.padding import padding_kept, padding_rows
from posterity.optim import parameter_groups
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.files import load
from posterity.posteriors.prior import PriorDraws

PAD = torch.tensor([0.5, -1.0, 2.0])  # pretrained tables have rows of padding that are not zero


class Sentence(nn.Module):
    """Masks what comes of padding: the same answer for any padding."""

    def __init__(self, padding: int = 0, symbols: int = 6, **options: Any) -> None:
        super().__init__()
        self.table = nn.Embedding(symbols, 3, padding_idx=padding, **options)
        with torch.no_grad():
            self.table.weight[padding] = PAD
        self.hidden, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        kept = (tokens != self.table.padding_idx).unsqueeze(-1)
        return self.head((self.hidden(self.table(tokens)).tanh() * kept).sum(1))


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.EmbeddingBag(6, 3, padding_idx=-2, mode="sum"), nn.Linear(3, 2)
        with torch.no_grad():
            self.table.weight[4] = PAD

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens))


class Tied(nn.Module):
    """The table is the output head, too: there the row of padding has a gradient of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(6, 3, padding_idx=2), nn.Linear(3, 6, bias=False)
        self.head.weight = self.table.weight
        with torch.no_grad():
            self.table.weight[2] = PAD

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens).sum(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "first": (Sentence, 0),
    "last": (lambda: Sentence(-1), 5),
    "middle": (lambda: Sentence(3), 3),
    "sparse": (lambda: Sentence(3, sparse=True), 3),
    "bag": (Bag, 4),
    "tied": (Tied, 2),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
FEW = Optimizer(lr=0.05)
METHODS: dict[str, Any] = {
    "mean field": MeanField(epochs=2, optimizer=FEW),
    "local": MeanField("local_reparam", epochs=2, optimizer=FEW),
    "flipout": MeanField("flipout", epochs=2, optimizer=FEW),
    "path": MeanField(gradient="path", epochs=2, optimizer=FEW),
    "importance": MeanField(objective="importance_weighted", draws=2, epochs=2, optimizer=FEW),
    "learnt prior": MeanField(learn_prior="layer", epochs=2, optimizer=FEW),
    "relative": MeanField(initial="relative", initial_std=0.1, epochs=2, optimizer=FEW),
    "curvature": MeanField(initial="curvature", epochs=2, optimizer=FEW),
    "decay": MeanField(epochs=2, optimizer=Optimizer("AdamW", lr=0.05)),
    "ivon": IVON(epochs=2),
    "low rank": LowRank(rank=2, epochs=2, optimizer=FEW),
    "full rank": FullRank(epochs=2, optimizer=FEW),
    "swag": SWAG(rank=2, iterates=3, epochs=4),
    "sgld": SGLD(epochs=8, draws=3),
    "preconditioned": SGLD(epochs=8, draws=3, preconditioner="rmsprop", lr=1e-3),
    "sghmc": SGHMC(epochs=8, draws=3),
    "cyclical": Cyclical(SGLD(epochs=4, draws=2), cycles=2, exploration=0.5),
    "hmc": HMC(chains=1, warmup=5, draws=4),
    "nuts": NUTS(chains=1, warmup=5, draws=4),
    "map": MAP(epochs=2, optimizer=FEW),
    "mle": MLE(epochs=2, optimizer=FEW),
    "dropout": MCDropout(rate=0.2, epochs=2, optimizer=FEW),
    "ensemble": Ensemble(MLE(epochs=2, optimizer=FEW), 2),
    "refined": Refine(MeanField(epochs=1), after=MAP(epochs=1)),
    "laplace full": Laplace(MAP(epochs=2), structure="full"),
    "laplace diag": Laplace(MAP(epochs=2), structure="diag"),
    "laplace kron": Laplace(MAP(epochs=2), structure="kron"),
    "laplace low rank": Laplace(MAP(epochs=2), structure="low_rank", rank=3),
}


def made(name: str) -> tuple[nn.Module, int, Tensor, Tensor]:
    torch.manual_seed(0)
    build, row = NETWORKS[name]
    tokens = torch.randint(6, (24, 4))
    return build(), row, tokens, tokens[:, 0] % 2


def fitted(network: nn.Module, tokens: Tensor, targets: Tensor, method: Any, **options: Any) -> FunctionPosterior:
    engine = Engine(progress=False, seed=0, device="cpu")
    return fit(network, (tokens, targets), method=method, prior=Normal(0.3, 0.5), engine=engine, **options)


def components(posterior: Any) -> tuple[FunctionPosterior, ...]:
    return getattr(posterior, "components", (posterior,))


# One of each family of posteriors is asked of every network; the others differ from it in how they train alone.
FAMILIES = ("mean field", "flipout", "ivon", "low rank", "swag", "sghmc", "nuts", "map", "ensemble", "laplace diag")


@pytest.mark.parametrize(
    ("method", "name"),
    [
        pytest.param(method, name, marks=[] if name == "middle" or method in FAMILIES else pytest.mark.slow)
        for method in METHODS
        for name in ("middle", "tied", "bag")
    ],
)
def test_the_row_is_the_same_bits_in_every_draw_of_every_method(name: str, method: str, tmp_path: Path) -> None:
    network, row, tokens, targets = made(name)
    if method == "dropout" and name != "middle":
        pytest.skip("no layer to drop anything before")
    if method.startswith("laplace") and name == "bag":
        pytest.skip("torch has no derivatives of the kind; see test_curvature")
    posterior = fitted(network, tokens, targets, METHODS[method])
    for part in components(posterior):
        for theta in (part.mean, part.sample(), part.sample()):
            table = part.network(theta).table.weight
            assert torch.equal(table[row], PAD)
            assert torch.equal(part.problem.layout.views(theta)["table.weight"][row], PAD)
        assert not torch.equal(table, network.table.weight)
        assert part.problem.layout.size == sum(p.numel() for p in network.parameters()) - 3 + len(
            part.problem.coordinates.latents
        )
    posterior.save(tmp_path / "q.safetensors")
    torch.manual_seed(1)
    other = NETWORKS[name][0]()
    nn.init.ones_(other.table.weight)  # its weights do not matter
    again = load(tmp_path / "q.safetensors", other)
    drawn = [p.draw(tokens, 3, generator=Generator().manual_seed(0)) for p in (posterior, again)]
    assert torch.equal(*drawn)


@every_network
def test_a_padded_sentence_is_predicted_as_the_sentence(name: str) -> None:
    if name in ("tied", "bag"):
        pytest.skip("what padding adds to these is theirs")
    network, row, tokens, targets = made(name)
    posterior = fitted(network, tokens, targets, MeanField(epochs=2))
    short = tokens[:5].masked_fill(tokens[:5] == row, (row + 1) % 6)
    padded = [functional.pad(short, (0, k), value=row) for k in (0, 40)]
    drawn = [posterior.draw(x, 16, generator=Generator().manual_seed(0)) for x in padded]
    torch.testing.assert_close(*drawn, rtol=0, atol=1e-6)


def test_padding_adds_nothing_bit_for_bit_where_its_row_is_zero() -> None:
    torch.manual_seed(0)
    network = nn.EmbeddingBag(6, 3, padding_idx=0, mode="sum")
    tokens = torch.randint(1, 6, (12, 4))
    posterior = fitted(network, tokens, tokens[:, 0] % 3, MeanField(epochs=1))
    long = functional.pad(tokens, (0, 40))
    drawn = [posterior.draw(x, 8, generator=Generator().manual_seed(0)) for x in (tokens, long)]
    assert torch.equal(*drawn)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_compiled_kernels_draw_no_padding_either(estimator: str) -> None:
    network, row, tokens, targets = made("middle")
    posterior = fitted(network, tokens, targets, MeanField(estimator, compiled=True, epochs=1))
    assert torch.equal(posterior.network(posterior.sample()).table.weight[row], PAD)


@every_network
def test_the_divergence_is_that_of_all_other_weights(name: str) -> None:
    network, row, *_ = made(name)
    bnn = bayesianize(network, prior=Normal(0.3, 0.5), init=0.1)
    means = [p.detach()[[i for i in range(6) if i != row]] if len(p) == 6 else p.detach() for p in network.parameters()]
    mean = torch.cat([m.reshape(-1) for m in means]).double()
    q = torch.distributions.Normal(mean, torch.full_like(mean, 0.1))
    exact = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.3, 0.5)).sum()
    torch.testing.assert_close(kl(bnn).double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("centered", [True, False])
def test_a_scale_is_that_of_the_weights_that_are_random(centered: bool) -> None:
    """log p of a hierarchy counts its weights: with the row of padding among them the scale would be too small."""
    network, _, tokens, _ = made("middle")
    prior = Hierarchical(per="tensor", centered=centered)
    problem = Problem(network, prior, Categorical(), 24)
    plain = nn.Embedding(5, 3)
    with torch.no_grad():
        plain.weight.copy_(network.table.weight[[0, 1, 2, 4, 5]])
    own = {n: p for n, p in problem.layout.parts(problem.theta()).items() if n.split(".")[0] in ("table", "prior")}
    assert own["table.weight"].shape == plain.weight.shape
    assert torch.equal(problem.layout.views(problem.coordinates.weights(problem.theta()))["table.weight"][3], PAD)
    assert problem.log_joint(problem.theta(), (tokens, tokens[:, 0] % 2)).isfinite()
    method = MeanField(epochs=1)
    posterior = fit(network, (tokens, tokens[:, 0] % 2), prior=prior, method=method, engine=Engine(progress=False))
    assert torch.equal(posterior.network(posterior.sample()).table.weight[3], PAD)


def test_a_learnt_prior_counts_the_random_weights() -> None:
    network, row, tokens, targets = made("middle")
    method = MeanField(epochs=3, learn_prior="tensor", optimizer=FEW)
    posterior = fitted(network, tokens, targets, method)
    others = [i for i in range(6) if i != row]
    table = posterior.problem.layout.parts(posterior.loc)["table.weight"]
    std = posterior.problem.coordinates.random_layout.parts(posterior.std)["table.weight"]
    assert table.shape == std.shape == (len(others), 3)
    fitted_std = posterior.problem.prior.std["table.weight"]
    assert fitted_std == pytest.approx(float(((table - 0.3).square() + std.square()).mean().sqrt()), rel=0.2)


def test_laplace_is_that_of_a_table_without_the_row() -> None:
    """The same function, written with a table of the other rows alone: the same curvature and evidence."""

    class Without(nn.Module):
        def __init__(self, whole: Sentence) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 3)
            self.hidden, self.head = deepcopy(whole.hidden), deepcopy(whole.head)
            with torch.no_grad():
                self.table.weight.copy_(whole.table.weight[1:])

        def forward(self, tokens: Tensor) -> Tensor:
            kept = (tokens != 0).unsqueeze(-1)
            rows = torch.where(kept, self.table((tokens - 1).clamp_min(0)), PAD)
            return self.head((self.hidden(rows).tanh() * kept).sum(1))

    network, _, tokens, targets = made("first")
    for structure in ("full", "diag", "low_rank"):
        method = Laplace(MAP(epochs=2, optimizer=FEW), structure=structure, rank=50)
        own, other = (fitted(n, tokens, targets, method) for n in (network, Without(network)))
        assert own.log_evidence == pytest.approx(other.log_evidence, rel=1e-4)
        torch.testing.assert_close(own.mean, other.mean, rtol=1e-4, atol=1e-5)
        values = [p.predict(tokens, 200, generator=Generator().manual_seed(0)).mean for p in (own, other)]
        torch.testing.assert_close(*values, rtol=0, atol=0.05)
    prior = Normal(0.3, 0.5)
    kron = fit(
        network,
        (tokens, targets),
        method=Laplace(MAP(epochs=2), structure="kron"),
        prior=prior,
        engine=Engine(progress=False),
    )
    assert kron.predict(tokens, 5).mean.isfinite().all()


@every_network
@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_bayesianize_draws_the_row_as_it_is_and_gives_it_no_gradient(name: str, estimator: str) -> None:
    network, row, tokens, _ = made(name)
    bnn = bayesianize(network, estimator=estimator, init=0.5)
    seen: list[Tensor] = []
    bnn.network.table.register_forward_hook(lambda module, args, output: seen.append(output))
    lookup = torch.full((2, 4), row)
    for _ in range(3):
        bnn(lookup)
    if name != "bag":
        assert all(torch.equal(output, PAD.expand_as(output)) for output in seen)
    assert torch.equal(bnn.std["table.weight"][row], torch.zeros(3))
    assert torch.equal(bnn.draw()["table.weight"][row], PAD)
    (bnn(tokens).square().sum() + kl(bnn)).backward()
    assert torch.equal(bnn.network.table.weight.grad.to_dense()[row], torch.zeros(3))
    assert bnn.network.table.weight.grad.to_dense().abs().sum() > 0
    assert bnn.rho.grad.isfinite().all()
    posterior = posterity.posterior(bnn)
    assert torch.equal(posterior.network(posterior.sample()).table.weight[row], PAD)


def test_conversions_can_be_copied_pickled_and_loaded() -> None:
    network, row, tokens, _ = made("middle")
    bnn = bayesianize(network, init=0.5)
    with torch.no_grad():
        bnn.network.table.weight[row] = 7.0  # a checkpoint of another pretraining
    for again in (deepcopy(bnn), pickle.loads(pickle.dumps(bnn))):
        assert torch.equal(again.draw()["table.weight"][row], torch.full((3,), 7.0))
    other = bayesianize(network, init=0.1)
    other.load_state_dict(bnn.state_dict())
    torch.manual_seed(0)
    expected = bnn(tokens)
    torch.manual_seed(0)
    assert torch.equal(other(tokens), expected)
    bnn.load_state_dict(network.state_dict())
    assert torch.equal(bnn.draw()["table.weight"][row], PAD)


def test_a_layer_of_its_own_knows_its_row() -> None:
    layer = pnn.Embedding(6, 3, padding_idx=-1, std=0.5)
    assert torch.equal(layer.std["weight"][5], torch.zeros(3))
    assert float(kl(layer)) == pytest.approx(
        float(kl(bayesianize(nn.Embedding.from_pretrained(layer.network.weight[:5].detach(), freeze=False), init=0.5))),
        rel=1e-6,
    )


def test_initial_stds_leave_it_out() -> None:
    network, row, tokens, targets = made("middle")
    problem = Problem(network, Normal(0, 1), Categorical(), 24)
    stds = curvature_std(problem, [(tokens, targets)])
    assert torch.equal(stds["table.weight"][row], torch.zeros(3))
    assert len(initial_std(problem.coordinates, stds)) == problem.layout.size
    assert bayesianize(network, init=stds)(tokens).isfinite().all()


@every_network
def test_the_prior_predicts_with_the_row_as_it_is(name: str) -> None:
    network, row, tokens, _ = made(name)
    problem = Problem(network, Normal(0, 1), Categorical(), 24)
    prior = PriorDraws.of(problem)
    table = prior.network(prior.sample()).table.weight
    assert torch.equal(table[row], PAD)
    assert not torch.equal(table, network.table.weight)
    assert prior.predict(tokens, 5).mean.isfinite().all()


def test_a_posterior_as_prior_of_the_next_fit() -> None:
    network, row, tokens, targets = made("middle")
    for method in (MeanField(epochs=1), FullRank(epochs=1), LowRank(rank=2, epochs=1)):
        first = fitted(network, tokens, targets, method)
        engine = Engine(progress=False)
        second = fit(network, (tokens, targets), prior=first.as_prior(), method=MeanField(epochs=1), engine=engine)
        assert torch.equal(second.network(second.sample()).table.weight[row], PAD)
        assert first.diagnose(data=(tokens, targets), draws=50).verdict


def test_files_of_before_are_drawn_from_as_they_were(tmp_path: Path) -> None:
    network, _, tokens, targets = made("middle")
    new = fitted(network, tokens, targets, MeanField(epochs=1))
    problem = replace(new.problem, padding=False)
    assert problem.layout.size == new.problem.layout.size + 3
    generator = Generator().manual_seed(0)
    old = type(new)(problem, torch.randn(problem.layout.size, generator=generator), torch.ones(problem.layout.size))
    old.save(tmp_path / "old.safetensors")
    again = load(tmp_path / "old.safetensors", made("middle")[0])
    drawn = [p.draw(tokens, 3, generator=Generator().manual_seed(0)) for p in (old, again)]
    assert torch.equal(*drawn)


def test_a_file_with_other_rows_is_refused(tmp_path: Path) -> None:
    network, _, tokens, targets = made("middle")
    fitted(network, tokens, targets, MAP(epochs=1)).save(tmp_path / "q.safetensors")
    with pytest.raises(Mismatch, match="padding_idx"):
        load(tmp_path / "q.safetensors", Sentence(2))


def test_frozen_tables_are_no_unknowns_and_point_tables_keep_their_row() -> None:
    network, row, tokens, targets = made("middle")
    assert padding_rows(network) == {"table.weight": (row,)}
    posterior = fitted(network, tokens, targets, MeanField(epochs=2, optimizer=FEW), where="head")
    table = posterior.network(posterior.sample()).table.weight
    assert torch.equal(table[row], PAD)
    assert not torch.equal(table, network.table.weight)  # the others are trained, as points
    network.table.requires_grad_(False)
    assert padding_rows(network) == {}


def test_fresh_weights_of_members_leave_the_row_as_it_is() -> None:
    network, row, *_ = made("middle")
    with padding_kept(network):
        network.table.reset_parameters()  # which sets it to 0
    assert torch.equal(network.table.weight[row], PAD)


def test_an_optimiser_of_ones_own_loop_can_be_told() -> None:
    network, row, tokens, targets = made("tied")
    optimizer = posterity.optim.IVON(parameter_groups(network), num_data=24, lr=0.5)
    for _ in range(3):
        with optimizer.sampled():
            assert torch.equal(network.table.weight[row], PAD)
            functional.cross_entropy(network(tokens), targets).backward()
        optimizer.step()
    before = made("tied")[0].table.weight
    assert torch.equal(network.table.weight[row], PAD)
    assert not torch.equal(network.table.weight, before)
    assert torch.equal(optimizer.std(network.table.weight)[row], torch.zeros(3))
    again = posterity.optim.IVON(parameter_groups(network), num_data=24)
    again.load_state_dict(optimizer.state_dict())
    assert torch.equal(again.std(network.table.weight), optimizer.std(network.table.weight))
    with pytest.raises(posterity.InvalidInput, match="there are 6 rows"):
        posterity.optim.IVON([{"params": [network.table.weight], "constant_rows": (6,)}], num_data=24)


@pytest.mark.parametrize("rows", [[0], [5], [2, 3], [0, 2, 5], [1, 4]])
def test_a_layout_shows_constants_among_the_others(rows: list[int]) -> None:
    table = torch.randn(6, 2, dtype=torch.float64)
    layout = Layout.of({"a": torch.ones(3), "table": table}, {"table": ConstantRows.of(table, rows)})
    theta = layout.flatten({"a": torch.ones(3), "table": table})
    assert len(theta) == layout.size == 3 + 12 - 2 * len(rows)
    assert torch.equal(layout.views(theta)["table"], table)
    many = layout.views(torch.stack([theta, 2 * theta]))["table"]
    assert torch.equal(many[1, rows], table[rows])
    assert torch.equal(layout.flatten({"a": torch.ones(2, 3), "table": many})[1, 3:], 2 * theta[3:])
    assert torch.equal(layout.changes(theta)["table"][rows], torch.zeros(len(rows), 2, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda t: layout.views(t)["table"], theta.requires_grad_())


class ByFunction(nn.Module):
    """Says in the pass alone which row is padding."""

    def __init__(self, make: Callable[[nn.Module], Tensor]) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(6, 3), nn.Linear(3, 2)
        self.low, self.high = nn.Parameter(torch.ones(2, 6)), nn.Parameter(torch.ones(3, 2))
        self.make = make

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(functional.embedding(tokens, self.make(self), -1).sum(1))


TABLES: dict[str, Callable[[], nn.Module]] = {
    "of a module that does not know": lambda: ByFunction(lambda net: net.table.weight),
    "a product": lambda: ByFunction(lambda net: (net.high @ net.low).T),
    "a transposed view": lambda: ByFunction(lambda net: net.low.T),
    "parametrised": lambda: nn.Sequential(
        parametrizations.spectral_norm(nn.Embedding(6, 3, padding_idx=2)), nn.Flatten(), nn.LazyLinear(2)
    ),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_a_row_of_padding_that_no_module_tells_of_is_refused(table: str, estimator: Any) -> None:
    network, tokens, targets = TABLES[table](), torch.arange(6).repeat(4, 1), torch.arange(4) % 2
    if table == "a transposed view":
        network.head = nn.Linear(2, 2)
    network(tokens)
    with pytest.raises(posterity.InvalidInput, match="with padding_idx=.*multiply by a mask"):
        posterity.fit(network, (tokens, targets), method=MeanField(estimator, epochs=1))
    with pytest.raises(posterity.InvalidInput, match="with padding_idx=.*multiply by a mask"):
        posterity.bayesianize(network, estimator=estimator)(tokens)


@pytest.mark.parametrize("estimator", ["weight", "local_reparam", "flipout"])
def test_a_lookup_that_is_told_of_by_its_module_or_frozen_is_taken(estimator: Any) -> None:
    network = ByFunction(lambda net: net.table.weight)
    tokens = torch.arange(6).repeat(4, 1)
    network.table.padding_idx = 5
    assert posterity.bayesianize(network, "table.weight", estimator=estimator)(tokens).shape == (4, 2)
    network.table = nn.Embedding(6, 3).requires_grad_(False)
    assert posterity.bayesianize(network, "head.*", estimator=estimator)(tokens).shape == (4, 2)
