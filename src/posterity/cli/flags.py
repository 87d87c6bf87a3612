"""The flags of `posterity train`: each is a short name for one key of `run.toml`, and is checked there, not here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, get_type_hints

from cyclopts import Group, Parameter

from posterity.cli.problem_flags import DATA, PROBLEM, RUN, Key, ProblemSettings
from posterity.errors import InvalidInput

KIND = re.compile(r'^    kind: Literal\["(\w+)"\]', re.M)
NOUNS = ("data", "model", "prior", "likelihood", "method", "engine")
METHOD, OUTPUT = Group("Method", sort_key=3), Group("Output", sort_key=5)
_FILES = sorted(
    (Path(__file__).parents[1] / "methods").glob("*.py")
)  # read, not imported: help does not wait for torch
METHODS = ", ".join(kind for file in _FILES for kind in KIND.findall(file.read_text(encoding="utf-8")))
SOURCE = Group("Files that no run wrote", sort_key=4)


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """Flags that every command has."""

    json: Annotated[bool, Parameter(negative="", group=OUTPUT, help="Print one JSON object on stdout.")] = False
    quiet: Annotated[
        bool, Parameter(name=("--quiet", "-q"), negative="", group=OUTPUT, help="No progress, no notes.")
    ] = False
    debug: Annotated[
        bool, Parameter(negative="", group=OUTPUT, help="Show tracebacks; POSTERITY_DEBUG=1 does too.")
    ] = False


@Parameter(name="*")
@dataclass(frozen=True)
class Settings(ProblemSettings):
    """What to train, on what, and how; None leaves a key as the file or the default has it."""

    weights: Annotated[
        str | None,
        Key("model.weights"),
        Parameter(
            group=PROBLEM,
            metavar="FILE",
            help="Start from a state_dict: .safetensors, .pt. With --method laplace --method.method none they stay as they "
            "are. [fresh ones]",
        ),
    ] = None
    where: Annotated[
        tuple[str, ...],
        Key("where"),
        Parameter(
            negative="",
            group=PROBLEM,
            metavar="PATTERN",
            help="Parameters or modules that are random: last_layer, 'fc3.*', '!*.bias' (all but these); may be repeated. The "
            "others are trained as points. [all but normalisation layers]",
        ),
    ] = ()
    validation: Annotated[
        str | None,
        Key("data.validation"),
        Parameter(
            group=DATA, metavar="SHARE", help="Share of the training data held out to choose the best epoch by. [0.1]"
        ),
    ] = None
    batch: Annotated[
        str | None,
        Key("data.batch_size"),
        Parameter(
            group=DATA, metavar="INT", help="Examples per step. [128; of few examples 8 or more, for 40 steps an epoch]"
        ),
    ] = None
    augment: Annotated[
        bool | None,
        Key("data.augment"),
        Parameter(negative="--no-augment", group=DATA, help="Flip and shift training images at random. [no]"),
    ] = None
    method: Annotated[
        str | None,
        Key("method.kind"),
        Parameter(
            group=METHOD,
            metavar="NAME",
            help=f"{METHODS} or module:callable. [tables: by their rows and target; else mean_field]",
        ),
    ] = None
    estimator: Annotated[
        str | None,
        Key("method.estimator"),
        Parameter(group=METHOD, metavar="NAME", help="weight, flipout or local_reparam. [weight]"),
    ] = None
    minutes: Annotated[
        str | None,
        Key("minutes"),
        Parameter(
            group=METHOD,
            metavar="M",
            help="Of a table of numbers whose method is left open: how much is computed, about. [1]",
        ),
    ] = None
    epochs: Annotated[
        str | None,
        Key("method.epochs"),
        Parameter(group=METHOD, metavar="INT", help="Passes over the training data. [20]"),
    ] = None
    lr: Annotated[
        str | None,
        Key("method.optimizer.lr"),
        Parameter(
            group=METHOD,
            metavar="RATE",
            help="Learning rate. [0.004; map, mle, mc_dropout: 0.001; more where few steps train a narrow network]",
        ),
    ] = None
    schedule: Annotated[
        str | None,
        Key("method.optimizer.schedule"),
        Parameter(
            group=METHOD,
            metavar="NAME",
            help="constant, cosine, linear, one_cycle or plateau. [one_cycle; map, mle, mc_dropout: cosine]",
        ),
    ] = None
    temperature: Annotated[
        str | None,
        Key("method.temperature"),
        Parameter(group=METHOD, metavar="T", help="Of the likelihood, p(D|θ)^(1/T) p(θ); 1 is the posterior. [1]"),
    ] = None
    initial_std: Annotated[
        str | None,
        Key("method.initial_std"),
        Parameter(group=METHOD, metavar="STD", help="Of every weight at the start."),
    ] = None
    draws: Annotated[
        str | None, Key("method.draws"), Parameter(group=METHOD, metavar="INT", help="Monte-Carlo draws per step. [1]")
    ] = None
    patience: Annotated[
        str | None,
        Key("method.patience"),
        Parameter(group=METHOD, metavar="EPOCHS", help="Stop after so many without a better validation score."),
    ] = None
    ensemble: Annotated[
        str | None,
        Key("ensemble"),
        Parameter(group=METHOD, metavar="N", help="Train N of them, from fresh weights each."),
    ] = None
    device: Annotated[
        str | None,
        Key("engine.device"),
        Parameter(group=RUN, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps. [auto]"),
    ] = None
    precision: Annotated[
        str | None, Key("engine.precision"), Parameter(group=RUN, metavar="NAME", help="float32 or bfloat16. [float32]")
    ] = None
    threads: Annotated[
        str | None,
        Key("engine.threads"),
        Parameter(
            group=RUN, metavar="INT", help="Processor threads; on a busy machine fewer are faster. [torch's choice]"
        ),
    ] = None
    predictive_draws: Annotated[
        str | None,
        Key("predictive_draws"),
        Parameter(group=RUN, metavar="INT", help="Functions averaged per prediction. [32]"),
    ] = None
    twin: Annotated[
        bool | None,
        Key("twin"),
        Parameter(negative="--no-twin", group=RUN, help="Train the maximum-likelihood network too, to compare with."),
    ] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Place:
    """Where a run begins, and where it is written."""

    config: Annotated[
        Path | None, Parameter(group=RUN, metavar="FILE", help="Start from a run.toml; flags override it.")
    ] = None
    out: Annotated[Path | None, Parameter(group=RUN, metavar="DIR", help="Run directory. [runs/…]")] = None
    force: Annotated[bool, Parameter(negative="", group=RUN, help="Replace the run in --out.")] = False
    resume: Annotated[Path | None, Parameter(group=RUN, metavar="DIR", help="Go on with an interrupted run.")] = None
    trust: Annotated[
        bool, Parameter(negative="", group=RUN, help="Run the code of a module:callable that a file names.")
    ] = False


@Parameter(name="*")
@dataclass(frozen=True)
class Use:
    """How a trained posterior is used."""

    draws: Annotated[str | None, Parameter(metavar="INT", help="Functions averaged. [as in training]")] = None
    trust: Annotated[bool, Parameter(negative="", help="Run the code of a module:callable that a file names.")] = False

    def count(self, default: int) -> int:
        """Read `--draws`. Raises `InvalidInput`.

        >>> Use("8").count(32), Use().count(32)
        (8, 32)
        """
        if self.draws is None:
            return default
        if not self.draws.isascii() or not self.draws.isdigit() or int(self.draws) < 1:
            raise InvalidInput(f"--draws {self.draws}: must be a whole number, at least 1.")
        return int(self.draws)


@Parameter(name="*")
@dataclass(frozen=True)
class Source:
    """What a file that no run wrote does not say of itself: its network and its data. The network's code is run."""

    model: Annotated[
        str | None,
        Key("model.name"),
        Parameter(
            group=SOURCE,
            metavar="NAME",
            help="Of a posterior saved from Python, or of weights (.safetensors, .pt): its network, as module:callable, "
            "lenet, mlp:50.",
        ),
    ] = None
    data: Annotated[
        str | None, Key("data.name"), Parameter(group=SOURCE, metavar="NAME", help="Its data: a name, a table, .npz.")
    ] = None
    set_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            negative="",
            group=SOURCE,
            metavar="KEY=VALUE",
            help="More of them, as in run.toml, or shorter: --data.standardise false, --model.activation tanh.",
        ),
    ] = ()


PLAIN, UNSET, ANYWHERE, AS_TRAINED = Output(), Settings(), Place(), Use()
BY_ITSELF = Source()


def given(settings: ProblemSettings | Source) -> dict[str, tuple[str, object]]:
    """Return what was set on the command line: key -> (the flag as typed, its value).

    >>> given(Settings(epochs="3", set_=("prior.fan_in=true",)))
    {'method.epochs': ('--epochs', '3'), 'prior.fan_in': ('--prior.fan-in', 'true')}
    >>> given(Settings(where=("fc3",))), given(Settings(where=("conv*", "!*.bias")))
    ({'where': ('--where', 'fc3')}, {'where': ('--where', ('conv*', '!*.bias'))})
    """
    hints = get_type_hints(type(settings), include_extras=True)
    found: dict[str, tuple[str, object]] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        key = next((note for note in hints[field.name].__metadata__ if isinstance(note, Key)), None)
        if key is not None and value not in (None, ()):
            one = isinstance(value, tuple) and len(value) == 1
            found[key.path] = (_spelled(field.name), value[0] if one else value)
    for item in settings.set_:
        path, equals, value = item.partition("=")
        if not equals or not path:
            raise InvalidInput(f"--set '{item}': expected KEY=VALUE, as --set prior.fan_in=true.")
        path = path.replace("-", "_")
        found[path] = (_spelled(path), value)
    return found


def undotted(tokens: Sequence[str]) -> list[str]:
    """Rewrite `--prior.fan-in [VALUE]` as `--set prior.fan_in=VALUE`, for every noun of `run.toml`; no value means true.

    >>> undotted(["digits", "--prior.fan-in", "--method.draws=4", "--method.std-lr", "2", "--json"])
    ['digits', '--set', 'prior.fan_in=true', '--set', 'method.draws=4', '--set', 'method.std_lr=2', '--json']
    """
    rest, result = list(tokens), []
    while rest:
        token = rest.pop(0)
        name, equals, value = token.partition("=")
        if not any(name.startswith(f"--{noun}.") for noun in NOUNS):
            result.append(token)
            continue
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        result += ["--set", f"{name[2:].replace('-', '_')}={value}"]
    return result


def _spelled(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")
