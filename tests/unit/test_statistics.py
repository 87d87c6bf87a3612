"""Running statistics belong to the function that is drawn."""

import pytest
import torch
from torch import nn

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


def test_the_estimate_is_that_of_the_layer_inputs():
    """By hand: the mean over batches of the first layer's outputs, and of their unbiased variances."""
    posterior, data = fitted(METHODS["mean_field"])
    theta = posterior.functions.thetas[2]
    weight, bias = (posterior.problem.layout.views(theta)[f"0.{n}"] for n in ("weight", "bias"))
    batches = [x @ weight.T + bias for x, _ in data.batches(0, torch.Generator().manual_seed(0))]
    assert [len(b) for b in batches] == [32, 32, 33]
    statistics = {n: v[2] for n, v in posterior.functions.statistics.items()}
    torch.testing.assert_close(statistics["1.running_mean"], torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(statistics["1.running_var"], torch.stack([b.var(0) for b in batches]).mean(0))


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
