"""Running statistics belong to the function that is drawn."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import posterity
from posterity import (
    IVON,
    MAP,
    SGHMC,
    SGLD,
    SWAG,
    Cyclical,
    Engine,
    Ensemble,
    FullRank,
    InvalidInput,
    Laplace,
    LowRank,
    MCDropout,
    MeanField,
    Refine,
    TensorData,
)
from posterity.errors import PosterityWarning
from posterity.posteriors.statistics import estimated

QUIET = Engine(progress=False, device="cpu")
METHODS = {
    "mean_field": MeanField(epochs=3, initial_std=0.1),
    "flipout": MeanField("flipout", epochs=3),
    "ivon": IVON(epochs=3),
    "low_rank": LowRank(epochs=3),
    "full_rank": FullRank(epochs=3),
    "swag": SWAG(epochs=4),
    "sgld": SGLD(epochs=4, draws=5),
    "sghmc": SGHMC(epochs=4, draws=5),
    "cyclical": Cyclical(SGHMC(epochs=10, draws=4), cycles=2),
    "laplace": Laplace(MAP(epochs=2), prediction="sampled"),
    "refine": Refine(MeanField(epochs=2), after=MAP(epochs=1)),
    "ensemble": Ensemble(SGHMC(epochs=4, draws=3), 2),
}


def examples(n=97):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator) * 2 + 1
    return x, (x[:, 0] > 1).long()


def network(norm=lambda: nn.BatchNorm1d(6)):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), norm(), nn.ReLU(), nn.Linear(6, 2))


def fitted(method, norm=lambda: nn.BatchNorm1d(6), split=0.0):
    data = TensorData(*examples(), batch_size=32).split(split)
    return posterity.fit(network(norm), data, method=method, engine=QUIET), data


def parts(posterior):
    return getattr(posterior, "components", (posterior,))


@pytest.mark.parametrize("name", METHODS)
def test_each_function_predicts_with_statistics_of_its_own(name):
    posterior, data = fitted(METHODS[name])
    x = examples()[0][:7]
    for part in parts(posterior):
        made = part if part.functions is None else part.functions
        assert len(made.statistics["1.running_mean"]) == len(made.thetas) > 1
        outputs = made.evaluated(x)
        for k, theta in enumerate(made.thetas):
            torch.testing.assert_close(outputs[k], estimated(part.problem, theta, data).draw(x, 1)[0])
        drawn = posterior.draw(x, 4, generator=torch.Generator().manual_seed(1))
        again = torch.cat(
            [posterior.draw(half, 4, generator=torch.Generator().manual_seed(1)) for half in x.split(4)], 1
        )
        torch.testing.assert_close(drawn, again)


@pytest.mark.parametrize("name", ["mean_field", "sghmc", "ensemble"])
def test_files_hold_functions_and_statistics(name, tmp_path):
    posterior, _ = fitted(METHODS[name])
    posterior.save(tmp_path / "p.safetensors")
    loaded = posterity.load(tmp_path / "p.safetensors", network())
    x = examples()[0][:5]
    for n in (3, 64):
        seeded = [p.predict(x, n, generator=torch.Generator().manual_seed(2)).mean for p in (posterior, loaded)]
        assert torch.equal(*seeded)
    kept = posterity.draw_functions(loaded, 4, torch.Generator().manual_seed(0))
    assert torch.equal(kept.predict(x, 4).mean, kept.predict(x, 4).mean)
    assert torch.isclose(posterity.average(loaded, x, 500).mean, loaded.predict(x, 500).mean, atol=2e-3).all()


def by_hand(parts):
    """The mean over batches of their means and unbiased variances, each weighed by its size."""
    weights = torch.tensor([float(len(part)) for part in parts])
    weights = (weights / weights.sum())[:, None]
    return (weights * torch.stack([p.mean(0) for p in parts])).sum(0), (
        weights * torch.stack([p.var(0) for p in parts])
    ).sum(0)


def test_the_estimate_is_that_of_the_layer_inputs():
    posterior, data = fitted(METHODS["mean_field"])
    theta = posterior.functions.thetas[2]
    weight, bias = (posterior.problem.layout.views(theta)[f"0.{n}"] for n in ("weight", "bias"))
    batches = [x @ weight.T + bias for x, _ in data.batches(0, torch.Generator().manual_seed(0))]
    assert [len(b) for b in batches] == [32, 32, 33]
    statistics = {n: v[2] for n, v in posterior.functions.statistics.items()}
    mean, var = by_hand(batches)
    torch.testing.assert_close(statistics["1.running_mean"], mean)
    torch.testing.assert_close(statistics["1.running_var"], var)


def theta_of(posterior, data, estimate):
    """The first of 4 functions, and the statistics that it was given."""
    functions = posterity.with_statistics(posterior, data, 4).functions
    return posterior.network(functions.thetas[0]), {n: v[0] for n, v in functions.statistics.items()}[estimate]


class Twice(nn.Module):
    """One normalisation, used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm, self.head = (
            nn.Linear(3, 6),
            nn.Linear(6, 6),
            nn.BatchNorm1d(6),
            nn.Linear(6, 2),
        )

    def forward(self, x):
        return self.head(self.norm(self.second(torch.relu(self.norm(self.first(x))))))


def test_a_layer_that_is_used_twice_has_the_statistics_of_both_uses():
    torch.manual_seed(0)
    data = TensorData(*examples(96), batch_size=96)
    made = posterity.posterior(posterity.bayesianize(Twice(), init=0.1))
    with torch.no_grad():
        network, mean = theta_of(made, data, "norm.running_mean")
        first = network.first(data.inputs)
        second = network.second(torch.relu((first - first.mean(0)) / (first.var(0, correction=0) + 1e-5).sqrt()))
        torch.testing.assert_close(mean, (first.mean(0) + second.mean(0)) / 2, atol=1e-5, rtol=1e-4)


def test_data_in_their_order_are_seen_from_all_over_the_epoch():
    """A loader without shuffling delivers one half of the data first: statistics are those of both halves."""
    torch.manual_seed(0)
    x, y = torch.randn(12_000, 3), torch.arange(12_000) // 6_000
    x[y == 1] += 5
    loader = DataLoader(TensorDataset(x, y), batch_size=50)
    made = posterity.posterior(
        posterity.bayesianize(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), "1.*", init=0.1)
    )
    _, mean = theta_of(made, loader, "0.running_mean")
    torch.testing.assert_close(mean, x.mean(0), atol=4 * 2.7 / 4096**0.5, rtol=0)


def test_images_that_come_one_by_one_have_statistics_of_all():
    torch.manual_seed(0)
    x = torch.randn(20, 1, 4, 4) + 3
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 2))
    loader = DataLoader(TensorDataset(x, torch.arange(20) % 2), batch_size=1)
    posterior = posterity.fit(network, loader, method=MeanField(epochs=1), engine=QUIET)
    drawn, made = posterior.network(posterior.functions.thetas[0]), posterior.functions.statistics
    with torch.no_grad():
        torch.testing.assert_close(made["1.running_mean"][0], drawn[0](x).mean((0, 2, 3)))


class ByHand(nn.Module):
    """Batch normalisation as people write it: its statistics are buffers of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(6))
        self.register_buffer("square", torch.ones(6))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if self.training:
            mean, var = x.mean(0), x.var(0)
            self.center = 0.9 * self.center + 0.1 * mean.detach()
            self.square.lerp_(var.detach(), 0.1)
            self.calls += 1
        else:
            mean, var = self.center, self.square
        return (x - mean) / (var + 1e-5).sqrt()


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.lift, self.head = nn.Linear(3, 6), nn.Linear(6, 2)
        self.register_buffer("center", torch.zeros(6))
        self.register_buffer("square", torch.ones(6))

    def forward(self, x):
        normal = nn.functional.batch_norm(self.lift(x), self.center, self.square, training=self.training)
        return self.head(torch.relu(normal))


@pytest.mark.parametrize("make", [lambda: network(ByHand), Functional], ids=["by hand", "functional"])
@pytest.mark.parametrize("name", ["mean_field", "sghmc", "ensemble"])
def test_normalisation_of_another_class_has_statistics_of_each_draw(make, name, tmp_path):
    """Their averages are exponential ones, so that they are the layer's inputs' up to the noise of the last ten batches."""
    torch.manual_seed(0)
    (x, y), made = examples(192), make()
    posterior = posterity.fit(made, TensorData(x, y, 32), method=METHODS[name], engine=QUIET)
    first = next(n for n, _ in made.named_parameters()).removesuffix(".weight")
    for part in parts(posterior):
        functions = part if part.functions is None else part.functions
        center = next(v for n, v in functions.statistics.items() if n.endswith("center"))
        for theta, mean in zip(functions.thetas[:3], center, strict=False):
            with torch.no_grad():
                inputs = part.network(theta).get_submodule(first)(x)
            assert ((mean - inputs.mean(0)).abs() < 4 * inputs.std(0) / (32 * 19) ** 0.5).all()
    posterior.save(tmp_path / "p.safetensors")
    again = posterity.load(tmp_path / "p.safetensors", make())
    seeded = [p.predict(x, 6, generator=torch.Generator().manual_seed(2)).mean for p in (posterior, again)]
    assert torch.equal(*seeded)
    assert parts(again)[0].problem.movers == parts(posterior)[0].problem.movers != frozenset()


@pytest.mark.parametrize("make", [lambda: network(ByHand), Functional], ids=["replaced", "in place"])
@pytest.mark.parametrize("name", ["map", "mc_dropout", "laplace"])
def test_statistics_of_another_class_are_those_of_the_training(make, name):
    """150 updates with a tenth each, whether the module writes into its buffers or makes others in their place."""
    torch.manual_seed(0)
    slow = {"epochs": 50, "optimizer": posterity.Optimizer(lr=1e-3)}  # so that the layer's inputs stay far from 0
    method = {"map": MAP(**slow), "mc_dropout": MCDropout(rate=0.1, **slow), "laplace": Laplace(MAP(**slow))}
    posterior = posterity.fit(make(), TensorData(*examples(), 32), method=method[name], engine=QUIET)
    weights = getattr(posterior, "weights", posterior)
    drawn, x = weights.network(), examples()[0]
    with torch.no_grad():
        inputs = (drawn[0] if isinstance(drawn, nn.Sequential) else drawn.lift)(x)
        center = next(b for n, b in drawn.named_buffers() if n.endswith("center"))
        assert ((center - inputs.mean(0)).abs() < 4 * inputs.std(0) / (32 * 19) ** 0.5 + 0.1).all()
        assert center.abs().max() > 0.5


@pytest.mark.parametrize("parameter", [False, True])
@pytest.mark.parametrize("by_grad", [False, True])
def test_statistics_that_are_no_buffers_are_refused_by_name(parameter, by_grad):
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.center = nn.Parameter(torch.zeros(6), requires_grad=False) if parameter else torch.zeros(6)
            self.seen = None  # what is only looked at may be anywhere

        def forward(self, x):
            self.seen = x.detach()
            if torch.is_grad_enabled() if by_grad else self.training:
                mean = x.mean(0)
                moved = 0.9 * self.center.detach() + 0.1 * mean.detach()
                self.center = nn.Parameter(moved, requires_grad=False) if parameter else moved
                return x - mean
            return x - self.center

    with pytest.raises(InvalidInput, match="'1' \\(Kept\\) keeps running statistics in .*'center'.*register_buffer"):
        posterity.fit(network(Kept), examples(), method=METHODS["mean_field"], engine=QUIET)


def test_frozen_normalisation_of_another_class_keeps_still():
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(3, 6), ByHand()).requires_grad_(False)
    made = nn.Sequential(part, nn.Linear(6, 2))
    made(examples()[0] * 3)
    posterior = posterity.fit(made, examples(), method=METHODS["mean_field"], engine=QUIET)
    assert posterior.functions is None
    assert torch.equal(posterior.problem.network[0][1].center, made[0][1].center)


def test_a_spectral_norm_is_that_of_the_drawn_weights():
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 8))
    made = nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 2))
    posterior = posterity.fit(made, examples(), method=MeanField(epochs=2, initial_std=0.3), engine=QUIET)
    functions, at = posterior.functions, "0.parametrizations.weight."
    for k, theta in enumerate(functions.thetas[:4]):
        weight = posterior.problem.layout.views(theta)[at + "original"]
        u, v = (functions.statistics[f"{at}0._{n}"][k] for n in "uv")
        torch.testing.assert_close(u @ weight @ v, torch.linalg.matrix_norm(weight, 2))


def test_buffers_that_are_no_statistics_are_left_alone():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)
            self.register_buffer("calls", torch.zeros((), dtype=torch.long))
            self.register_buffer("scale", torch.ones(3))

        def forward(self, x):
            self.calls += 1
            return self.head(x * self.scale)

    posterior = posterity.fit(Counting(), examples(), method=METHODS["mean_field"], engine=QUIET)
    assert posterior.functions is None
    assert not posterior.problem.movers


def test_other_layers_with_running_statistics_have_them_too():
    class Signals(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.norm, self.head = (
                nn.Conv1d(1, 4, 2),
                nn.InstanceNorm1d(4, track_running_stats=True),
                nn.Linear(8, 2),
            )

        def forward(self, x):
            return self.head(self.norm(self.lift(x[:, None])).flatten(1))

    torch.manual_seed(0)
    x, y = examples()
    posterior = posterity.fit(Signals(), TensorData(x, y, 32), method=METHODS["mean_field"], engine=QUIET)
    assert set(posterior.functions.statistics) >= {"norm.running_mean", "norm.running_var"}
    assert posterior.functions.statistics["norm.running_mean"].std(0).max() > 0


def test_posteriors_without_such_statistics_are_as_they_were():
    for method, norm in (
        (MAP(epochs=1), None),
        (METHODS["mean_field"], nn.Identity),
        (METHODS["mean_field"], lambda: nn.LayerNorm(6)),
    ):
        posterior, data = fitted(method) if norm is None else fitted(method, norm)
        assert posterior.functions is None
        assert posterity.with_statistics(posterior, data) is posterior


def test_validation_sees_functions_with_their_own_statistics():
    """The nll that chooses the best epoch is that of the posterior which is returned, but for other draws."""
    rows = []
    engine = Engine(progress=False, device="cpu", on_epoch=lambda name, row: rows.append(row))
    data = TensorData(*examples(400), batch_size=32).split(0.5)
    posterior = posterity.fit(network(), data, method=SGHMC(epochs=10, draws=20, lr=0.05), engine=engine)
    found = posterior.predict(data.held_out[0], 20).scores(data.held_out[1])["nll"]
    assert rows[-1]["validation"]["nll"] == pytest.approx(found, rel=0.1)


def test_a_posterior_made_otherwise_says_that_its_statistics_are_nobodys():
    bnn = posterity.bayesianize(network(), init=0.1)
    posterior = posterity.posterior(bnn)
    with pytest.warns(PosterityWarning, match="with_statistics"):
        posterior.predict(examples()[0], 4)
    ready = posterity.with_statistics(posterior, examples(), 6)
    assert len(ready.functions.thetas) == 6
    assert ready.predict(examples()[0], 4).mean.shape == (97, 2)
    with pytest.raises(InvalidInput, match="at least 1"):
        posterity.with_statistics(posterior, examples(), 0)


def test_pruned_functions_have_to_be_made_anew():
    posterior, data = fitted(METHODS["mean_field"])
    pruned = posterity.prune(posterior, 0.5)
    assert pruned.functions is None
    ready = posterity.with_statistics(pruned, data)
    gone = (pruned.mean == 0) & (torch.cat([torch.ones(len(pruned.mean) - len(pruned.std)), pruned.std]) == 0)
    assert gone.any()
    assert (ready.functions.thetas[:, gone] == 0).all()


@pytest.mark.parametrize("n", [33, 65, 129])
def test_a_last_batch_of_one_trains(n):
    x, y = examples(n)
    posterior = posterity.fit(network(), TensorData(x, y, 32), method=MAP(epochs=1), engine=QUIET)
    assert posterior.mean.isfinite().all()
