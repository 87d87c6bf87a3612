"""`posterity report`, and the report that every run ends with."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from torch import Tensor

import posterity
from posterity.cli.config import RunConfig
from posterity.cli.console import Voice
from posterity.cli.directory import MODEL, TWIN, Row, findings, replace_finding, seconds_of
from posterity.cli.elsewhere import opened
from posterity.cli.flags import BY_ITSELF, PLAIN, Output, Source, given
from posterity.cli.own import Named
from posterity.cli.saved import Saved, scored_data
from posterity.cli.scoring import Scored, remarks, score, tell_remarks
from posterity.data import Dataset
from posterity.errors import InvalidInput
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.report.cells import Cells
from posterity.report.data import LearntLatent, Model, ReportData
from posterity.report.effects import effects
from posterity.storage import keep_as, refuse_links, replacing
from posterity.train import lock


def report(
    run: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(metavar="FILE", help="Of a file: the page. [report-FILE.html]")] = None,
    trust: Annotated[bool, Parameter(negative="", help="Run the code of a module:callable network.")] = False,
    source: Source = BY_ITSELF,
    output: Output = PLAIN,
) -> None:
    """Write a run's report.html anew, or a page on a file that no run wrote, which has no log to show.

    Parameters
    ----------
    run
        A run directory, or a file: a posterior, or a plain network's weights.
    """
    voice, saved = Voice(output), opened(run, source, trust)
    if saved.directory is not None and out is not None:
        raise InvalidInput(f"--out {out}: a run's report is in its directory, {saved.directory.report}.")
    dataset = scored_data(saved)
    scored = _scored(saved, dataset)
    if saved.directory is not None:
        with _alone_in(saved, voice):
            path = _of_run(saved, dataset, scored)
    else:
        path = _alone(saved, run, out or Path(f"report-{run.stem}.html"), source)
    tell_remarks(voice, scored)
    voice.say(str(path))
    voice.result({"report": str(path)})


def rewrite(saved: Saved) -> Path:
    """Write the report of a run's directory anew, from its posteriors, its log and what was found since."""
    dataset = scored_data(saved)
    return _of_run(saved, dataset, _scored(saved, dataset))


def _scored(saved: Saved, dataset: Dataset) -> list[Scored]:
    posteriors = [p for p in (saved.posterior, saved.twin) if p is not None]
    return [score(p, dataset, saved.config.predictive_draws, saved.config.seed) for p in posteriors]


def _of_run(saved: Saved, dataset: Dataset, scored: Sequence[Scored]) -> Path:
    assert saved.directory is not None
    rows = [saved.directory.rows(label) for label in (MODEL, TWIN)[: len(scored)]]
    return write_report(saved.directory.report, saved.config, dataset, scored, rows)


def _alone(saved: Saved, file: Path, path: Path, source: Source) -> Path:
    """Write the page of a lone file."""
    if path.suffix.lower() != ".html":
        raise InvalidInput(f"--out {path}: a page ends in .html.")
    dataset, config = scored_data(saved), saved.config
    scored = score(saved.posterior, dataset, config.predictive_draws, config.seed)
    flags = " ".join(f"{flag} {value}" for flag, value in given(source).values())
    name = str(config.model.name)
    page = replace(
        _page(name, dataset, [scored], [[]], config.seed),
        settings=_known(saved, scored) if saved.from_run is False else _settings(config, scored),
        command=f"posterity report {file} {flags}".strip(),
    )
    try:
        return _written(page, path)
    except OSError as error:
        raise InvalidInput(f"--out {path} cannot be written: {error.strerror}. Choose another file.") from error


def keep(saved: Saved, name: str, values: Mapping[str, Any], voice: Voice) -> None:
    """Keep what a command found in the run's directory, and show it in the report; a lone posterior file has neither."""
    if saved.directory is not None:
        with _alone_in(saved, voice):
            _replace(saved.directory.finding(name), values, voice)
            voice.note("Writing its section of the report …")
            rewrite(saved)
        voice.say(f"Report  {saved.directory.report}")


@contextmanager
def _alone_in(saved: Saved, voice: Voice) -> Iterator[None]:
    """Hold a run's directory while something is written to it: the last of two writers has then seen what the first wrote.

    Raises:
        InvalidInput: where the run is another one since it was read, and what was found is not of it.
    """
    assert saved.directory is not None
    saved.refuse_replaced()
    with lock.awaited(saved.directory.path, voice.note):
        saved.refuse_replaced()
        refuse_links(saved.directory.path)
        yield


def _replace(path: Path, values: Mapping[str, Any], voice: Voice) -> None:
    """Write what was found. Something else that was found before is kept, once there is space for both."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as part:
        replace_finding(part, values)
        if path.exists() and path.read_bytes() != part.read_bytes():
            voice.note(f"What was found before is kept as {_kept_aside(path)}")


def _kept_aside(path: Path) -> Path:
    """Keep an earlier finding: findings/earlier/NAME-1.json, NAME-2.json, …"""
    folder = path.parent / "earlier"
    folder.mkdir(exist_ok=True)
    number = next(n for n in count(1) if not (folder / f"{path.stem}-{n}.json").exists())
    keep_as(path, earlier := folder / f"{path.stem}-{number}.json")
    return earlier


def write_report(
    path: Path, config: RunConfig, dataset: Dataset, scored: Sequence[Scored], rows: Sequence[Sequence[Row]]
) -> Path:
    """Write the page for a model, and its twin where there is one, with the log of each."""
    page = replace(
        _page(str(config.model.name), dataset, scored, rows, config.seed),
        settings=_settings(config, scored[0]),
        command=f"posterity train --config {path.parent / 'config.toml'}",
        findings=findings(path.parent),
    )
    return _written(page, path)


def _written(page: ReportData, path: Path) -> Path:
    from posterity.report import write  # matplotlib is slow to load

    return write(page, path)


def _page(
    network: str, dataset: Dataset, scored: Sequence[Scored], rows: Sequence[Sequence[Row]], seed: int
) -> ReportData:
    """Put together what a page shows, whatever it was made by."""
    models = [
        Model(s.name, s.predictive, s.scores, list(r), s.parameters, seconds_of(r), s.draws, tuple(remarks(s)))
        for s, r in zip(scored, rows, strict=True)
    ]
    inputs, targets = _original(dataset)
    return ReportData(
        title=f"{dataset.name}: {network}",
        task=dataset.task,
        inputs=inputs,
        targets=targets,
        bayesian=models[0],
        twin=models[1] if len(models) > 1 else None,
        classes=dataset.classes,
        features=dataset.features,
        notes=dataset.notes,
        signal_to_noise=_signal_to_noise(scored[0].posterior),
        latents=_latents(scored[0].posterior),
        cells=Cells.of(dataset),
        effects=effects(scored[0].posterior, dataset, scored[0].predictive, seed),
    )


def _original(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Return test inputs and targets in the units of the data set."""
    scaling = dataset.scaling
    if scaling is None:
        return dataset.test_inputs, dataset.test_targets
    inputs = dataset.test_inputs * scaling.input_std + scaling.input_mean
    return inputs, dataset.test_targets if dataset.classes else scaling.restore_targets(dataset.test_targets)


def _settings(config: RunConfig, scored: Scored) -> dict[str, str]:
    member = config.member
    values: dict[str, Any] = {
        "Data": config.data.name,
        "Network": config.model.name,
        "Prior": words(config.prior),
        "Random": config.where if isinstance(config.where, str | None) else ", ".join(config.where),
        "Likelihood": words(config.likelihood),
        "Method": scored.name,
        "Estimator": getattr(member, "estimator", None),
        **scored.tempered,
        "Epochs": getattr(member, "epochs", None),
        "Batch": config.data.batch_size,
        "Augmentation": "flips and shifts" if config.data.augment else None,
        "Learning rate": member.pace,
        "Seed": config.seed,
        "Versions": f"posterity {posterity.__version__}, torch {torch.__version__}",
    }
    return {key: str(value) for key, value in values.items() if value is not None}


def _known(saved: Saved, scored: Scored) -> dict[str, str]:
    """Return the settings that a file from elsewhere tells; of its training there are none."""
    problem = saved.posterior.problem
    values = {
        "Data": saved.config.data.name,
        "Network": str(saved.config.model.name),
        "Prior": words(problem.prior),
        "Likelihood": words(problem.likelihood),
        "Method": scored.name,
        **scored.tempered,
        "Seed": str(saved.config.seed),
        "Versions": f"posterity {posterity.__version__}, torch {torch.__version__}",
    }
    return values if scored.posterior.kind != "point" else {k: v for k, v in values.items() if k != "Prior"}


def words(noun: Any) -> str:
    """Write a prior or likelihood as its name and fields, and so on inwards; a switch that is off is left out.

    >>> from posterity import Hierarchical
    >>> words(Hierarchical(per="layer", centered=False))
    'hierarchical (family normal, scale half_normal (std 1), per layer, not centered, name scale)'
    """
    if isinstance(noun, Mapping):
        return ", ".join(f"{key}: {words(value)}" for key, value in noun.items())
    if isinstance(noun, tuple):
        return ", ".join(map(words, noun))
    if isinstance(noun, type | Named) or not is_dataclass(noun):
        return f"{noun:g}" if isinstance(noun, float) else str(noun)
    parts = [
        _field(f.name.replace("_", " "), getattr(noun, f.name), f.default) for f in fields(noun) if f.name != "kind"
    ]
    kind = str(getattr(noun, "kind", type(noun).__name__))
    return f"{kind} ({', '.join(filter(None, parts))})" if any(parts) else kind


def _field(name: str, value: Any, default: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"not {name}" if default is True else ""
    return "" if value is None else f"{name} {words(value)}"


def _latents(posterior: FunctionPosterior) -> dict[str, LearntLatent]:
    own = posterior.problem.coordinates.latents
    return {name: LearntLatent(found.draws, own[name]) for name, found in posterior.latents.items()}


def _signal_to_noise(posterior: FunctionPosterior) -> Tensor | None:
    found = [part.signal_to_noise() for part in posterior.leaves if isinstance(part, DiagonalGaussian)]
    return torch.cat(found) if found else None
