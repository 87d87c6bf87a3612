"""The report: its words are computed, its figures draw the right numbers, its page is whole and needs nothing else."""

import re
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib._pylab_helpers import Gcf

from posterity.errors import InvalidInput
from posterity.metrics.calibration import reliability
from posterity.metrics.scores import coverage, evaluate
from posterity.predict.predictive import Classification, Regression
from posterity.report import (
    Model,
    ReportData,
    figures_classification,
    figures_regression,
    figures_training,
    gallery,
    render,
    summary,
    verdicts,
    write,
)

HISTORY = [
    {"epoch": e, "nelbo": 3 / e, "nll": 1 / e, "kl": 2 / e, "validation": {"nll": nll, "accuracy": 0.9, "rmse": 1.0}}
    for e, nll in enumerate((0.9, 0.5, 0.6), start=1)
]


def model(name: str, predictive: Classification | Regression, targets: torch.Tensor) -> Model:
    return Model(name, predictive, evaluate(predictive, targets), HISTORY, 1234, 5.0, 8)


def classification(batch: int = 80, classes: int = 3, shape: tuple[int, ...] = (1, 8, 8)) -> ReportData:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, batch, classes, generator=generator) + 3 * torch.randn(batch, classes, generator=generator)
    bayesian = Classification(logits.softmax(-1), logits)
    twin = Classification((3 * logits[:1]).softmax(-1))
    targets = torch.multinomial(bayesian.mean, 1, generator=generator).squeeze(-1)
    inputs = torch.rand(batch, *shape, generator=generator)
    models = model("Bayes", bayesian, targets), model("Twin", twin, targets)
    names = tuple(f"class {c}" for c in range(classes))
    settings = {"temperature": "0.25", "<prior>": "Normal(0, 0.1) & more"}
    ratios = torch.tensor([0.1, 0.5, 2.0, 30.0])
    return ReportData(
        "Test", "classification", inputs, targets, *models, names, settings, ratios, command="posterity x"
    )


def regression(batch: int = 60, features: int = 1) -> ReportData:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(8, batch, generator=generator) * 0.2 + torch.linspace(-2, 2, batch)
    bayesian = Regression(means, torch.full((8, batch), 0.3))
    twin = Regression(means[:1], torch.full((1, batch), 0.01))
    targets = bayesian.mean + bayesian.std * torch.randn(batch, generator=generator)
    inputs = torch.rand(batch, features, generator=generator)
    models = model("Bayes", bayesian, targets), model("Twin", twin, targets)
    return ReportData("Test", "regression", inputs, targets, *models, settings={"temperature": "1"})


class Page(HTMLParser):
    """Checks that every tag is closed, and gathers the images and what would be loaded from elsewhere."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.images: list[str] = []
        self.figures: list[str | None] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "svg":
            self.figures.append(found.get("aria-label"))
        if tag == "img":
            self.images.append(found["src"])
            assert found["alt"]
        self.loads += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("data:", "#"))]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


SCATTER = "Do its labels scatter where it is wrong?"


def one_function() -> ReportData:
    data = classification()
    alone = Classification(data.bayesian.predictive.probs[:1])
    return replace(data, bayesian=replace(data.bayesian, predictive=alone))


DATA = {
    "images": replace(classification(), title="<script>alert(1)</script>", classes=("<b>", "&", "c")),
    "wide images": classification(shape=(3, 40, 200)),
    "a table": classification(shape=(5,), classes=6),
    "many classes": classification(classes=25),
    "no twin": replace(
        classification(), twin=None, signal_to_noise=None, bayesian=replace(classification().bayesian, history=[])
    ),
    "one function": one_function(),
    "a line": regression(),
    "many features": regression(features=9),
    "units": replace(regression(), twin=None, target_scaling=(500.0, 10.0)),
}


def of_matplotlib() -> dict:
    return {name: matplotlib.rcParams[name] for name in ("svg.fonttype", "svg.hashsalt", "font.family")}


@cache
def page(name: str) -> str:
    """The page of these data, made once for all tests."""
    before = of_matplotlib()
    html = render(DATA[name])
    assert of_matplotlib() == before
    assert not Gcf.figs  # pyplot's register of figures
    return html


@pytest.mark.parametrize("name", DATA)
def test_page_is_whole_and_needs_nothing_else(name):
    data, html = DATA[name], page(name)
    parsed = Page(html)
    assert parsed.open == []
    assert parsed.loads == []
    assert "<script" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert parsed.figures
    assert all(parsed.figures)
    assert len(html) < 1_500_000
    assert data.settings["temperature"] in html


def test_text_is_escaped():
    html = page("images")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;prior&gt;" in html
    assert "<b>&" not in html.replace("<b>8", "")
    assert Page(html).open == []


@pytest.mark.parametrize("data", [classification(10_000), regression(10_000)])
def test_ten_thousand_points_stay_small(data):
    assert len(render(data)) < 1_000_000


def test_no_global_state_of_matplotlib():
    assert page("a line")  # asserts it of each page


def test_write_is_atomic_and_refuses_clearly(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["posterity.report.render"], "render", lambda data: page("a line"))
    path = write(regression(), tmp_path / "deep" / "report.html")
    assert path.read_text("utf-8").endswith("</html>")
    assert [child.name for child in path.parent.iterdir()] == ["report.html"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInput, match="Cannot write"):
        write(regression(), tmp_path / "file" / "report.html")


def test_best_value_is_marked():
    data = classification()
    rows = {row.label: row for row in summary.table(data.models, "classification")}
    nlls = [m.scores["nll"] for m in data.models]
    assert [cell.best for cell in rows["NLL"].cells] == [nlls[0] < nlls[1], nlls[1] < nlls[0]]
    assert not any(cell.best for cell in rows["Entropy"].cells)
    data = regression()
    cells = {row.label: row for row in summary.table(data.models, "regression")}["90 % coverage"].cells
    distance = [abs(m.scores["coverage_90"] - 0.9) for m in data.models]
    assert [cell.best for cell in cells] == [distance[0] < distance[1], distance[1] < distance[0]]
    same = summary.table((data.bayesian, replace(data.bayesian, name="other")), "regression")
    assert not any(cell.best for row in same for cell in row.cells)


def overconfident(right: int, count: int, confidence: float) -> tuple[Classification, torch.Tensor]:
    probs = torch.tensor([confidence, 1 - confidence]).expand(1, count, 2)
    return Classification(probs), torch.tensor([0] * right + [1] * (count - right))


def test_calibration_verdict():
    said = verdicts.calibration("It", *overconfident(900, 1000, 0.95))
    assert "over-confident by 5.0 points" in said
    assert "promises 95.0\N{NO-BREAK SPACE}% and keeps 90.0\N{NO-BREAK SPACE}%" in said
    assert "under-confident by 4.0 points" in verdicts.calibration("It", *overconfident(990, 1000, 0.95))
    # 2σ of 100 predictions at 95 % is 4.4 points
    assert "honest within chance (±4.4 points)" in verdicts.calibration("It", *overconfident(92, 100, 0.95))


def test_coverage_verdict():
    assert "over-confident" in verdicts.coverage("It", 0.8, 1000)
    assert "under-confident" in verdicts.coverage("It", 0.95, 1000)
    assert "honest within chance (±6.0 points)" in verdicts.coverage("It", 0.87, 100)


def test_other_verdicts():
    data = classification()
    bayesian = data.bayesian.predictive
    wrong = int((bayesian.labels != data.targets).sum())
    assert verdicts.mistakes(bayesian, data.targets, data.classes).startswith(f"{wrong} of 80 are wrong")
    assert "All 80" in verdicts.mistakes(bayesian, bayesian.labels, data.classes)
    assert "nothing to tell apart" in verdicts.error_detection(bayesian, bayesian.labels)
    assert "lowest at epoch 2 of 3" in verdicts.training(data.bayesian)
    assert "0.1 nats higher" in verdicts.training(data.bayesian)
    assert verdicts.signal_to_noise(data.signal_to_noise).startswith("50.0")
    ranks = np.arange(20.0)
    assert "1.00" in verdicts.residuals(ranks, ranks**2)
    assert verdicts.residuals(np.ones(20), ranks) == ""


def test_figures_draw_the_numbers():
    data = classification()
    bayesian = data.bayesian.predictive
    axes = figures_classification.plot_reliability({"a": bayesian}, data.targets).axes[0]
    diagram = reliability(bayesian.mean, data.targets)
    some = diagram.count > 0
    drawn = axes.lines[1].get_xydata()
    np.testing.assert_allclose(drawn, torch.stack([diagram.confidence, diagram.accuracy], -1)[some])
    count = figures_classification.confusion(bayesian.labels, data.targets, 3)
    for true in range(3):
        for said in range(3):
            assert count[true, said] == ((data.targets == true) & (bayesian.labels == said)).sum()
    texts = figures_classification.plot_confusion(bayesian.labels, data.targets, data.classes).axes[0].texts
    assert sum(int(text.get_text()) for text in texts) == 80
    kept = figures_classification.plot_referral({"a": bayesian}, data.targets).axes[0].lines[0].get_xydata()
    assert kept[-1].tolist() == pytest.approx([0, 100 * (bayesian.labels == data.targets).double().mean().item()])

    data = regression()
    curve = (
        figures_regression.plot_coverage({"a": data.bayesian.predictive}, data.targets).axes[0].lines[1].get_xydata()
    )
    at = {round(level): inside for level, inside in curve}
    assert at[90] == pytest.approx(100 * coverage(data.bayesian.predictive, data.targets, 0.9))
    bars = figures_training.plot_signal_to_noise(torch.tensor([10.0, 10.0, 0.1])).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 3
    lines = figures_training.plot_training(data.models, "rmse").axes[0].lines
    np.testing.assert_allclose(lines[0].get_ydata(), [3, 1.5, 1])


def test_target_scaling_draws_in_original_units():
    data = regression()
    bands = figures_regression.Bands.of(data.bayesian.predictive)
    plain, scaled = page("a line"), page("units")
    widest = bands.std.argmax()
    assert f"{500 + 10 * bands.mean[widest]:.0f}" in scaled
    assert f"{500 + 10 * bands.mean[widest]:.0f}" not in plain.split("Least certain")[1].split("How this was made")[0]


def test_gallery_picks_and_thumbnails():
    data = DATA["images"]
    bayesian = data.bayesian.predictive
    least, sure, most = gallery.classification_groups(data.inputs, bayesian, data.targets, data.classes)
    entropy = dict(least.entries[0].remark.facts)["entropy"]
    assert entropy == f"{bayesian.entropy.max().item():.2g}"
    assert dict(most.entries[0].remark.facts)["entropy"] == f"{bayesian.entropy.min().item():.2g}"
    assert all(entry.remark.wrong for entry in sure.entries)
    bar = least.entries[0].remark.bars[0]
    index = int(bayesian.entropy.argmax())
    assert bar.probability == pytest.approx(100 * bayesian.mean[index, 0].item(), rel=1e-5)
    variance = 100 * bayesian.variance[index, 0].item() / 0.25
    assert bar.aleatoric + bar.epistemic == pytest.approx(variance, rel=1e-4)
    assert len(Page(page("images")).images) == sum(len(group.entries) for group in (least, sure, most))


def test_thumbnail_is_the_image():
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    image = torch.rand(3, 12, 10)
    uri = gallery.thumbnail(image, 0.0, 1.0)
    pixels = np.asarray(Image.open(BytesIO(b64decode(uri.split(",")[1]))))
    np.testing.assert_allclose(pixels / 255, image.permute(1, 2, 0), atol=0.5 / 255 + 1e-6)
    large = gallery.thumbnail(torch.rand(1, 300, 200), 0.0, 1.0)
    assert Image.open(BytesIO(b64decode(large.split(",")[1]))).size == (64, 96)


def test_what_does_not_belong_together_is_refused():
    data = classification()
    with pytest.raises(InvalidInput, match="Choices"):
        replace(data, task="ranking")
    with pytest.raises(InvalidInput, match="Regression"):
        replace(data, task="regression")
    with pytest.raises(InvalidInput, match="equally many"):
        replace(data, targets=data.targets[:-1])
    with pytest.raises(InvalidInput, match="two names"):
        replace(data, twin=replace(data.twin, name="Bayes"))
    with pytest.raises(InvalidInput, match="2 names for 3 classes"):
        replace(data, classes=("a", "b"))


def test_the_chi_square_picture_counts_drawn_labels_of_right_and_wrong_predictions():
    sure, torn = torch.eye(3)[0], torch.full((3,), 1 / 3)
    predictive = Classification(
        torch.stack([sure, sure, torn, torn + torch.tensor([0.02, -0.01, -0.01])]).expand(7, 4, 3)
    )
    values, count = figures_classification.scattered(predictive)
    assert count == 105  # the first multiple of 7 functions from 100 on
    assert values[:2].tolist() == [210, 210]  # n (C − 1), exactly
    assert float(values[2:].max()) < 21  # of C − 1 = 2 degrees of freedom: p < 3e-5
    targets = torch.tensor([0, 0, 0, 1])
    left, right = figures_classification.plot_chi_square(predictive, targets).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["right (3)", "wrong (1)"]
    heights = [patch.get_height() for patch in left.patches]
    assert sum(heights) == pytest.approx(2)  # each group sums to 1
    assert [line.get_ydata()[-1] for line in right.lines] == [100, 100]
    assert "A wrong one has the smaller χ² in" in verdicts.scatter(values, predictive, targets)


def test_one_function_has_no_labels_to_scatter():
    assert SCATTER in page("images")
    assert SCATTER not in page("one function")
