"""`posterity acquire`: which inputs to label next, and learning curves that say what choosing well is worth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from posterity.cli.console import Voice, grid
from posterity.cli.curves import Curves, Study, run_curves
from posterity.cli.flags import AS_TRAINED, PLAIN, UNSET, Output, Settings, Use, given
from posterity.cli.inputs import read_inputs
from posterity.cli.merge import merge
from posterity.cli.saved import open_run
from posterity.decide.acquire import CLASS_SCORES, VALUE_SCORES, ranked
from posterity.decide.anomaly import uncertainty
from posterity.errors import InvalidInput, unknown
from posterity.predict.predictive import Classification, classes_or_values
from posterity.train.random import derived_seed


@Parameter(name="*")
@dataclass(frozen=True)
class Pool:
    """Inputs without labels, and the run that looks at them."""

    run: Annotated[
        Path | None, Parameter(metavar="RUN", help="Choose with this trained run, instead of simulating.")
    ] = None
    pool: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="", consume_multiple=True, metavar="FILE", help="Inputs to choose from: images, tables, .npy."
        ),
    ] = ()
    n: Annotated[int, Parameter(name=("-n", "--n"), metavar="INT", help="How many to choose. [10]")] = 10
    score: Annotated[str | None, Parameter(metavar="NAME", help="What to choose by. [bald; of values variance]")] = None
    invert: Annotated[
        bool, Parameter(negative="", help="Images are dark on light; the network learnt light on dark.")
    ] = False


ANY, STUDY = Pool(), Study()
DROPOUT: dict[str, tuple[str, object]] = {  # what a few dozen labels can be fitted with, quickly
    "method.kind": ("--method", "mc_dropout"),
    "method.rate": ("--method.rate", "0.25"),
    "method.optimizer.lr": ("--lr", "0.002"),
}


def acquire(
    data: str | None = None,
    /,
    *,
    study: Study = STUDY,
    settings: Settings = UNSET,
    chosen: Pool = ANY,
    use: Use = AS_TRAINED,
    output: Output = PLAIN,
) -> None:
    """Say which inputs to label next; or simulate it with a labelled data set, score against score.

    With --run RUN and --pool FILE: the n inputs whose labels would tell the run's posterior most. With DATA: learning curves,
    where the training data are a pool whose labels are bought batch by batch; each fit is kept, and the same command goes on
    where it was interrupted. Fits are Monte Carlo dropout (rate 0.25, learning rate 0.002) under Normal(0, 1) unless you say
    otherwise.

    Scores: bald, batch_bald, entropy, least_confidence, variation_ratio, random; of values variance, log_determinant, random.

    Parameters
    ----------
    data
        A known data set (posterity data lists them), or your own table (.csv, .parquet, …), .npz or folder of
        pictures.
    """
    voice = Voice(output)
    if chosen.run is not None or chosen.pool:
        if data is not None or chosen.run is None or not chosen.pool:
            raise InvalidInput(
                "Give --run RUN and --pool FILE to choose inputs, or DATA to simulate: posterity acquire digits."
            )
        if study != STUDY or given(settings):
            raise InvalidInput(
                "With --run and --pool nothing is trained: --scores, --seeds and what says how to train belong to a "
                "simulation. To rank by one score: --score NAME."
            )
        choose_next(chosen, use, voice)
        return
    values = given(settings)
    if data is None and "data.name" not in values:
        raise InvalidInput("Say which data to simulate with, as posterity acquire digits; or give --run and --pool.")
    if data is not None:
        values["data.name"] = ("DATA", data)
    if "method.kind" not in values:
        values = {**DROPOUT, **values}
    if not any(key.startswith("prior.") for key in values):
        values["prior.std"] = ("--prior-std", "1")
    show(run_curves(merge({}, values, "the flags"), study, voice), study.target, voice)


def choose_next(chosen: Pool, use: Use, voice: Voice) -> None:
    """Rank the inputs of files by a trained run, and print the first n."""
    assert chosen.run is not None
    saved = open_run(chosen.run, use.trust)
    known = CLASS_SCORES if saved.data["classes"] else VALUE_SCORES
    if chosen.score is not None and chosen.score not in known:
        raise unknown("value for --score", chosen.score, known)
    rows = read_inputs(chosen.pool, saved, chosen.invert)
    for note in rows.notes:
        voice.note(note)
    if not 1 <= chosen.n <= len(rows.inputs):
        raise InvalidInput(
            f"-n {chosen.n}: the pool has {len(rows.inputs):,} inputs; ask for 1 to {len(rows.inputs):,}."
        )
    generator = torch.Generator().manual_seed(derived_seed(saved.config.seed, "acquire"))
    inputs = rows.inputs.to(saved.posterior.device)
    draws = use.count(saved.config.predictive_draws)
    predictive = classes_or_values(saved.posterior.predict(inputs, draws, generator=generator))
    places = ranked(predictive, chosen.n, chosen.score, generator).tolist()
    name = chosen.score or ("bald" if isinstance(predictive, Classification) else "variance")
    if isinstance(predictive, Classification):
        shown = {"mutual_information": uncertainty(predictive, "mutual_information"), "entropy": predictive.entropy}
        guess = [saved.data["classes"][label] for label in predictive.labels.tolist()]
    else:
        scale = 1.0 if saved.scaling is None else saved.scaling.target_std
        shown = {"epistemic_std": predictive.epistemic.sqrt() * scale, "std": predictive.std * scale}
        mean = predictive.mean if saved.scaling is None else saved.scaling.restore_targets(predictive.mean)
        guess = [f"{value:.4g}" for value in mean.tolist()]
    told = [{k: float(v[i]) for k, v in shown.items()} for i in places]
    records = [
        {"input": rows.names[i], "index": i, "prediction": guess[i], **own} for i, own in zip(places, told, strict=True)
    ]
    body = [
        [str(rank), rows.names[i], guess[i], *(f"{value:.4g}" for value in own.values())]
        for rank, (i, own) in enumerate(zip(places, told, strict=True), 1)
    ]
    heads = ["", "input", "prediction", *(s.replace("_", " ") for s in shown)]
    voice.table(grid(f"To label next, by {name.replace('_', ' ')}; rows count from 1", heads, body, left=3))
    voice.result({"run": str(chosen.run), "score": name, "inputs": records})


def show(found: Curves, target: float | None, voice: Voice) -> None:
    """Print what each score needed, and draw the curves."""
    from posterity.report.learning_curves import plot_learning_curves  # matplotlib is slow to load
    from posterity.report.style import save

    summary = found.summary(target)
    heads = ["", "seeds", f"labels for {summary['target_text']}", "at the end", "NLL at the end"]
    voice.table(grid(found.title, heads, [_row(name, line) for name, line in summary["scores"].items()]))
    figure = found.folder / "curves.svg"
    save(plot_learning_curves(found.rounds, summary["target"]), figure)
    voice.say(f"Curves  {figure}\nFits    {found.folder}")
    voice.result({**summary, "folder": str(found.folder), "figure": str(figure)})


def _row(name: str, line: dict[str, Any]) -> list[str]:
    return [name.replace("_", " "), str(line["seeds"]), line["needed_text"], line["score_text"], line["nll_text"]]
