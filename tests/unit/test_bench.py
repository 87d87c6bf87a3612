"""The studies: their order, what is kept on disk, what validation chooses, and what the tables say."""

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.distributions import kl_divergence

from posterity.bench import STUDIES, images, uci
from posterity.bench.bound import Bounds
from posterity.bench.machine import provenance
from posterity.bench.study import NELBO, Column, Job, Published, Study, read, remaining, work, write
from posterity.bench.table import collect, lines, markdown, spread, summary
from posterity.data import load
from posterity.errors import CorruptFile, Diverged, InvalidInput
from posterity.methods import MLE, Ensemble, MeanField
from posterity.metrics.ood import ood_auroc
from posterity.metrics.scores import evaluate
from posterity.model.likelihoods import Categorical
from posterity.model.priors import Normal
from posterity.model.problem import Problem
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point


def study(run, **changes) -> Study:
    columns = [Column("nll", "log likelihood", -1.0), Column("accuracy", "accuracy", 100.0, 1)]
    made = Study(
        name="tiny",
        title="Tiny",
        about="Of nothing.",
        sets=("a", "b"),
        methods={"first": "the first", "second": "the second"},
        repeats=3,
        usual=2,
        repeat="split",
        error="standard error",
        columns={"a": columns, "b": columns},
        published={"a": [Published("others (1999)", {"nll": "−9.99 ± 0.01"})], "b": []},
        sources="Others 1999",
        run=run,
        left_out=frozenset({("b", "second")}),
    )
    return replace(made, **changes)


def scored(job: Job, folder: Path) -> dict:
    value = {"first": 1.0, "second": 2.0}[job.method] + job.repeat
    return {"scores": {"nll": value, "accuracy": 0.5}, "seconds": 0.0}


def test_repeats_come_one_after_the_other_and_what_is_left_out_is():
    jobs = study(scored).jobs(("a", "b"), ("first", "second"), 2)
    one = [("a", "first"), ("a", "second"), ("b", "first")]
    assert [(j.data, j.method, j.repeat) for j in jobs] == [(*j, 0) for j in one] + [(*j, 1) for j in one]


def test_what_is_done_is_not_done_again(tmp_path):
    seen = []

    def run(job: Job, folder: Path) -> dict:
        seen.append(job)
        return scored(job, folder)

    tiny = study(run)
    jobs = tiny.jobs(("a",), ("first",), 2)
    assert [job for job, _ in work(tiny, jobs, tmp_path)] == jobs == seen
    more = tiny.jobs(("a", "b"), ("first", "second"), 2)
    assert remaining(more, tmp_path) == [job for job in more if job not in jobs]
    done = [job for job, _ in work(tiny, more, tmp_path)]
    assert done == seen[2:] == [job for job in more if job not in jobs]
    assert not remaining(more, tmp_path)
    assert read(tmp_path / "b" / "first-1.json") == {
        "data": "b",
        "method": "first",
        "split": 1,
        **scored(more[-1], tmp_path),
    }


def test_a_fit_that_fails_leaves_no_file_and_one_that_diverges_a_record(tmp_path):
    def run(job: Job, folder: Path) -> dict:
        if job.method == "second":
            raise KeyboardInterrupt
        raise Diverged("The nll became nan.")

    tiny = study(run)
    fits = work(tiny, tiny.jobs(("a",), ("first", "second"), 1), tmp_path)
    assert next(fits)[1] == {"error": "The nll became nan."}
    with pytest.raises(KeyboardInterrupt):
        next(fits)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["first-0.json"]
    line = lines(tiny, "a", collect(tiny, tmp_path)["a"])[0]
    assert (line.count, line.cells) == ("0 (1 diverged)", ("", ""))


def test_infinite_scores_survive_the_file_and_damaged_files_are_named(tmp_path):
    path = tmp_path / "record.json"
    write(path, {"nll": math.inf})
    assert read(path) == {"nll": math.inf}
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(CorruptFile, match=r"record\.json.*Delete it"):
            read(path)


def test_a_table_says_means_with_their_errors(tmp_path):
    tiny = study(scored)
    list(work(tiny, tiny.jobs(tiny.sets, tuple(tiny.methods), 3), tmp_path))
    found = collect(tiny, tmp_path)
    error = statistics.stdev([1, 2, 3]) / math.sqrt(3)
    first, second, other = lines(tiny, "a", found["a"])
    assert (first.title, first.count, first.cells) == ("the first", "3", (f"−2.00 ± {error:.2f}", "50.0 ± 0.0"))
    assert second.cells[0] == f"−3.00 ± {error:.2f}"
    assert (other.title, other.ours, other.cells) == ("others (1999)", False, ("−9.99 ± 0.01", ""))
    page = markdown(tiny, found)
    assert "mean ± standard error over splits. Published rows, as printed: Others 1999." in page
    assert "| **the first** | 3 | −2.00 ± 0.58 | 50.0 ± 0.0 |" in page
    assert "| others (1999) |  | −9.99 ± 0.01 |  |" in page
    assert [line for line in page.splitlines() if line.startswith("#")] == ["# Tiny", "## a", "## b"]
    assert {line.count("|") for line in page.splitlines() if line.startswith("|")} == {5}
    moments = summary(tiny, found)["b"]["first"]
    assert moments["count"] == 3
    assert moments["scores"]["nll"] == {"mean": 2.0, "std": 1.0}


def test_a_spread_is_that_of_numpy():
    values = np.random.default_rng(0).normal(size=7)
    column = Column("nll", "NLL", 1.0, 6)
    assert spread(list(values), column, "standard deviation").endswith(f"{values.std(ddof=1):.6f}")
    assert spread(list(values), column, "standard error").endswith(f"{values.std(ddof=1) / 7**0.5:.6f}")
    assert spread([0.25], column, "standard error") == "0.250000"
    assert spread([math.inf, 1.0], column, "standard error") == "inf"


def test_the_auroc_of_outsiders_counts_pairs():
    generator = torch.Generator().manual_seed(0)
    inside = torch.randint(8, (60,), generator=generator).float()  # integers: there are ties
    outside = torch.randint(12, (45,), generator=generator).float()
    pairs = (outside[:, None] > inside).double() + 0.5 * (outside[:, None] == inside)
    assert ood_auroc(inside, outside) == pytest.approx(pairs.mean().item(), abs=1e-12)
    truth = np.r_[np.zeros(60), np.ones(45)]
    assert ood_auroc(inside, outside) == roc_auc_score(truth, torch.cat([inside, outside]).numpy())
    assert ood_auroc(torch.zeros(3), torch.zeros(2)) == 0.5
    for wrong in (torch.zeros(0), torch.zeros(2, 1), torch.tensor([math.nan])):
        with pytest.raises(InvalidInput, match="`outside`"):
            ood_auroc(inside, wrong)


predict = uci._predict


@pytest.fixture(scope="module")
def regression():
    """The UCI study on diabetes, with three short models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uci, "_dataset", lambda name, split: load("diabetes"))
        models = (uci.Model(0.01, False, 40, "Adam"), *(uci.Model(1.0, noise, 200, "Adam") for noise in (False, True)))
        patch.setitem(uci.FAMILIES, "points", uci.Family("map", models))
        patch.setitem(uci.FAMILIES, "chains", uci.Family("sghmc", models[1:2]))
        yield


@pytest.fixture(scope="module")
def of_map(regression, tmp_path_factory):
    """The folder and the record of MAP's row."""
    folder = tmp_path_factory.mktemp("map")
    return folder, uci.run(Job("boston", "map", 0), folder)


def test_validation_chooses_the_model_once_for_a_family_and_never_sees_the_test_rows(of_map, monkeypatch, tmp_path):
    folder, record = of_map
    choice = read(folder / "boston" / "choice-points-0.json")
    assert record["choice"] == choice
    names = {m.name: m for m in uci.FAMILIES["points"].models}
    assert choice["validation_nll"].keys() == names.keys()
    best = min(choice["validation_nll"], key=choice["validation_nll"].get)
    assert choice["model"] == vars(names[best])
    assert choice["model"]["steps"] == 200  # 40 steps under a prior of std 0.01 learn nothing
    data = load("diabetes")
    monkeypatch.setattr(uci, "_dataset", lambda name, split: replace(data, test_targets=-data.test_targets))
    assert uci.run(Job("boston", "map", 0), tmp_path)["scores"]["nll"] != record["scores"]["nll"]
    assert read(tmp_path / "boston" / "choice-points-0.json")["validation_nll"] == choice["validation_nll"]


def test_the_choice_of_a_family_is_read_where_it_is_there(regression, monkeypatch, tmp_path):
    wanted = uci.Model(0.5, False, 30, "Adam")
    write(tmp_path / "boston" / "choice-points-0.json", {"model": vars(wanted), "validation_nll": {}, "seconds": 0.0})
    record = uci.run(Job("boston", "ensemble_map", 0), tmp_path)
    assert record["choice"]["model"] == vars(wanted)
    method = record["fit"]["method"]
    assert (method["kind"], method["n"], method["method"]["kind"]) == ("ensemble", 5, "map")
    assert method["method"]["epochs"] == round(30 / -(-354 // 64))


def test_scores_are_in_the_units_of_the_raw_targets(of_map):
    scores = of_map[1]["scores"]
    data = load("diabetes")
    raw = data.scaling.restore_targets(data.test_targets)
    naive = raw.std().item()  # about 78: what predicting the mean loses
    assert 0.5 * naive < scores["rmse"] < naive
    gaussian = 0.5 * math.log(2 * math.pi * math.e) + math.log(scores["rmse"])  # the NLL of a calibrated Gaussian
    assert scores["nll"] == pytest.approx(gaussian, abs=0.25)


def test_chains_get_more_steps_in_the_end_than_models_are_chosen_by(regression, tmp_path):
    method = uci.run(Job("boston", "sghmc", 0), tmp_path)["fit"]["method"]
    assert method["epochs"] == round(uci.LONGER[""] * 200 / -(-354 // 256))


def test_a_family_without_any_good_model_takes_the_first(regression, monkeypatch, tmp_path):
    def diverge(job, model, data):
        raise Diverged("no")

    monkeypatch.setattr(uci, "_fit", diverge)
    choice = uci.chosen("boston", "points", 0, tmp_path)
    assert set(choice["validation_nll"].values()) == {math.inf}


@pytest.mark.parametrize("name", list(uci.ROWS))
def test_every_row_of_uci_makes_its_method(name):
    row = uci.ROWS[name]
    model = uci.FAMILIES[row.family].models[0]
    method = row.method(7, model)
    inner = method.method if isinstance(method, Ensemble) else method
    assert inner.epochs in (None, 7)
    assert inner.temperature in (None, 1.0)
    assert uci.ROWS[uci.FAMILIES[row.family].head].family == row.family


@pytest.mark.parametrize("name", list(images.ROWS))
def test_every_row_of_images_has_equal_epochs_and_the_temperature_that_its_title_says(name):
    method = images.ROWS[name].method
    inner = method.method if isinstance(method, Ensemble) else method
    assert inner.epochs == images.EPOCHS
    temperature = 1.0 if inner.temperature is None else inner.temperature
    assert (temperature == 1.0) is ("temperature" not in images.ROWS[name].title)
    assert temperature == 1.0 or f"temperature {temperature}" in images.ROWS[name].title


def test_images_are_scored_against_the_other_sets(monkeypatch, tmp_path):
    data = load("digits", image_size=32).standardised()
    monkeypatch.setattr(images, "_dataset", lambda name: data)
    monkeypatch.setattr(images, "VALIDATION", 200)
    noise = torch.randn(100, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 5
    monkeypatch.setattr(
        images, "_outside", lambda name, other: noise if other == "notmnist" else data.test_inputs[:100]
    )
    rows = {"mle": images.Row("", MLE(epochs=3)), "mean_field_weight": images.Row("", MeanField(epochs=3))}
    monkeypatch.setattr(images, "ROWS", rows)
    one = images.run(Job("mnist", "mle", 0), tmp_path)["scores"]
    assert not {"auroc_mutual_information_notmnist", "nelbo"} & one.keys()  # one network has none
    assert one["auroc_entropy_fashion-mnist"] == pytest.approx(0.5, abs=0.1)  # the same digits
    record = images.run(Job("mnist", "mean_field_weight", 0), tmp_path)
    assert record["fit"]["method"]["kind"] == "mean_field"
    assert 0.1 < record["scores"]["accuracy"] <= 1
    assert one.keys() < record["scores"].keys()
    assert {c.score for c in images.IMAGES.columns["mnist"]} <= record["scores"].keys()
    write(tmp_path / "mnist" / "mle-0.json", {"scores": one})
    line = lines(images.IMAGES, "mnist", collect(images.IMAGES, tmp_path)["mnist"])[0]
    empty = [c == NELBO or "mutual" in c.title for c in images.IMAGES.columns["mnist"]]  # one network has neither
    assert [cell == "" for cell in line.cells] == empty
    json.dumps(record, allow_nan=False)


def test_the_bound_of_a_row_is_that_of_the_posterior_that_it_returned(regression, monkeypatch, tmp_path):
    wanted = uci.Model(1.0, True, 500, "Adam")
    write(
        tmp_path / "boston" / "choice-variational-0.json", {"model": vars(wanted), "validation_nll": {}, "seconds": 0.0}
    )
    returned = []
    monkeypatch.setattr(
        uci, "_predict", lambda posterior, *rest: returned.append(posterior) or predict(posterior, *rest)
    )
    record = uci.run(Job("boston", "mean_field_weight", 0), tmp_path)["scores"]
    (q,), data = returned, load("diabetes")
    prior_mean, prior_std = q.problem.coordinates.normal
    kl = kl_divergence(
        torch.distributions.Normal(q.loc, q.std), torch.distributions.Normal(prior_mean, prior_std)
    ).sum()
    draws = []
    for seed in range(200):
        with q.problem.bound(q.sample(torch.Generator().manual_seed(seed))):
            batch = data.train_inputs, data.train_targets
            draws.append(q.problem.nll(batch)[0].item() / q.problem.weight(batch))
    exact = statistics.fmean(draws) + kl.item() / len(data.train_inputs)
    tolerance = 4 * statistics.stdev(draws) * (1 / len(draws) + 1 / -(-354 // 64)) ** 0.5  # one draw a step
    assert record["nelbo"] == pytest.approx(exact, abs=tolerance)
    assert kl.item() / len(data.train_inputs) > 2 * tolerance  # so that a bound without it would be seen


def test_bounds_are_those_of_the_epoch_that_was_kept_at_temperature_1_and_of_members_the_mean():
    bounds = Bounds()
    for epoch, (nll, validation) in enumerate([(1.0, 3.0), (0.5, 1.0), (0.25, 2.0)]):
        bounds("fit/member-0", {"epoch": epoch, "nelbo": 9.0, "nll": nll, "kl": 2.0, "validation": {"nll": validation}})
    assert bounds.scores() == {"nelbo": 2.5, "nelbo_fall": 0.25}
    bounds("fit/member-1", {"epoch": 1, "nll": 0.5, "kl": 1.0})
    assert bounds.scores() == {"nelbo": 2.0, "nelbo_fall": 0.125}
    points = Bounds()
    points("fit", {"epoch": 1, "nll": 0.5})
    assert points.scores() == {}


def test_a_variational_row_shows_its_bound_or_that_it_was_not_recorded(tmp_path):
    def run(job: Job, folder: Path) -> dict:
        recorded = {"nelbo": 1.0 + job.repeat} if job.method == "second" and job.repeat else {}
        return {"scores": {"nll": 1.0, "accuracy": 0.5, **recorded}}

    tiny = study(run, variational=frozenset({"second"}))
    tiny = replace(tiny, columns={name: [*columns, NELBO] for name, columns in tiny.columns.items()})
    list(work(tiny, tiny.jobs(("a",), tuple(tiny.methods), 1), tmp_path))
    assert [line.cells[-1] for line in lines(tiny, "a", collect(tiny, tmp_path)["a"])] == ["", "not recorded", ""]
    list(work(tiny, tiny.jobs(("a",), tuple(tiny.methods), 3), tmp_path))
    assert [line.cells[-1] for line in lines(tiny, "a", collect(tiny, tmp_path)["a"])] == [
        "",
        "2.500 ± 0.500 (of 2)",
        "",
    ]


def test_an_ensemble_has_sixteen_draws_of_each_member_and_a_point_one_function():
    problem = Problem(torch.nn.Linear(3, 2), Normal(0, 1), Categorical(), 10)
    point, gaussian = Point(problem, torch.zeros(8)), DiagonalGaussian(problem, torch.zeros(8), torch.ones(8))
    made = [point, gaussian, Mixture.of((point, point, point)), Mixture.of((gaussian, gaussian))]
    assert [images.functions(posterior) for posterior in made] == [1, 16, 3, 32]
    predictive = images._predict(made[3], torch.randn(4, 3), 0)
    assert len(predictive.probs) == 32


def test_every_study_can_print_what_it_measures():
    for made in STUDIES.values():
        assert set(made.columns) == set(made.published) == set(made.sets)
        for data in made.sets:
            scores = {c.score for c in made.columns[data]}
            assert all(set(row.cells) <= scores for row in made.published[data])
        assert made.usual <= made.repeats


def test_provenance_names_the_machine():
    told = provenance()
    assert told["threads"] == torch.get_num_threads()
    assert f"torch {torch.__version__}" in told["machine"]


def test_evaluate_is_what_records_hold(of_map):
    record = of_map[1]
    posterior = uci._fit(Job("boston", "map", 0), uci.Model(**record["choice"]["model"]), _training())
    predictive = posterior.predict(load("diabetes").test_inputs, uci.DRAWS)  # a point: all draws are one
    scaling = load("diabetes").scaling
    restored = predictive.rescale(scaling.target_mean, scaling.target_std)
    expected = evaluate(restored, scaling.restore_targets(load("diabetes").test_targets))
    assert record["scores"] == pytest.approx(expected, rel=1e-5)


def _training() -> tuple[torch.Tensor, torch.Tensor]:
    data = load("diabetes")
    return data.train_inputs, data.train_targets
