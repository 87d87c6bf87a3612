"""Simulated active learning, a curve per score and seed: each fit is kept as soon as it is there."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from torch import Tensor

from posterity.bench.machine import provenance
from posterity.bench.study import read, write
from posterity.cli.config import RunConfig
from posterity.cli.console import Voice
from posterity.cli.experiment import Experiment, prepare
from posterity.cli.flags import OUTPUT
from posterity.cli.own import made
from posterity.decide.acquire import CLASS_SCORES, VALUE_SCORES
from posterity.decide.simulate import Fit, Pair, Plan, Round, labels_needed, simulate
from posterity.errors import Interrupted, InvalidInput, unknown
from posterity.fitting import fit
from posterity.methods.records import lengthened
from posterity.posteriors.base import FunctionPosterior
from posterity.text import file_name
from posterity.train.batches import TensorData
from posterity.train.engine import Engine
from posterity.train.random import derived_seed

TARGET = 0.95
BATCH = 64


@Parameter(name="*")
@dataclass(frozen=True)
class Study:
    """What is simulated."""

    scores: Annotated[
        tuple[str, ...],
        Parameter(negative="", consume_multiple=True, metavar="NAME", help="To compare. [bald random]"),
    ] = ()
    seeds: Annotated[int, Parameter(metavar="INT", help="Curves of each score. [3]")] = 3
    start: Annotated[int, Parameter(metavar="INT", help="Labels to begin with, of random inputs. [20]")] = 20
    buy: Annotated[int, Parameter(metavar="INT", help="Labels bought between two fits. [10]")] = 10
    labels: Annotated[int, Parameter(metavar="INT", help="Labels at the end. [200]")] = 200
    steps: Annotated[
        int,
        Parameter(
            metavar="INT",
            help="Of training, for each fit; unless you say otherwise by Monte Carlo dropout of rate 0.25, learning rate "
            "0.002, prior std 1. [300]",
        ),
    ] = 300
    pool_size: Annotated[int | None, Parameter(metavar="INT", help="Training inputs in the pool. [all]")] = None
    candidates: Annotated[
        int | None, Parameter(metavar="INT", help="Inputs looked at before each choice, drawn at random. [all]")
    ] = None
    test_size: Annotated[int | None, Parameter(metavar="INT", help="Test inputs to score on. [all]")] = None
    target: Annotated[
        float | None, Parameter(metavar="NUMBER", help="Count the labels to this accuracy, or RMSE. [0.95; none]")
    ] = None
    out: Annotated[
        Path | None, Parameter(group=OUTPUT, metavar="DIR", help="Folder of the fits. [runs/acquire/DATA-MODEL-METHOD]")
    ] = None


@dataclass(frozen=True)
class Curves:
    """All that was simulated: for each score the rounds of each seed."""

    title: str
    folder: Path
    rounds: Mapping[str, Sequence[Sequence[Round]]]
    scale: float  # of the targets

    def summary(self, target: float | None) -> dict[str, Any]:
        """Return what each score needed and reached, as JSON values, with texts for a table."""
        score = "accuracy" if "accuracy" in next(iter(self.rounds.values()))[0][0].scores else "rmse"
        wanted = TARGET if target is None and score == "accuracy" else target
        lines = {name: _line(seeds, score, wanted) for name, seeds in self.rounds.items()}
        text = "–" if wanted is None else f"{100 * wanted:g} %" if score == "accuracy" else f"RMSE {wanted:g}"
        return {"score": score, "target": wanted, "target_text": text, "scores": lines}


def run_curves(config: RunConfig, study: Study, voice: Voice) -> Curves:
    """Simulate each score with each seed, going on where an earlier call was interrupted.

    Raises:
        InvalidInput: for unknown scores, counts that the data do not allow, and a folder of other settings.
        Interrupted: after Ctrl-C; the message says how to go on.
    """
    model = config.data.model_copy(
        update={"validation": 0.0, "batch_size": min(config.data.batch_size or BATCH, BATCH)}
    )
    experiment = prepare(config.model_copy(update={"data": model, "twin": False}))
    config, dataset = experiment.config, experiment.dataset
    scores = study.scores or (("bald", "random") if dataset.classes else ("variance", "random"))
    for name in scores:
        if name not in (known := CLASS_SCORES if dataset.classes else VALUE_SCORES):
            raise unknown("value for --scores", name, known)
    most = 1.0 if dataset.classes else float("inf")
    if study.target is not None and not 0 < study.target < most:
        raise InvalidInput(f"--target {study.target:g}: an accuracy between 0 and 1, or an RMSE above 0.")
    if study.seeds < 1 or study.steps < 1:
        raise InvalidInput("--seeds and --steps must be at least 1.")
    plan = Plan(scores[0], study.start, study.buy, study.labels, config.predictive_draws, study.candidates)
    stem = "-".join(map(file_name, (dataset.name, str(config.model.name), config.method_name)))
    folder = study.out or Path("runs") / "acquire" / stem
    pool = _some(dataset.train_inputs, dataset.train_targets, study.pool_size, "--pool-size")
    test = _some(dataset.test_inputs, dataset.test_targets, study.test_size, "--test-size")
    if plan.labels > len(pool[0]):
        raise InvalidInput(f"--labels {plan.labels}: the pool has {len(pool[0]):,} inputs.")
    _claim(folder, config, study)
    found: dict[str, list[list[Round]]] = {name: [[] for _ in range(study.seeds)] for name in scores}
    work = [(seed, name) for seed in range(study.seeds) for name in scores]
    try:
        for place, (seed, name) in enumerate(work, 1):
            own = replace(plan, score=name, seed=config.seed + seed)
            path = folder / f"{name}-{own.seed}.json"
            voice.note(f"{place} of {len(work)}: {name}, seed {own.seed}")
            found[name][seed] = _simulated(experiment, study.steps, (pool, test), own, path)
    except KeyboardInterrupt as error:
        done = sum(len(rounds) for seeds in found.values() for rounds in seeds)
        raise Interrupted(
            f"Interrupted; the fits so far are kept in {shlex.quote(str(folder))} ({done} of whole curves). The same command "
            "goes on from there."
        ) from error
    std = 1.0 if dataset.scaling is None or dataset.classes else dataset.scaling.target_std
    title = f"{dataset.name}, {config.model.name}, {config.method_name.replace('_', ' ')}: pool of {len(pool[0]):,}"
    return Curves(title, folder, _in_units(found, std), std)


def read_curves(folder: Path) -> dict[str, list[list[Round]]]:
    """Read the curves in a folder, by score, seeds in their order."""
    found: dict[str, list[list[Round]]] = {}
    for path in sorted(
        folder.glob("*-*.json"), key=lambda p: (p.stem.rpartition("-")[0], int(p.stem.rpartition("-")[2]))
    ):
        found.setdefault(path.stem.rpartition("-")[0], []).append(_rounds(path))
    return found


def even_batch(count: int, most: int) -> int:
    """Return the batch size that makes batches of equal size: of 130 with 64 at most, a last one of 2 would weigh as much.

    >>> [even_batch(n, 64) for n in (20, 64, 130)]
    [20, 64, 44]
    """
    return -(-count // -(-count // most))


def fits(experiment: Experiment, steps: int, seed: int) -> Fit:
    """Return what trains the experiment's network, from fresh weights, with the labels that are there."""
    config = experiment.config

    def one(inputs: Tensor, targets: Tensor, index: int) -> FunctionPosterior:
        own = derived_seed(seed, "acquire", index)
        data = TensorData(inputs, targets, even_batch(len(inputs), config.data.batch_size or BATCH))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(own)
            network = experiment.spec.build()
        engine = Engine(device=config.engine.device, seed=own, precision=config.engine.precision, progress=False)
        method = lengthened(config.method, -(-steps // data.steps_per_epoch))
        return fit(
            network,
            data,
            likelihood=made(config.likelihood),
            prior=made(config.prior),
            where=config.where,
            method=method,
            engine=engine,
        )

    return one


def _simulated(experiment: Experiment, steps: int, data: tuple[Pair, Pair], plan: Plan, path: Path) -> list[Round]:
    """Go on with one curve to its end; each round is written when it is there."""
    rounds = _rounds(path) if path.exists() else []
    for entry in simulate(fits(experiment, steps, plan.seed), *data, plan, rounds):
        rounds.append(entry)
        write(path, {"score": plan.score, "seed": plan.seed, "rounds": [asdict(r) for r in rounds], **provenance()})
    return rounds


def _rounds(path: Path) -> list[Round]:
    return [Round(r["labels"], tuple(r["chosen"]), r["scores"]) for r in read(path)["rounds"]]


def _claim(folder: Path, config: RunConfig, study: Study) -> None:
    """Write down what the curves of a folder are of, and refuse others."""
    own = {name: value for name, value in asdict(study).items() if name not in ("scores", "seeds", "target", "out")}
    settings = {"study": own, "config": config.model_dump(mode="json")}
    path = folder / "settings.json"
    if path.exists() and read(path) != settings:
        raise InvalidInput(f"{folder} holds curves of other settings; choose another --out, or delete it.")
    write(path, settings)


def _some(inputs: Tensor, targets: Tensor, count: int | None, flag: str) -> Pair:
    """Draw a part of the data, the same one for all seeds."""
    if count is None or count == len(inputs):
        return inputs, targets
    if not 1 <= count <= len(inputs):
        raise InvalidInput(f"{flag} {count}: there are {len(inputs):,}; expected 1 to {len(inputs):,}.")
    some = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:count]
    return inputs[some], targets[some]


def _in_units(found: Mapping[str, Sequence[Sequence[Round]]], std: float) -> dict[str, list[list[Round]]]:
    """Bring RMSE and NLL of standardised targets to original units."""
    if std == 1.0:
        return {name: [list(rounds) for rounds in seeds] for name, seeds in found.items()}
    shift = float(torch.tensor(std, dtype=torch.float64).log())

    def own(entry: Round) -> Round:
        return replace(
            entry, scores={k: v * std if k in ("rmse", "pinball") else v + shift for k, v in entry.scores.items()}
        )

    return {name: [[own(r) for r in rounds] for rounds in seeds] for name, seeds in found.items()}


def _line(seeds: Sequence[Sequence[Round]], score: str, target: float | None) -> dict[str, Any]:
    needed = [None if target is None else labels_needed(rounds, target, score) for rounds in seeds]
    last, nll = ([rounds[-1].scores[key] for rounds in seeds] for key in (score, "nll"))
    reached = [float(n) for n in needed if n is not None]
    if target is None:
        text = "–"
    elif len(reached) < len(needed):
        text = f"{len(reached)} of {len(needed)} reach it"
    else:
        text = _spread(reached, 1.0, 0)
    percent = score == "accuracy"
    return {
        "seeds": len(seeds),
        "labels_needed": needed,
        "last": last,
        "nll": nll,
        "needed_text": text,
        "score_text": _spread(last, 100.0 if percent else 1.0, 2) + (" %" if percent else ""),
        "nll_text": _spread(nll, 1.0, 3),
    }


def _spread(values: Sequence[float], scale: float, digits: int) -> str:
    deviation = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * statistics.mean(values):.{digits}f}{deviation}"
