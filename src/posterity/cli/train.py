"""`posterity train`: from a configuration to a run directory with a posterior, its scores and a report."""

import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import torch

import posterity
from posterity import Engine, fit
from posterity.cli import config as files
from posterity.cli.config import RunConfig
from posterity.cli.console import Voice, tell
from posterity.cli.directory import MODEL, TWIN, Row, RunDirectory, default_path, replace_finding, seconds_of
from posterity.cli.experiment import Experiment, identity_of, prepare, twin_of
from posterity.cli.flags import ANYWHERE, PLAIN, UNSET, Output, Place, Settings, given
from posterity.cli.merge import merge, refuse_code
from posterity.cli.own import made
from posterity.cli.report import write_report
from posterity.cli.saved import described
from posterity.cli.scoring import Scored, remarks, score, table, tell_remarks
from posterity.cli.usual import usual
from posterity.errors import Interrupted, InvalidInput, NotArrived, PosterityWarning, ScaleWarning
from posterity.methods import as_method
from posterity.posteriors.base import FunctionPosterior


def train(
    data: str | None = None,
    /,
    *,
    settings: Settings = UNSET,
    place: Place = ANYWHERE,
    output: Output = PLAIN,
) -> None:
    """Infer a posterior from a data set, and score it on the test data.

    Parameters
    ----------
    data
        A known data set (posterity data lists them), or your own table (.csv, .tsv, .txt, .data; .parquet, .arrow,
        .feather), .npz, or a folder of pictures.
    """
    values = given(settings)
    if data is not None:
        values["data.name"] = ("DATA", data)
    if place.resume is not None:
        if values or place != Place(resume=place.resume, trust=place.trust):
            extra = next(iter(flag for flag, _ in values.values()), "--config, --out and --force")
            raise InvalidInput(f"--resume takes every setting from {place.resume}/config.toml; leave out {extra}.")
        start(_saved_config(place.resume, place.trust), RunDirectory(place.resume), Voice(output), resume=True)
        return
    file = {} if place.config is None else files.read(place.config)
    directory = None if place.out is None else RunDirectory(place.out)
    config = merge(file, values, str(place.config or "run.toml"))
    refuse_code(config, values, place.trust, str(place.config))
    start(config, directory, Voice(output), force=place.force)


def start(
    config: RunConfig, directory: RunDirectory | None, voice: Voice, *, force: bool = False, resume: bool = False
) -> tuple[RunDirectory, list[Scored]]:
    """Check everything, train, score once on the test data, and leave a complete run directory."""
    if directory is not None:
        directory.refuse_occupied(force or resume)
    experiment = prepare(files.absolute(config), usual)
    config = experiment.config
    Engine(device=config.engine.device)  # refuses a device that is not here
    if directory is None:
        directory = RunDirectory(default_path(config.data.name, str(config.model.name), config.method_name))
    threads = torch.get_num_threads()
    torch.set_num_threads(config.engine.threads or threads)
    try:
        with directory.held(force or resume) as lock:
            if not resume:
                directory.claim()
                files.write(config, directory.config)
            elif not directory.begun():
                voice.note(f"There is no checkpoint in {directory.checkpoints}: the run starts from its beginning.")
            directory.rebuild_log()
            return directory, _train_and_score(experiment, replace(directory, lock=lock), voice, resume)
    except KeyboardInterrupt as error:
        done = str(error).partition(". ")[0] or "Interrupted"
        if not directory.config.exists():  # it was stopped while the directory was made
            raise Interrupted(f"{done}, before anything was trained.") from error
        trust = " --trust" if experiment.spec.imports_code else ""
        command = f"posterity train --resume {directory.path}{trust}"
        raise Interrupted(f"{done}; nothing is lost. Go on with: {command}") from error
    finally:
        torch.set_num_threads(threads)


def _train_and_score(experiment: Experiment, directory: RunDirectory, voice: Voice, resume: bool) -> list[Scored]:
    started = time.perf_counter()
    config, dataset = experiment.config, experiment.dataset
    _introduce(experiment, voice)
    posteriors = [_fit(experiment, directory, voice, MODEL, resume)]
    if config.twin:
        voice.note("Its twin, by maximum likelihood:")
        posteriors.append(_fit(experiment, directory, voice, TWIN, resume))
    voice.note(f"Scoring on {len(dataset.test_inputs):,} test examples, {config.predictive_draws} draws each …")
    scored = [score(posterior, dataset, config.predictive_draws, config.seed) for posterior in posteriors]
    directory.verify()
    if not directory.config.exists():  # without it nobody could open what has been computed
        files.write(config, directory.config)
        voice.say(f"{directory.config} was removed during this run, and is written again.")
    rows = [directory.rows(label) for label in (MODEL, TWIN)[: len(scored)]]
    values = metrics(experiment, scored, rows)
    replace_finding(directory.metrics, values)
    write_report(directory.report, config, dataset, scored, rows)
    voice.table(table(f"{dataset.name}, {len(dataset.test_inputs):,} test examples", scored))
    tell_remarks(voice, scored)
    if advice := collapsed(experiment, scored[0]):
        voice.note(advice)
    voice.say(f"Run     {directory.path}")
    voice.say(f"Report  {directory.report}")
    seconds = time.perf_counter() - started
    voice.result({**values, "directory": str(directory.path), "report": str(directory.report), "wall_seconds": seconds})
    return scored


def _fit(experiment: Experiment, directory: RunDirectory, voice: Voice, which: str, resume: bool) -> FunctionPosterior:
    """Train the model or its twin: both see the same initial weights and the same batches, unless it is an ensemble."""
    config = experiment.config
    engine = Engine(
        device=config.engine.device,
        seed=config.seed,
        precision=config.engine.precision,
        directory=directory.checkpoints / which,
        identity=identity_of(experiment),
        resume=resume,
        progress=not voice.output.quiet,
        on_epoch=directory.on_epoch(which),
        label="twin" if which == TWIN else config.method_name.replace("_", " "),
    )
    with warnings.catch_warnings(), _spoken(once=which != TWIN):
        warnings.simplefilter("ignore", NotArrived)  # its remarks are printed below the scores
        posterior = fit(
            experiment.network,
            experiment.data,
            likelihood=made(config.likelihood),
            prior=made(config.prior),
            where=config.where,
            method=twin_of(config, experiment.data.steps_per_epoch) if which == TWIN else config.method,
            engine=engine,
        )
    directory.verify()
    posterior.provenance.update(described(experiment), posterity=posterity.__version__)
    posterior.save(directory.posterior(which))
    return posterior


@contextmanager
def _spoken(once: bool) -> Iterator[None]:
    """Say what fit remarks of scales before it trains as lines, also under --quiet; inside `catch_warnings`."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if issubclass(category, PosterityWarning):
            tell(f"Note: {message}")
        else:
            others(message, category, *rest)

    warnings.simplefilter("always", PosterityWarning)
    warnings.simplefilter("always" if once else "ignore", ScaleWarning)  # the twin sees the same data
    warnings.showwarning = show  # type: ignore[assignment]  # the rest is handed on as it came
    yield


def collapsed(experiment: Experiment, scored: Scored) -> str:
    """Say what to try where a posterior of classes predicts no better than guessing: it has fallen back to its prior."""
    classes = experiment.dataset.num_classes
    member = experiment.config.member
    if not classes or scored.scores["nll"] < 0.95 * log(classes) or not member.epochs:
        return ""
    steps = experiment.data.steps_per_epoch * member.epochs
    return (
        f"Note: this predicts no better than guessing; {steps:,} steps were too few to leave the prior. Try "
        "--method.kl-schedule warmup, more --epochs, a larger --lr or a smaller --batch."
    )


def metrics(experiment: Experiment, scored: Sequence[Scored], rows: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Return what metrics.json holds."""
    config = experiment.config
    found = {label: _metrics(s, r) for label, s, r in zip((MODEL, TWIN), scored, rows, strict=False)}
    return {
        **found,
        "data": {"name": experiment.dataset.name, "source": dict(experiment.dataset.source)},
        "seed": config.seed,
        "num_train": experiment.data.num_data,
        "num_test": len(experiment.dataset.test_inputs),
        "versions": {
            "posterity": posterity.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
            "device": config.engine.device,
        },
    }


def _metrics(scored: Scored, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "method": scored.posterior.provenance["method"]["kind"],
        "test": scored.scores,
        "remarks": remarks(scored),
        "temperature": scored.temperature,
        "joint_temperature": scored.joint_temperature,
        "parameters": scored.parameters,
        "draws": scored.draws,
        "epochs": len(rows),
        "seconds": seconds_of(rows),
    }


def _introduce(experiment: Experiment, voice: Voice) -> None:
    config, data = experiment.config, experiment.data
    held_out = 0 if data.held_out is None else len(data.held_out[0])
    for note in experiment.dataset.notes:
        voice.note(note)
    name = as_method(config.method).title
    part = f", {experiment.random:,} of them random," if config.where else ""
    voice.note(
        f"{name}: {config.model.name} with {experiment.parameters:,} weights{part} on {experiment.dataset.name}; "
        f"{data.num_data:,} examples to train on, {held_out:,} held out."
    )


def _saved_config(directory: Path, trust: bool) -> RunConfig:
    run = RunDirectory(directory)
    if not run.config.is_file():
        raise InvalidInput(f"--resume {directory}: there is no config.toml in it, so it is no run's directory.")
    config = merge(files.read(run.config), {}, str(run.config))
    refuse_code(config, {}, trust, str(run.config))
    return config
