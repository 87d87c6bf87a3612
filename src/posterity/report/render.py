"""From data to one self-contained page: no script, no network, no second file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from posterity.errors import InvalidInput
from posterity.metrics.selective import error_auroc
from posterity.predict.predictive import Classification
from posterity.report import summary
from posterity.report.data import Model, ReportData
from posterity.report.sections import sections
from posterity.storage import replace_text
from posterity.text import visible


def render(data: ReportData) -> str:
    """Return the report as HTML: figures are inline SVG, images inline PNG, everything written is escaped."""
    models = [_with_error_detection(model, data) for model in data.models]
    return fill(
        "template.html.j2",
        data=data,
        headline=headline(data),
        numbers=summary.numbers(data),
        table=summary.table(models, data.task),
        sections=sections(data),
    )


def fill(template: str, **values: Any) -> str:
    """Return a page of this package's templates, filled with values, all of which are escaped and none of which hides."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    options = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    options["finalize"] = lambda value: visible(value, keep="\n") if type(value) is str else value  # Markup is ours
    environment = Environment(loader=PackageLoader("posterity.report", ""), **options)
    page: str = environment.get_template(template).render(**values)
    return page


def write(data: ReportData, path: str | Path) -> Path:
    """Write the report to a file, whole or not at all; return its path. Raises `InvalidInput` where it cannot be written."""
    return write_page(render(data), path)


def write_page(page: str, path: str | Path) -> Path:
    """Write a page to a file, whole or not at all; return its path. Raises `InvalidInput` where it cannot be written."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_text(target, page)
    except OSError as error:
        raise InvalidInput(f"Cannot write the report to {target}: {error.strerror or error}.") from error
    return target


def headline(data: ReportData) -> str:
    """Say in one plain sentence what was learnt, and how well."""
    model, scores, count = data.bayesian, data.bayesian.scores, f"{len(data.targets):,}"
    what = f"{model.name}, averaged over {model.num_draws} drawn networks," if model.num_draws > 1 else model.name
    if data.task == "classification":
        told = f"names the right class for {summary.percent(scores['accuracy'])} of {count} inputs that it had not seen"
    elif "rmse" in scores:
        told = f"predicts {count} targets that it had not seen with a typical error of {summary.digits(scores['rmse'])}"
    else:
        key, name = ("nll", "an NLL") if "nll" in scores else ("pinball", "a mean pinball loss")
        told = f"predicts {count} targets that it had not seen with {name} of {summary.digits(scores[key])}"
    return f"{what} {told}."


def _with_error_detection(model: Model, data: ReportData) -> Model:
    """Add to a classification's scores how well its entropy finds its mistakes."""
    if not isinstance(model.predictive, Classification):
        return model
    right = model.predictive.labels.cpu() == data.targets.cpu()
    auroc = error_auroc(model.predictive.entropy, right)
    return replace(model, scores={**model.scores, "error_auroc": auroc})
