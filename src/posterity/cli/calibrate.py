"""`posterity calibrate`: sets, abstention and a temperature, from the examples that a run held out of its training."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter
from torch import Generator, Tensor

from posterity.cli.console import Voice, grid
from posterity.cli.elsewhere import opened
from posterity.cli.flags import AS_TRAINED, BY_ITSELF, PLAIN, Output, Source, Use
from posterity.cli.promises import NAME, Promises, checksum, coins
from posterity.cli.report import keep
from posterity.cli.saved import Saved, scored_data, training_data
from posterity.cli.scoring import predict as averaged
from posterity.cli.verification import Predicted, Verified, errors, verify
from posterity.data import Dataset
from posterity.decide import Abstention, Temperature, abstain, uncertainty
from posterity.decide import calibrate as conformal
from posterity.decide.abstain import needed
from posterity.decide.nonconformity import APS, CLASS_SCORES, RAPS, VALUE_SCORES, ClassScore, ValueScore
from posterity.errors import InvalidInput, unknown
from posterity.predict.predictive import Classification, Regression
from posterity.report.summary import digits, percent
from posterity.train.random import derived_seed

RISK = 0.02


@Parameter(name="*")
@dataclass(frozen=True)
class Aims:
    """What is asked for."""

    coverage: Annotated[
        float, Parameter(metavar="SHARE", help="How often a set, or interval, should hold the truth. [0.9]")
    ] = 0.9
    score: Annotated[
        str | None,
        Parameter(
            metavar="NAME",
            help="What sets are made by: thr, aps or raps; of values absolute, scaled or quantile. [aps; scaled]",
        ),
    ] = None
    randomised: Annotated[
        bool, Parameter(negative="", help="aps and raps: exact coverage by a coin for each input; sets may be empty.")
    ] = False
    by_class: Annotated[bool, Parameter(negative="", help="Promise the coverage for each class by itself.")] = False
    risk: Annotated[
        float | None, Parameter(metavar="SHARE", help="Bound on the share of errors among what is answered. [0.02]")
    ] = None
    confidence: Annotated[float, Parameter(metavar="SHARE", help="How sure that bound is. [0.95]")] = 0.95
    measure: Annotated[
        str | None,
        Parameter(
            metavar="NAME",
            help="Of uncertainty, to abstain by: max_probability, entropy, mutual_information or epistemic; of values "
            "variance or epistemic. [max_probability; variance]",
        ),
    ] = None
    tolerance: Annotated[
        float | None, Parameter(metavar="NUMBER", help="Values: a prediction farther off than this is an error.")
    ] = None


USUAL = Aims()


def calibrate(
    run: Path,
    /,
    *,
    aims: Aims = USUAL,
    use: Use = AS_TRAINED,
    source: Source = BY_ITSELF,
    output: Output = PLAIN,
) -> None:
    """Make promises that a trained posterior keeps: prediction sets, when to abstain, honest probabilities.

    They come from the examples that the run held out, and are checked on its test data. They are kept in the run's directory
    as findings/calibrate.json; `posterity predict` then says them for new inputs, and the run's report.html gets a section.

    Parameters
    ----------
    run
        A run directory, or a file: a posterior, or a plain network's weights.
    """
    voice, saved = Voice(output), opened(run, source, use.trust)
    draws, dataset = use.count(saved.config.predictive_draws), scored_data(saved)
    pair, dataset = _apart(saved, dataset, voice)
    held = predicted(saved, dataset, *pair, draws)
    found = promised(held, aims, saved, run, draws, voice)
    test = predicted(saved, dataset, dataset.test_inputs, dataset.test_targets, draws)
    verified = verify(found, test, aims.tolerance, saved.config.seed)
    _say(found, verified, dataset, len(held[1]), voice)
    keep(saved, NAME, {"data": dataset.name, "promises": found.to_dict(), "test": verified.to_dict()}, voice)
    shown = {key: value for key, value in found.to_dict().items() if key != "usual"}
    voice.result({"run": str(run), "data": dataset.name, "promises": shown, "test": verified.scores})


def _apart(saved: Saved, dataset: Dataset, voice: Voice) -> tuple[tuple[Tensor, Tensor], Dataset]:
    """Return what promises are made of, and the data set whose test part they are checked on.

    What was held out of the training of a network from elsewhere is not known, unless it is said: half of the test part is
    then taken for it, and checked on the other half.
    """
    if saved.from_run or saved.config.data.validation:
        return held_out(saved, dataset), dataset
    inputs, targets = dataset.test_inputs, dataset.test_targets
    order = torch.randperm(len(inputs), generator=Generator().manual_seed(derived_seed(saved.config.seed, "calibrate")))
    held, rest = order[: len(order) // 2].sort().values, order[len(order) // 2 :].sort().values
    voice.note(
        f"Promises from a random half of the test examples ({len(held):,}), checked on the other: of what the training held "
        "out, this file does not tell. Say it with --data.validation 0.1, if a share was."
    )
    return (inputs[held], targets[held]), replace(dataset, test_inputs=inputs[rest], test_targets=targets[rest])


def held_out(saved: Saved, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets that the run kept out of its training, split off again by its seed.

    Raises:
        InvalidInput: where it kept none, or its data have changed since.
    """
    held = training_data(saved, dataset).held_out if saved.config.data.validation else None
    if held is None:
        raise InvalidInput(
            "This run was trained without a validation share, and promises need examples that it was not trained on. "
            f"Train again: posterity train {saved.config.data.name} --validation 0.1 …"
        )
    return held[:2]


def predicted(saved: Saved, dataset: Dataset, inputs: Tensor, targets: Tensor, draws: int) -> Predicted:
    """Predict inputs as `posterity predict` does, and return the targets beside it, both in original units."""
    predictive, scaling = averaged(saved.posterior, inputs, draws, saved.config.seed), dataset.scaling
    if isinstance(predictive, Regression) and scaling is not None:
        predictive = predictive.rescale(scaling.target_mean, scaling.target_std)
        targets = scaling.restore_targets(targets)
    return predictive, targets


def promised(held: Predicted, aims: Aims, saved: Saved, run: Path, draws: int, voice: Voice) -> Promises:
    """Fit everything on the held-out examples; each by itself, on predictions as they are, so that all of it holds."""
    predictive, targets = held
    classes = isinstance(predictive, Classification)
    measure = aims.measure or ("max_probability" if classes else "variance")
    score = _score(aims, classes)
    usual = tuple(uncertainty(predictive, measure).sort().values.tolist())
    return Promises(
        checksum(saved.directory.posterior() if saved.directory else run),
        draws,
        Temperature.fit(predictive, targets),
        conformal(predictive, targets, aims.coverage, score, aims.by_class, coins(saved.config.seed)),
        _abstention(held, aims, measure, voice),
        measure,
        usual,
    )


def _abstention(held: Predicted, aims: Aims, measure: str, voice: Voice) -> Abstention | None:
    predictive, targets = held
    losses = errors(predictive, targets, aims.tolerance)
    if losses is None:
        if aims.risk is not None:
            raise InvalidInput(
                "--risk of values: say with --tolerance which predictions are errors, in the target's units."
            )
        voice.note("No abstention: --tolerance says which predictions of values are errors.")
        return None
    if aims.tolerance is not None and (isinstance(predictive, Classification) or aims.tolerance < 0):
        raise InvalidInput(f"--tolerance {aims.tolerance:g}: a distance of at least 0, for values alone.")
    risk = RISK if aims.risk is None else aims.risk
    for name, value in (("risk", risk), ("confidence", aims.confidence)):
        if not 0 < value < 1:
            raise InvalidInput(
                f"--{name} {value:g}: must be between 0 and 1, such as {RISK if name == 'risk' else 0.95}."
            )
    if aims.risk is None and len(targets) < needed(risk, aims.confidence):
        voice.note(
            f"No abstention: to show a risk of {risk:g} takes {needed(risk, aims.confidence)} held-out examples, and there "
            f"are {len(targets)}. Ask for a larger --risk, or train with a larger --validation."
        )
        return None
    return abstain(predictive, targets, risk, aims.confidence, measure, losses)


def _score(aims: Aims, classes: bool) -> ClassScore | ValueScore:
    known: dict[str, Any] = dict(CLASS_SCORES.items() if classes else VALUE_SCORES.items())
    name = aims.score or ("aps" if classes else "scaled")
    if name not in known:
        raise unknown("value for --score", name, known)
    if not 0 < aims.coverage < 1:
        raise InvalidInput(f"--coverage {aims.coverage:g}: must be between 0 and 1, such as 0.9.")
    if aims.randomised and known[name] not in (APS, RAPS):
        raise InvalidInput(f"--randomised is for aps and raps; --score {name} has no coin.")
    if aims.by_class and not classes:
        raise InvalidInput("--by-class is for classes; these are values.")
    score: ClassScore | ValueScore = known[name](randomised=True) if aims.randomised else known[name]()
    return score


def _say(found: Promises, verified: Verified, dataset: Dataset, num_held: int, voice: Voice) -> None:
    """Print what is promised beside what happened on the test data, then scores before and after the temperature."""
    name = f"{dataset.name}: {num_held:,} held-out examples, {len(dataset.test_targets):,} test examples"
    voice.table(grid(name, ["", "promised", "on test data"], rows(found, verified.scores)))
    pairs = [(n.removesuffix("_before"), v) for n, v in verified.scores.items() if n.endswith("_before")]
    body = [[LABELS[n], _written(n, v), _written(n, verified.scores[f"{n}_after"])] for n, v in pairs]
    voice.table(grid("", [f"temperature {found.temperature.value:.3g}", "before", "after"], body))
    if found.temperature.at_limit:
        voice.note(UNDETERMINED)


UNDETERMINED = (
    "The temperature is at its limit: the held-out examples do not determine it (are all of them right?). Do not use "
    "`predict --tempered` here; hold out more, with a larger --validation."
)
LABELS = {"nll": "NLL ↓", "ece": "ECE, 15 bins ↓", "coverage_90": "90 % coverage → 90 %"}


def rows(found: Promises, scores: dict[str, Any]) -> list[list[str]]:
    """Return lines of: what, what is promised, what was seen."""
    body = [["Coverage", f"≥ {percent(found.conformal.level)}", percent(scores["coverage"])]]
    if scores["coverage_interval"] is not None:
        low, high = scores["coverage_interval"]
        tied = getattr(found.conformal.score, "randomised", None) is False  # then only the lower end holds
        seen = f"at least {percent(low)}" if tied else f"{percent(low)} to {percent(high)}"
        body.append(["  seen in 99 % of such calibrations", seen, ""])
    if "worst_class_coverage" in scores:
        body.append(["  of the class with the least", "", percent(scores["worst_class_coverage"])])
    for key, label in (("mean_size", "Mean set size"), ("mean_width", "Mean interval width")):
        if key in scores:
            body.append([label, "", digits(scores[key])])
    if found.abstention is not None:
        sure = f"≤ {percent(found.abstention.risk)}, {100 * found.abstention.confidence:g} % sure"
        risk = "–" if scores["risk"] is None else percent(scores["risk"])
        body.append(["Risk of what is answered", sure, risk])
        if scores["risk_interval"] is not None:
            low, high = scores["risk_interval"]
            body.append(["  true risk, by the test data, 99 %", "", f"{percent(low)} to {percent(high)}"])
        body.append(["Answered", f"about {percent(found.abstention.expected_coverage)}", percent(scores["answered"])])
    body.append(["Inputs with p ≤ 5 %", "≤ 5.0 %", percent(scores["unusual"])])
    return body


def _written(name: str, value: float) -> str:
    return digits(value) if name == "nll" else percent(value)
