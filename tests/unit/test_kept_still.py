"""What is frozen stays: weights in every member of an ensemble, statistics of normalisation that keeps still."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import posterity
from posterity import (
    IVON,
    MAP,
    MLE,
    SGHMC,
    SWAG,
    Engine,
    Ensemble,
    Laplace,
    LowRank,
    MCDropout,
    MeanField,
    Problem,
    Refine,
)
from posterity.errors import PosterityWarning
from posterity.methods.ensemble import reinitialise

QUIET = Engine(progress=False, device="cpu")
METHODS = {
    "map": MAP(epochs=2),
    "mean_field": MeanField(epochs=2),
    "low_rank": LowRank(epochs=2),
    "ivon": IVON(epochs=2),
    "swag": SWAG(epochs=4),
    "sghmc": SGHMC(epochs=4, draws=2),
    "mc_dropout": MCDropout(rate=0.1, epochs=2),
    "laplace": Laplace(MAP(epochs=2)),
    "refine": Refine(MeanField(epochs=1), after=MAP(epochs=1)),
    "ensemble": Ensemble(MeanField(epochs=1), 2),
}


def examples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 2, generator=generator)
    return x, (x[:, 0] > 0).long()


def pretrained(training):
    """A backbone whose statistics are those of other data, and a head."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
    )
    for _ in range(20):
        network(torch.randn(30, 2))
    return network.train(training)


def components(posterior):
    return getattr(posterior, "components", (posterior,))


def same_buffers(posterior, network, prefix):
    expected = {n: b for n, b in network.named_buffers() if n.startswith(prefix)}
    return all(
        torch.equal(b, expected[n])
        for part in components(posterior)
        for n, b in part.problem.network.named_buffers()
        if n in expected
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_frozen_normalisation_keeps_its_statistics(name, training):
    network, (x, y) = pretrained(training), examples()
    network[:2].requires_grad_(False)
    posterior = posterity.fit(network, (x + 3, y), method=METHODS[name], engine=QUIET)
    assert same_buffers(posterior, network, "1.")
    if name not in ("laplace",):
        assert not same_buffers(posterior, network, "4.")  # the other one is trained on the new data
    for part in components(posterior):
        assert torch.equal(part.network()[0].weight, network[0].weight)


@pytest.mark.parametrize("name", METHODS)
def test_normalisation_that_stands_in_eval_mode_keeps_its_statistics(name):
    network, (x, y) = pretrained(True), examples()
    network[1].eval()
    posterior = posterity.fit(network, (x + 3, y), method=METHODS[name], engine=QUIET)
    assert same_buffers(posterior, network, "1.")


class Mine(nn.Module):
    """Weights that no module draws anew."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(16, 2))
        self.second = nn.Parameter(torch.randn(2, 16) * 0.3)

    def forward(self, x):
        return torch.relu(x @ self.first.T) @ self.second.T


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        tokens = x[:, None, :].repeat(1, 3, 2)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


NETWORKS = {
    "raw parameters": Mine,
    "attention": Attentive,
    "parametrised": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 8)), nn.ReLU(), nn.Linear(8, 2)
    ),
    "recurrent": lambda: Recurrent(),
    "plain": lambda: nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.Linear(8, 2)),
}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.cell(x[:, None])[0][:, -1])


@pytest.mark.parametrize("name", NETWORKS)
def test_members_start_from_other_weights_each(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    problem = Problem(network, posterity.Normal(0, 1), posterity.Categorical(), 10)
    starts = []
    for seed in (1, 2):
        member = problem.snapshot()
        assert reinitialise(member, seed) == ()
        starts.append({n: p.detach() for n, p in member.network.named_parameters()})
    for key, start in starts[0].items():
        alike = torch.equal(start, starts[1][key])
        constant = start.numel() > 1 and bool((start == start.flatten()[0]).all())  # what modules start at 0 or 1
        assert not alike or constant, key


def test_a_redrawn_parameter_has_the_moments_of_the_old_one():
    module = nn.Module()
    module.big = nn.Parameter(5 + 0.1 * torch.randn(10_000))
    reinitialise(Problem(module, posterity.Normal(0, 1), posterity.Categorical(), 1), 0)
    assert abs(module.big.mean() - 5) < 4 * 0.1 * (2 / 10_000) ** 0.5
    assert abs(module.big.std() - 0.1) < 4 * 0.1 / 10_000**0.5


def test_what_stays_alike_is_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.head = nn.Parameter(torch.full((2,), 0.1)), nn.Linear(2, 2)

        def forward(self, x):
            return self.head(x * self.scale)

    with pytest.warns(PosterityWarning, match="All members start with the same scale"):
        posterior = posterity.fit(Scaled(), examples(), method=Ensemble(MLE(epochs=1), 3), engine=QUIET)
    heads = [part.network().head.weight for part in posterior.components]
    assert not torch.equal(heads[0], heads[1])


class Adapted(nn.Module):
    """A frozen layer and a trainable product beside it, which starts at zero: LoRA, with factors of either kind."""

    def __init__(self, size, outputs, layers):
        super().__init__()
        self.base = nn.Linear(size, outputs).requires_grad_(False)
        self.layers = layers
        if layers:
            self.down, self.up = nn.Linear(size, 2, bias=False), nn.Linear(2, outputs, bias=False)
            nn.init.zeros_(self.up.weight)
        else:
            self.down, self.up = nn.Parameter(torch.randn(2, size)), nn.Parameter(torch.zeros(outputs, 2))

    def forward(self, x):
        return self.base(x) + (self.up(self.down(x)) if self.layers else x @ self.down.T @ self.up.T)


@pytest.mark.parametrize("layers", [True, False])
def test_members_of_an_adapted_network_start_at_what_it_computes(layers):
    torch.manual_seed(0)
    network, (x, y) = nn.Sequential(Adapted(2, 8, layers), nn.ReLU(), Adapted(8, 2, layers)), examples()
    problem = Problem(network, posterity.Normal(0, 1), posterity.Categorical(), 10)
    starts = [problem.snapshot() for _ in range(2)]
    for seed, member in enumerate(starts):
        assert len(reinitialise(member, seed)) == 2
        assert torch.equal(member.network(x), network(x))
    downs = [next(p for n, p in member.network.named_parameters() if "down" in n) for member in starts]
    assert not torch.equal(*downs)
    with pytest.warns(PosterityWarning, match="up"):
        posterity.fit(network, (x, y), method=Ensemble(MLE(epochs=1), 2), engine=QUIET)


def test_a_module_that_starts_its_layers_itself_has_the_last_word():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(2, 200), nn.LayerNorm((2, 100))
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.normal_(self.layer.weight, std=7.0)
            nn.init.constant_(self.layer.bias, -2.0)

    problem = Problem(Wide(), posterity.Normal(0, 1), posterity.Categorical(), 10)
    assert reinitialise(problem, 0) == ()
    assert abs(problem.network.layer.weight.std() - 7) < 4 * 7 / 800**0.5
    assert (problem.network.layer.bias == -2).all()


def test_biases_and_branches_that_start_at_a_constant_do_so_in_every_member():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.zeros_(network[1].weight)
    nn.init.constant_(network[3].bias, -4.6)
    problem = Problem(network, posterity.Normal(0, 1), posterity.Categorical(), 10)
    before = network[0].weight.clone()
    assert reinitialise(problem, 0) == ()
    assert not torch.equal(network[0].weight, before)
    assert (network[1].weight == 0).all()
    assert (network[3].bias == -4.6).all()


@pytest.mark.parametrize("method", [MLE(epochs=2), Laplace(MAP(epochs=2))], ids=["points", "laplace"])
def test_members_that_nothing_tells_apart_are_named(method):
    """One batch an epoch, one start: every step is the same in all members, up to the rounding of sums in another order."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.warns(PosterityWarning, match="All 3 members are the same"):
        posterity.fit(network, examples(), method=Ensemble(method, 3, reinitialise=False), engine=QUIET)
    several = posterity.TensorData(*examples(), batch_size=20)
    posterity.fit(network, several, method=Ensemble(method, 3, reinitialise=False), engine=QUIET)


@pytest.mark.parametrize("freeze", ["weight", "bias", "weight bias"])
def test_single_frozen_parameters_are_the_same_bits_in_every_member(freeze):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
    for name in freeze.split():
        getattr(network[0], name).requires_grad_(False)
    posterior = posterity.fit(network, examples(), method=Ensemble(MLE(epochs=1), 2), engine=QUIET)
    for name in ("weight", "bias"):
        kept = [
            torch.equal(getattr(part.network()[0], name), getattr(network[0], name)) for part in posterior.components
        ]
        assert kept == [name in freeze.split()] * 2


class OwnTrain(nn.Sequential):
    """A network whose own `train` leaves its normalisation in eval mode."""

    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


@pytest.mark.parametrize("name", METHODS)
def test_normalisation_that_the_network_itself_keeps_still_does_so(name):
    network = OwnTrain(*pretrained(True)[:2], nn.Linear(8, 2)).eval()
    posterior = posterity.fit(network, examples(), method=METHODS[name], engine=QUIET)
    assert same_buffers(posterior, network, "1.")
    assert not network[1].training
    assert not network[2].training


@pytest.mark.parametrize("name", METHODS)
def test_statistics_without_momentum_are_kept(name):
    network = pretrained(True)
    network[1].momentum = 0.0
    posterior = posterity.fit(network, examples(), method=METHODS[name], engine=QUIET)
    assert same_buffers(posterior, network, "1.")


@pytest.mark.parametrize("hook", ["register_hook", "register_post_accumulate_grad_hook"])
@pytest.mark.parametrize("use", [lambda n: posterity.fit(n, examples(), engine=QUIET), posterity.bayesianize])
def test_a_part_that_a_hook_freezes_is_refused(hook, use):
    network = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    getattr(network[0].weight, hook)(lambda gradient: None)
    with pytest.raises(posterity.InvalidInput, match=r"'weight' of '0' \(Linear\) has a hook.*make that part a buffer"):
        use(network)


class Cut(nn.Module):
    """A network that lets no gradient reach its backbone."""

    def __init__(self, no_grad):
        super().__init__()
        self.backbone, self.unused, self.head = nn.Linear(2, 4), nn.Linear(2, 4), nn.Linear(4, 2)
        self.no_grad = no_grad

    def forward(self, x):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.no_grad):
            features = self.backbone(x)
        return self.head(features.detach().relu())


@pytest.mark.parametrize("no_grad", [True, False])
def test_a_backbone_without_gradient_is_frozen_or_refused(no_grad):
    network = Cut(no_grad)
    with pytest.raises(posterity.InvalidInput, match=r"depend on 'backbone.weight'.*requires_grad_\(False\)"):
        posterity.fit(network, examples(), method=MeanField(epochs=1), engine=QUIET)
    network.backbone.requires_grad_(False)
    posterior = posterity.fit(network, examples(), method=Ensemble(MLE(epochs=1), 2), engine=QUIET)
    assert all(torch.equal(part.network().backbone.weight, network.backbone.weight) for part in posterior.components)


class Remade(nn.Module):
    """Makes its parameter anew where others write into it."""

    def __init__(self):
        super().__init__()
        self.reset_parameters()

    def reset_parameters(self):
        self.weight = nn.Parameter(torch.randn(4, 2))

    def forward(self, x):
        return x @ self.weight.T


def test_a_frozen_parameter_that_its_module_makes_anew_stays():
    network = nn.Sequential(Remade().requires_grad_(False), nn.Linear(4, 2))
    posterior = posterity.fit(network, examples(), method=Ensemble(MLE(epochs=1), 2), engine=QUIET)
    for part in posterior.components:
        assert torch.equal(part.network()[0].weight, network[0].weight)
        assert not part.network()[0].weight.requires_grad


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    "parametrise",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        lambda layer: parametrizations.orthogonal(layer, use_trivialization=False, orthogonal_map="householder"),
    ],
    ids=["weight_norm", "spectral_norm", "orthogonal", "householder"],
)
def test_a_parametrised_weight_is_drawn_anew_as_what_it_is(parametrise, frozen):
    torch.manual_seed(0)
    layer = parametrise(nn.Linear(4, 8))
    network = nn.Sequential(nn.Linear(2, 4), layer.requires_grad_(not frozen), nn.Linear(8, 2))
    members = [Problem(deepcopy(network), posterity.Normal(0, 1), posterity.Categorical(), 10) for _ in range(2)]
    for seed, member in enumerate(members):
        reinitialise(member, seed)
    before, one, other = (n.eval()[1].weight.detach().clone() for n in (network, *(m.network for m in members)))
    if frozen:
        assert torch.equal(one, before)
        assert torch.equal(other, before)
    else:
        assert not torch.allclose(one, other)
        assert 0.5 < (one.norm() / before.norm()).item() < 2.5  # also of what has constraints
