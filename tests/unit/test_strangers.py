"""A stranger's part passes every door: fit, compositions, save and load, diagnose, conformance, and the command line."""

import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import posterity
from posterity import (
    MAP,
    MLE,
    Categorical,
    Engine,
    Ensemble,
    Gaussian,
    InvalidInput,
    Laplace,
    MeanField,
    Normal,
    Refine,
    TensorData,
    fit,
    load,
)
from posterity.cli.app import run
from posterity.methods import KINDS, Method, as_method
from posterity.methods.records import recorded, restored
from posterity.posteriors.base import FAMILIES
from posterity.report.style import Figure
from tests.drawings import empty
from tests.unit import strangers

QUIET = Engine(progress=False, device="cpu")
X = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
Y = X.sum(1)
HERE = "tests.unit.strangers"
METHODS = {
    "plain": strangers.Plain(),
    "options": strangers.Options(),
    "stepwise": strangers.Stepwise(),
    "ensemble": Ensemble(strangers.Plain(), 2),
    "ensemble of starts": Ensemble(strangers.Stepwise(), 2),
    "refine after": Refine(MeanField(epochs=1), after=strangers.Plain()),
    "refine to": Refine(strangers.Options(), after=MAP(epochs=1)),
    "laplace": Laplace(strangers.Plain()),
    "laplace of a gaussian": Laplace(strangers.Options(), "full"),
    "laplace of mle": Laplace(MLE(epochs=1)),
    "nested": Ensemble(Laplace(Refine(strangers.Stepwise(), after=strangers.Plain()), "diag", prediction="sampled"), 2),
    "of ensembles": Ensemble(Ensemble(strangers.Plain(), 2), 2),
    "family": strangers.Twice(),
    "ensemble of a family": Ensemble(strangers.Twice(), 2),
    "refine after a family": Refine(MeanField(epochs=1), after=strangers.Twice()),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_ones_own_is_fitted_saved_loaded_and_diagnosed(name: str, tmp_path: Path) -> None:
    network, method = nn.Linear(2, 1), METHODS[name]
    posterior = fit(network, TensorData(X, Y, 10).split(0.2), likelihood=Gaussian(0.3), method=method, engine=QUIET)
    assert posterior.provenance["method"] == recorded(method)
    posterior.save(tmp_path / "p.safetensors")
    again = load(tmp_path / "p.safetensors", network)
    drawn = [p.draw(X, 4, generator=torch.Generator().manual_seed(1)) for p in (posterior, again)]
    assert torch.equal(*drawn)
    assert again.provenance == posterior.provenance
    assert str(again.diagnose(data=(X, Y), draws=30)) == str(posterior.diagnose(data=(X, Y), draws=30))
    assert restored(again.provenance["method"]).title.lower() == as_method(method).title.lower()


def test_what_is_said_of_a_stranger_s_method_is_what_it_says_itself() -> None:
    assert recorded(strangers.Plain()) == {"kind": f"{HERE}.Plain"}
    assert recorded(strangers.Options()) == {"kind": f"{HERE}.Options", "epochs": 2, "temperature": 0.5}
    assert recorded(strangers.Stepwise())["kind"] == "stepwise_of_a_stranger"
    assert as_method(strangers.Options()).temperature == 0.5
    assert as_method(strangers.Options()).twin() == MLE(epochs=2)
    assert as_method(strangers.Plain()).title == "Plain"
    assert posterity.Method is Method
    with pytest.raises(InvalidInput, match="kind 'map' already"):
        type("Other", (Method,), {"kind": "map"})


def test_an_inference_that_owns_its_state_is_resumed_and_its_best_state_kept(tmp_path: Path) -> None:
    def fitted(engine: Engine):
        source = TensorData(X, Y, 10).split(0.2)
        return fit(
            nn.Linear(2, 1), source, likelihood=Gaussian(0.3), method=strangers.Stepwise(epochs=4), engine=engine
        )

    torch.manual_seed(0)
    whole = fitted(QUIET)
    rows = []

    def stop(name: str, row: dict) -> None:
        rows.append(row)
        if len(rows) == 2:
            raise KeyboardInterrupt

    torch.manual_seed(0)
    with pytest.raises(KeyboardInterrupt):
        fitted(Engine(progress=False, device="cpu", directory=tmp_path, on_epoch=stop))
    torch.manual_seed(0)
    again = fitted(Engine(progress=False, device="cpu", directory=tmp_path, resume=True))
    assert torch.equal(whole.theta, again.theta)
    assert {"nll", "validation"} <= rows[0].keys()


@pytest.mark.parametrize("likelihood", [strangers.Heavy(), strangers.counts], ids=["class", "function"])
def test_a_likelihood_of_ones_own_is_validated_with_predicted_with_and_scored(likelihood, tmp_path: Path) -> None:
    network, y = nn.Linear(2, 1), Y.abs().round()
    data = TensorData(X, y, 10).split(0.2)
    method = Ensemble(MeanField(epochs=1), 2)
    posterior = fit(network, data, likelihood=likelihood, prior=strangers.Wide(), method=method, engine=QUIET)
    posterior.save(tmp_path / "p.safetensors")
    again = load(tmp_path / "p.safetensors", network, likelihood=likelihood, prior=strangers.Wide())
    for one in (posterior, again, copy.deepcopy(posterior)):
        predicted = one.predict(X, 8, generator=torch.Generator().manual_seed(0))
        assert predicted.mean.shape == predicted.variance.shape == predicted.log_prob(y).shape == y.shape
        low, high = predicted.interval(0.9)
        assert (low <= high).all()
        assert {"nll", "expected_nll"} <= predicted.scores(y).keys()
    name = getattr(likelihood, "__name__", "Heavy")
    assert type(posterior.problem.likelihood).__name__ == name in repr(again)
    with pytest.raises(InvalidInput, match=r"prior .* is not posterity's own"):
        load(tmp_path / "p.safetensors", network)


def test_a_prior_of_ones_own_is_a_part_of_others(tmp_path: Path) -> None:
    network, prior = nn.Linear(2, 1), {"bias": strangers.Wide(), "*": Normal(0, 1)}
    posterior = fit(network, (X, Y), likelihood=Gaussian(0.3), prior=prior, method=MAP(epochs=1), engine=QUIET)
    posterior.save(tmp_path / "p.safetensors")
    assert (
        load(tmp_path / "p.safetensors", network, prior=posterity.Product(prior)).problem.prior
        == posterior.problem.prior
    )
    assert float(pickle.loads(pickle.dumps(posterior)).problem.log_prior(posterior.theta)) == pytest.approx(
        float(posterior.problem.log_prior(posterior.theta))
    )


def test_data_and_an_engine_of_ones_own() -> None:
    engine = strangers.Counting(QUIET)
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    posterior = fit(network, strangers.Rows(X, Y), likelihood=Gaussian(0.3), method=MeanField(epochs=2), engine=engine)
    assert engine.runs == ["MeanFieldInference"]
    mixed = Ensemble(MAP(epochs=1), 2)
    assert (
        len(fit(network, strangers.Rows(X, Y), likelihood=Gaussian(0.3), method=mixed, engine=engine).components) == 2
    )
    assert len(engine.runs) == 3
    ours = fit(network, TensorData(X, Y, 10), likelihood=Gaussian(0.3), method=MeanField(epochs=2), engine=QUIET)
    assert torch.equal(ours.mean, posterior.mean)  # the same batches by the same generator
    assert posterior.diagnose(data=strangers.Rows(X, Y), draws=30).khat is not None


def test_what_does_not_keep_a_contract_is_refused_before_the_training() -> None:
    short = strangers.Rows(X[:15], Y[:15])
    bare = fit(nn.Linear(2, 1), (X, Y), likelihood=Gaussian(0.3), method=strangers.MakesBare(), engine=QUIET)
    assert isinstance(bare, strangers.Bare)
    for words, given in {
        "3 batches": {"data": short},
        "infer": {"method": strangers.Plain},
        "as MeanField": {"method": object()},
        "run and fork": {"engine": object()},
        "called with": {"likelihood": strangers.Heavy},
    }.items():
        with pytest.raises(InvalidInput, match=words):
            fit(nn.Linear(2, 1), **{"data": (X, Y), "likelihood": Gaussian(0.3), "engine": QUIET, **given})
    with pytest.raises(InvalidInput, match="cannot be mixed"):
        fit(nn.Linear(2, 1), (X, Y), likelihood=Gaussian(0.3), method=Ensemble(strangers.MakesBare(), 2), engine=QUIET)
    with pytest.raises(InvalidInput, match="Ensemble\\(Refine"):
        Refine(MeanField(), after=Ensemble(strangers.Plain(), 2))


@pytest.mark.parametrize(
    ("method", "temperature"),
    [
        (Ensemble(MeanField(temperature=0.05, epochs=1), 2), 0.05),
        (Refine(MeanField(epochs=1), after=MAP(epochs=1)), 1.0),
        (Ensemble(Laplace(MAP(epochs=1), "diag", prediction="sampled"), 2), None),
        (Ensemble(posterity.IVON(epochs=1, temperature=0.5), 1), 0.5),
    ],
)
def test_members_are_diagnosed_at_the_temperature_that_made_them(method, temperature, tmp_path: Path) -> None:
    network = nn.Linear(2, 1)
    posterior = fit(network, (X, Y), likelihood=Gaussian(0.3), method=method, engine=QUIET)
    posterior.save(tmp_path / "p.safetensors")
    for one in (posterior, load(tmp_path / "p.safetensors", network)):
        found = one.diagnose(data=(X, Y), draws=30)
        for part, posed in zip(getattr(found, "parts", (found,)), getattr(one, "components", (one,)), strict=True):
            assert bool(part.gradients) == (temperature is not None)
            assert getattr(posed.descent, "temperature", None) == temperature


@pytest.fixture(scope="module")
def strange_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a method, a likelihood and a prior that the command line names."""
    out = tmp_path_factory.mktemp("runs") / "r"
    parts = ["--likelihood", f"{HERE}:Heavy", "--likelihood.df", "5", "--prior", f"{HERE}:Wide"]
    method = ["--method", f"{HERE}:Options", "--epochs", "1", "--ensemble", "2", "--model", "mlp:3"]
    with pytest.MonkeyPatch.context() as patch:
        empty(Figure, patch.setattr)
        assert run(["train", "diabetes", *parts, *method, "--out", str(out), "--quiet"]) == 0
    return out


def test_the_command_line_names_parts(
    strange_run: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty(Figure, monkeypatch.setattr)
    config = (strange_run / "config.toml").read_text()
    assert all(f'kind = "{HERE}:{name}"' in config for name in ("Heavy", "Wide", "Options"))
    assert "df = 5" in config
    for command in (["evaluate"], ["diagnose", "--draws", "100"], ["report"]):
        assert run([*command, str(strange_run), "--trust", "--quiet"]) == 0, command
    assert "Ensemble of 2 × options" in capsys.readouterr().out
    for command in (["evaluate", str(strange_run)], ["train", "--config", str(strange_run / "config.toml")]):
        assert run([*command, "--quiet"]) == 2
        said = capsys.readouterr().err
        assert all(word in said for word in ("--trust", HERE))
        assert said.count("\n") == 1


def test_conformance_and_mistakes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["conformance", f"{HERE}:Plain", f"{HERE}:Stepwise", "--laws", "3", "8", "--quiet"]) == 0
    assert "stepwise" in capsys.readouterr().out.lower()
    for flags in (
        ["--method", f"{HERE}:Nothing"],
        ["--method", "os:system"],
        ["--method", "nowhere:Mine"],
        ["--prior", f"{HERE}:Plain"],
        ["--likelihood", "torch:load"],
    ):
        assert run(["train", "diabetes", *flags, "--out", str(tmp_path / "r"), "--quiet"]) == 2, flags
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_every_kind_of_method_is_found_by_it() -> None:
    assert all(restored(recorded(cls())) == cls() for kind, cls in KINDS.items())
    assert isinstance(Categorical(), posterity.Likelihood)


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "your-own.md").read_text(encoding="utf-8")
    names: dict = {"__name__": "your_own"}
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert all(block.count("\n") <= 30 for block in blocks)
    for block in blocks:
        exec(compile(block, "your-own.md", "exec"), names)
    assert names["again"].kind == "two"
    assert names["walked"].provenance["method"] == {"lr": 0.005, "epochs": 50, "kind": "my_descent"}
    assert (names["low"] < names["high"]).all()
    assert names["streamed"].predict(names["x"], 8).mean.shape == (60,)
    assert abs(float(names["walked"].mean[0]) - 1) < 0.05
    for registry, kind in ((KINDS, "my_descent"), (FAMILIES, "two")):
        assert registry.pop(kind).__module__ == "your_own"
