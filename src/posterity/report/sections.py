"""The parts of a report: each a title, how to read it, what it says, and its figures."""

from collections.abc import Mapping

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from posterity.metrics.calibration import coverage_curve
from posterity.predict.predictive import Classification, General, Quantiles, Regression
from posterity.report import figures_classification as classes
from posterity.report import figures_columns, findings, gallery, verdicts
from posterity.report import figures_latents as unknowns
from posterity.report import figures_regression as values
from posterity.report.data import LearntLatent, ReportData
from posterity.report.figures_training import plot_signal_to_noise, plot_training
from posterity.report.section import Section
from posterity.report.style import svg
from posterity.types import LIKELIHOOD, PRIOR


def sections(data: ReportData) -> tuple[Section, ...]:
    """Return the sections of a report, in order."""
    match data.bayesian.predictive:
        case Classification():
            middle = _classification(data)
        case Quantiles():
            middle = _quantiles(data)
        case Regression() | General():
            middle = _regression(data)
    return (
        *_arrival(data),
        *_data(data),
        *_training(data),
        *middle,
        *figures_columns.sections(data),
        *_latents(data),
        *_weights(data),
        *findings.sections(data.findings),
    )


def _arrival(data: ReportData) -> tuple[Section, ...]:
    """Say before all else where a fit ended too early, at its prior, or ran away."""
    said = [f"{model.name}: {remark}" for model in data.models for remark in model.remarks]
    if not said:
        return ()
    reading = (
        "A fit watches itself: whether its objective still fell, whether stds, noise and scales had left their start and "
        "come to rest, and what its predictions know of the training data. Read what follows as the result of a fit that "
        "had not arrived."
    )
    return (Section("This fit has not arrived", reading, "\n".join(said)),)


def _data(data: ReportData) -> tuple[Section, ...]:
    """Say what was left out of the data, and which of their files are not the published ones."""
    if not data.notes:
        return ()
    reading = (
        "How a table was read. Contents of known files are compared with the checksums that are given where they come from; "
        "columns that say nothing, and known flaws, are left out. Scores on other files are not those of the published data "
        "set."
    )
    return (Section("The data", reading, "\n".join(data.notes)),)


def _training(data: ReportData) -> tuple[Section, ...]:
    if not data.bayesian.history:
        return ()
    score = "accuracy" if data.task == "classification" else "rmse"
    figure = svg(plot_training(data.models, score), f"Training curves: objective, NLL and {score} by epoch.")
    reading = (
        "The objective −ELBO is the misfit E[NLL] plus KL / N, the price of moving away from the prior (times the "
        "temperature). Validation data took no part in the fit: where its curve (solid) turns up while that of the "
        "training data (dotted) falls, the model over-fits."
    )
    verdict = "\n".join(filter(None, map(verdicts.training, data.models)))
    return (Section("Training", reading, verdict, (figure,)),)


def _weights(data: ReportData) -> tuple[Section, ...]:
    if data.signal_to_noise is None or not data.signal_to_noise.numel():
        return ()
    figure = svg(plot_signal_to_noise(data.signal_to_noise), "Histogram of log10 of |mean| over std of every weight.")
    reading = (
        "Every weight has a mean μ and a standard deviation σ. To the right, the data fixed the weight; to the left, "
        "it is mostly noise, and a candidate for pruning (Graves, 2011; Blundell et al., 2015)."
    )
    return (
        Section(
            "What the weights know", reading, verdicts.signal_to_noise(data.signal_to_noise), (figure,), beside=True
        ),
    )


def _latents(data: ReportData) -> tuple[Section, ...]:
    """Show the scales of a prior (as latents, or fitted by empirical Bayes) and the noise of a likelihood."""
    stds = unknowns.learnt_stds(data.bayesian.history)
    fitted = (
        (svg(unknowns.plot_learnt_prior(stds), "The prior's std of each group of weights by epoch."),) if stds else ()
    )
    parts = [_latent_figures(data.latents, start) for start in (PRIOR, LIKELIHOOD)]
    if not (fitted or any(parts)):
        return ()
    verdict = "\n".join((*verdicts.learnt_stds(stds), *verdicts.latents(data.latents)))
    title = "What the prior learnt" if fitted or parts[0] else "How noisy the targets are"
    dims = {latent.draws.dim() for latent in data.latents.values()}
    reading = " ".join(
        text for text, told in ((_READ_FITTED, fitted), (_READ_LATENTS, 1 in dims), (_READ_ROWS, dims - {1})) if told
    )
    return (Section(title, reading, verdict, (*fitted, *parts[0], *parts[1])),)


_READ_FITTED = (
    "Empirical Bayes: after each epoch the prior's std of a group of weights was set to what fits them best; from the "
    "network's first layer (light) to its last (dark). A std that falls towards 0 switches its group off."
)
_READ_LATENTS = (
    "Unknowns inferred together with the weights, with their mean and the interval that holds 90 %. Grey: what was thought "
    "before the data; blue: what is thought now, each drawn to its own height. The narrower blue is, the more the data said. "
    "Noise is in the units that the network was trained in, which for a table are standardised."
)
_READ_ROWS = (
    "Where each row of a tensor has its own scale, they are sorted: the mean, and the interval that holds 90 %."
)


def _latent_figures(latents: Mapping[str, LearntLatent], start: str) -> tuple[Markup, ...]:
    """Draw the latents of the prior, or of the likelihood: numbers in one figure, vectors in another."""
    own = {n.removeprefix(start): latent for n, latent in latents.items() if n.startswith(start)}
    common, named = unknowns.short_names(own)
    axis = f"{start}{common}".rstrip(".")
    single = {n: latent for n, latent in named.items() if latent.draws.dim() == 1}
    several = {n: latent for n, latent in named.items() if latent.draws.dim() > 1}
    figures = []
    if single:
        figures.append(svg(unknowns.plot_latents(single, axis), f"Posterior and prior density of each {axis}."))
    if several:
        figures.append(svg(unknowns.plot_rows(several, axis), f"Sorted means and 90 percent intervals of each {axis}."))
    return tuple(figures)


def _classification(data: ReportData) -> tuple[Section, ...]:
    found = {m.name: m.predictive for m in data.models if isinstance(m.predictive, Classification)}
    bayesian, y = found[data.bayesian.name], data.targets
    calibration = Section(
        "Do its probabilities keep their promise?",
        "Points on the dashed line are honest: of the predictions made at 80 % confidence, 80 % are right. Points below "
        "it promise too much. Bars are 90 % intervals: a bin with few predictions (below, log scale) says little.",
        "\n".join(verdicts.calibration(name, predictive, y) for name, predictive in found.items()),
        (svg(classes.plot_reliability(found, y), "Reliability diagram: accuracy against confidence, with counts."),),
        beside=len(found) == 1,
    )
    doubt = Section(
        "Does it know when it is wrong?",
        "Useful uncertainty is low on right predictions (grey) and high on wrong ones (red). Entropy counts every doubt; "
        "mutual information only the disagreement of the drawn functions, which more data would settle.",
        verdicts.error_detection(bayesian, y),
        (svg(classes.plot_uncertainty(bayesian, y), "Histograms of uncertainty for right and for wrong predictions."),),
    )
    referral = Section(
        "If a person took the hardest cases",
        "From left to right the most uncertain inputs are handed over; the steeper the curve, the better the uncertainty.",
        verdicts.referral(bayesian, y),
        (svg(classes.plot_referral(found, y), "Accuracy on the rest against the share of inputs referred."),),
        beside=True,
    )
    groups = gallery.classification_groups(data.inputs, bayesian, y, data.classes, _columns(data))
    return (
        calibration,
        _confusion(bayesian, data),
        doubt,
        *_scatter(bayesian, y),
        referral,
        Section("Single inputs", _READ_CLASSES, groups=groups),
    )


def _confusion(bayesian: Classification, data: ReportData) -> Section:
    picture = classes.plot_confusion(bayesian.labels, data.targets, data.classes)
    return Section(
        "What it takes for what",
        "Rows are the true class, columns the predicted one. Blue is right; red is wrong, darker for a larger share.",
        verdicts.mistakes(bayesian, data.targets, data.classes),
        (svg(picture, "Confusion matrix of true and predicted class."),),
        beside=True,
    )


def _scatter(bayesian: Classification, targets: Tensor) -> tuple[Section, ...]:
    """Show how evenly drawn labels are spread; one function alone has no draws."""
    if len(bayesian.probs) < 2:
        return ()
    figure = svg(
        classes.plot_chi_square(bayesian, targets), "Histogram and cumulative share of χ², right against wrong."
    )
    verdict = verdicts.scatter(classes.scattered(bayesian)[0], bayesian, targets)
    return (Section("Do its labels scatter where it is wrong?", _READ_SCATTER, verdict, (figure,)),)


_READ_SCATTER = (
    "For each input labels are drawn, equally many from every function, and counted: χ² says how far the counts are from even. "
    "It is largest where all labels are equal. Useful uncertainty leaves the right predictions (grey) at the right end and "
    "draws the wrong ones (red) to the left."
)


_READ_CLASSES = (
    "Blue: mean probability of a class in %, with a line for its 90 % interval over the drawn functions; the true class is "
    "in bold. Beside it the variance of that class: aleatoric (green, noise in the data) and epistemic (plum, the "
    "functions disagree). Entropy and mutual information in nats."
)


def _regression(data: ReportData) -> tuple[Section, ...]:
    mean, std = data.target_scaling or (0.0, 1.0)
    found = {
        m.name: _one_target(m.predictive.rescale(mean, std))
        for m in data.models
        if not isinstance(m.predictive, Classification)
    }
    y = data.targets.flatten() * std + mean
    bayesian = found[data.bayesian.name]
    bands = values.Bands.of(bayesian)
    if not np.isfinite(bands.std).all():
        return (Section("Predictions and their bands", "", "Some inputs have no variance in this family: no bands."),)
    alone = data.targets.numel() == len(data.targets)
    fit = _fit(data.inputs, bands, y) if alone and data.inputs.numel() == len(data.inputs) else ()
    prediction = Section(
        "Predictions and their bands",
        "Points on the dashed line are exact, and nine in ten bands should cross it. The errors' size should follow the "
        "predicted standard deviation (dashed); their mean should be 0 whatever is predicted.",
        verdicts.residuals(bands.std, bands.mean - values.numbers(y)),
        (
            svg(values.plot_predicted(bands, y), "True against predicted values with 90 percent bands."),
            svg(values.plot_residuals(bands, y), "Absolute error against predicted standard deviation."),
            svg(values.plot_errors(bands, y), "Error against predicted mean."),
        ),
    )
    groups = gallery.regression_groups(data.inputs, bands, y, _columns(data)) if alone else ()
    reading = "The widest and the narrowest predictions; red where the target is outside its 90 % interval."
    single = (Section("Single inputs", reading, groups=groups),) if groups else ()
    return (*fit, prediction, _bands(found, y, bands), *single)


def _quantiles(data: ReportData) -> tuple[Section, ...]:
    """Say how many targets lie below each quantile: all that a loss of quantiles promises."""
    pairs = [(model.name, model.predictive) for model in data.models]
    said = [verdicts.below(name, found, data.targets) for name, found in pairs if isinstance(found, Quantiles)]
    reading = (
        "The run learnt quantiles by their pinball loss, which is no density: there is no NLL, no mean and no variance. Of the "
        "quantile 0.05, 5 % of the targets should lie below it."
    )
    return (Section("Are the quantiles where they should be?", reading, "\n".join(said)),)


def _fit(inputs: Tensor, bands: values.Bands, targets: Tensor) -> tuple[Section, ...]:
    figure = svg(values.plot_fit(inputs.flatten(), bands, targets), "The fit with bands, and the test targets.")
    reading = (
        "Nine in ten targets should lie in the wide band. The inner band is where the function itself may run: it opens "
        "where there are no data."
    )
    return (Section("The fit", reading, "", (figure,)),)


def _bands(found: Mapping[str, Regression | General], y: Tensor, bands: values.Bands) -> Section:
    """Show whether intervals hold what they say, and where their width comes from."""
    ninety = torch.tensor([0.9])
    whole = all(isinstance(one, General) for one in found.values()) and bool((y == y.round()).all())
    more = "of whole numbers it holds more, as no end lies between two; " if whole else ""
    return Section(
        "Are the bands as wide as they should be?",
        f"First: an interval of level 90 % should hold 90 % of the targets; {more}a curve below the dashed line has too narrow "
        "bands. Second: where the width comes from, noise in the data or ignorance of the function.",
        "\n".join(
            verdicts.coverage(name, coverage_curve(p, y, ninety).coverage.item(), len(y)) for name, p in found.items()
        ),
        (
            svg(values.plot_coverage(found, y), "Observed against nominal coverage of central intervals."),
            svg(values.plot_parts(bands), "Histograms of aleatoric and epistemic standard deviation."),
        ),
    )


def _columns(data: ReportData) -> gallery.Columns:
    """Choose what is shown of a single input that is no image: of a table the columns that did most."""
    first = () if data.effects is None else [one.name for one in data.effects.importances]
    return gallery.shown_columns(data.inputs, data.cells, first)


def _one_target(predictive: Regression | General) -> Regression | General:
    """Return every target of every input as an example of its own."""
    if isinstance(predictive, General):  # of a table, which has one
        return predictive
    own = predictive.function_variances
    flat = own.flatten(1) if isinstance(own, Tensor) else own
    return Regression(predictive.means.flatten(1), predictive.noise.flatten(1), flat)
