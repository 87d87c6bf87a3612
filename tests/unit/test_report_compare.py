"""The comparison of runs: what it writes, what it marks as best, what it calls unfair, and what its figures show."""

import re
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import torch

from posterity.metrics import calibration_slope, coverage_curve, error_auroc, evaluate, reliability, risk_coverage
from posterity.predict.predictive import Classification, Regression
from posterity.report import figures_compare as figures
from posterity.report.compare import (
    COLUMNS,
    COSTS,
    Column,
    calibration_of,
    grid,
    grids,
    headline,
    risk_of,
    scored,
    unfair,
    write_comparison,
    written,
)
from posterity.report.contenders import Contender, Result

LABELS = torch.randint(4, (400,), generator=torch.Generator().manual_seed(0))


def classes(seed: int, sharpness: float) -> Classification:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 400, 4, generator=generator) + sharpness * torch.nn.functional.one_hot(LABELS, 4)
    return Classification(logits.softmax(-1))


def run(name: str, seed: int, sharpness: float = 2.0, draws: int = 3, **numbers: float) -> Result:
    predictive = classes(seed, sharpness)
    history = [
        {"run": "model", "epoch": e, "nll": 1 / e, "validation": {"nll": 2 / e, "accuracy": 0.5}} for e in (1, 2, 3)
    ]
    return Result(
        name=name,
        seed=seed,
        draws=draws,
        numbers={**scored(predictive, LABELS), "train_seconds": 3.0 + seed, "draws": float(draws), **numbers},
        calibration=calibration_of(predictive, LABELS),
        risk=risk_of(predictive, LABELS),
        history=history,
    )


def contenders() -> list[Contender]:
    sharp = Contender("Sharp & <sure>", (run("a0", 0, 2.0), run("a1", 1, 2.0)))
    return [sharp, Contender("Dull", (run("b0", 0, 1.0), run("b1", 1, 1.0)))]


def values(seed: int) -> tuple[Regression, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(4, 60, generator=generator, dtype=torch.float64)
    return Regression(means, torch.full_like(means, 0.3)), torch.randn(60, generator=generator, dtype=torch.float64)


def test_every_column_is_a_number_that_a_run_has():
    predictive = classes(0, 2.0)
    found = scored(predictive, LABELS)
    right = predictive.labels == LABELS
    assert found["error_auroc"] == error_auroc(1 - predictive.confidence, right)
    assert found["calibration_slope"] == calibration_slope(predictive.mean, LABELS)
    assert found["nll"] == evaluate(predictive, LABELS)["nll"]
    assert {c.key for part in COLUMNS["classification"].values() for c in part} <= set(found)
    forecast, y = values(0)
    assert {c.key for part in COLUMNS["regression"].values() for c in part} <= set(scored(forecast, y))
    assert scored(forecast, y)["coverage_error"] == coverage_curve(forecast, y).error


def test_curves_are_those_of_the_metrics():
    predictive = classes(0, 2.0)
    torch.testing.assert_close(calibration_of(predictive, LABELS).count, reliability(predictive.mean, LABELS, 10).count)
    expected = risk_coverage(1 - predictive.confidence, predictive.labels != LABELS).risk
    torch.testing.assert_close(risk_of(predictive, LABELS).risk, expected)
    forecast, y = values(0)
    assert risk_of(forecast, y).risk[-1].item() == pytest.approx((forecast.mean - y).square().mean().item(), rel=1e-12)


def test_seeds_are_written_as_mean_and_std():
    column = Column("nll", "NLL", "↓")
    own = [0.123, 0.131, 0.127]
    assert written(own, column) == "0.1270 ± 0.0040"
    assert (round(fmean(own), 4), round(stdev(own), 4)) == (0.127, 0.004)
    assert written([0.5, 0.5], Column("accuracy", "Accuracy", "↑", 100)) == "50.00"
    assert written([1234567.0], COSTS[2]) == "1,234,567"
    assert written([], column) == "–"
    assert written([1500.0, 2500.0], column) == "2,000 ± 707"


def test_the_best_is_marked_by_its_arrow_and_ties_are_shared():
    def of(name: str, **numbers: float) -> Contender:
        whole = run(name, 0)
        return Contender(name, (Result(name, 0, 1, numbers, whole.calibration, whole.risk),))

    rows = [
        of("a", nll=0.2, cover=0.95, same=1.0),
        of("b", nll=0.1, cover=0.82, same=1.0),
        of("c", nll=0.1, cover=0.91),
    ]
    columns = [
        Column("nll", "NLL", "↓"),
        Column("cover", "Coverage", "→ 90", 100),
        Column("same", "Same", "↑"),
        Column("width", "Width"),
    ]
    found = grid(rows, columns)
    assert found.heads == ("", "NLL ↓", "Coverage → 90", "Same ↑")  # nobody has a width
    assert found.best == {(1, 0), (2, 0), (2, 1)}
    assert found.rows[2] == ("c", "0.100", "91.00", "–")


def test_nan_is_no_number():
    whole = Contender("x", (run("a", 0), run("b", 1, calibration_slope=float("nan"))))
    assert len(whole.values("calibration_slope")) == 1
    assert len(whole.values("accuracy")) == 2


def test_what_is_unfair_is_said():
    assert unfair(contenders()) == ()
    other = [Contender("A", (run("a", 0), run("b", 1))), Contender("B", (run("c", 0, draws=50),))]
    seeds, draws = unfair(other)
    assert "A: 0, 1; B: 0" in seeds
    assert "A: 3; B: 50" in draws
    assert "--draws" in draws
    assert unfair([Contender("A", (run("a", 0),)), Contender("Point", (run("b", 0, draws=1),))]) == ()
    (twice,) = unfair([Contender("A", (run("a", 0), run("b", 0))), Contender("B", (run("c", 0), run("d", 0)))])[:1]
    assert "same seed" in twice


def test_the_headline_names_who_is_best():
    text = headline(contenders(), "classification")
    assert "Sharp & <sure> has the highest accuracy" in text
    assert "400 test examples" in text
    best = fmean(contenders()[0].values("accuracy"))
    assert f"± {100 * (best * (1 - best) / 400) ** 0.5:.2g} points" in text


def test_risk_coverage_is_drawn_with_its_spread():
    own = contenders()
    (ax,) = figures.plot_risk_coverage(own, "classification").axes
    line = ax.lines[0]
    ends = [r.risk.risk[-1].item() for r in own[0].results]
    assert line.get_ydata()[-1] == pytest.approx(100 * fmean(ends), rel=1e-9)
    band = ax.collections[0].get_paths()[0].vertices
    at_end = band[np.isclose(band[:, 0], 100)][:, 1]
    assert at_end.max() == pytest.approx(100 * (fmean(ends) + stdev(ends)), rel=1e-9)


def test_reliability_pools_the_seeds():
    own = contenders()
    ax, gap = figures.plot_calibration(own).axes
    predictives = [classes(seed, 2.0) for seed in (0, 1)]
    pooled = reliability(torch.cat([p.mean for p in predictives]), LABELS.repeat(2), 10)
    enough = pooled.count >= 20
    np.testing.assert_allclose(ax.lines[1].get_xdata(), pooled.confidence[enough], rtol=1e-9)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), pooled.accuracy[enough], rtol=1e-9)
    np.testing.assert_allclose(gap.lines[1].get_ydata(), 100 * (pooled.accuracy - pooled.confidence)[enough], rtol=1e-6)


def test_training_curves_have_a_line_per_run_and_member():
    members = [
        {"run": f"model/member-{m}", "epoch": e, "nll": 1.0, "validation": {"nll": m + e}}
        for m in (0, 1)
        for e in (1, 2)
    ]
    bare = [{"run": "model", "epoch": e, "nll": 0.5} for e in (1, 2)]
    base = run("a", 0)
    both = [
        Contender("Ensemble", (Result(**{**vars(base), "history": members}),)),
        Contender("Unwatched", (Result(**{**vars(base), "history": bare}),)),
    ]
    nll, _ = figures.plot_training_curves(both, "accuracy").axes
    assert [line.get_ydata().tolist() for line in nll.lines] == [[1, 2], [2, 3], [0.5, 0.5]]
    assert [line.get_linestyle() for line in nll.lines] == ["-", "-", ":"]


def test_roc_curves_appear_where_runs_share_a_set():
    curve = {"fpr": [0.0, 0.1, 1.0], "tpr": [0.0, 0.8, 1.0]}
    base = vars(run("a", 0))
    strange = {"letters": {"entropy": curve, "mutual_information": curve}, "noise": {"entropy": curve}}
    both = [
        Contender("A", (Result(**{**base, "curves": strange}),)),
        Contender("B", (Result(**{**base, "curves": {"letters": {"entropy": curve}}}),)),
    ]
    assert figures.common_sets(both) == ["letters"]
    (ax,) = figures.plot_detection(both).axes
    assert [line.get_linestyle() for line in ax.lines] == [":", "-", "--", "-"]
    assert np.interp(0.1, ax.lines[1].get_xdata(), ax.lines[1].get_ydata()) == pytest.approx(0.8, abs=0.01)
    titles = [s.title for s in figures.sections(both, "classification")]
    assert titles[-1] == "Knowing strangers"
    assert figures.common_sets(contenders()) == []


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_page_is_one_file(task, tmp_path: Path):
    own = contenders()
    if task == "regression":
        made = [values(seed) for seed in (0, 1)]
        results = [
            Result(f"r{i}", 0, 4, scored(p, y), calibration_of(p, y), risk_of(p, y)) for i, (p, y) in enumerate(made)
        ]
        own = [Contender("Sharp & <sure>", (results[0],)), Contender("Dull", (results[1],))]
    path = write_comparison(own, task, "digits", ["Something & unfair."], tmp_path / "new" / "compare.html")
    page = path.read_text()
    assert "Sharp &amp; &lt;sure&gt;" in page
    assert "<sure>" not in page
    assert "Something &amp; unfair." in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page
    for found in grids(own, task).values():
        assert all(cell in page for row in found.rows for cell in row[1:])
    assert page.count("<svg") == (3 if task == "classification" else 2)
    assert 'class="best"' in page
