"""What `run.toml` holds: the whole configuration of a run, complete enough to reproduce it."""

import csv
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from posterity.cli.own import LikelihoodOption, PriorOption
from posterity.data.dataset import Reader
from posterity.data.dates import Order
from posterity.data.numerals import Decimal
from posterity.errors import InvalidInput
from posterity.methods import AnyMethod, MeanField, as_method
from posterity.methods.base import Method
from posterity.model.priors import Normal
from posterity.storage import reading, replace_text
from posterity.text import file_name

Count = Annotated[int, Field(ge=1)]
Columns = Annotated[tuple[str, ...], BeforeValidator(lambda given: _split(given))]  # `a,b`, or a list of them
LARGEST = 2**20  # bytes of a configuration
DEEPEST = 32  # tables within tables
# Of a key, which is a word or a text; of longer texts too few fit in a file to do harm.
_PART = r"""(?:(?<![\w-])[\w-]+|"(?:[^"\\\n]|\\.){0,99}"|'[^'\n]{0,99}')"""
DEEP_KEY = re.compile(rf"(?:{_PART}[ \t]*\.[ \t]*){{{DEEPEST}}}")


def _split(given: object) -> object:
    """Take names apart that commas part, as a CSV would: one that holds a comma is quoted."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        return given
    try:
        return [name.strip() for row in csv.reader(given, skipinitialspace=True) for name in row if name.strip()]
    except csv.Error as error:
        raise ValueError(f"its names cannot be told apart ({error})") from error


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Table):
    """Which data, and how much of them is held out."""

    name: str
    split: Annotated[int, Field(ge=0)] = 0
    image_size: Count | None = None
    standardise: bool = True  # False: inputs and targets in the units of the files
    standardise_targets: bool = True  # False for a likelihood whose targets have units of their own
    target: str | None = None
    task: Literal["classification", "regression"] | None = None
    drop: Columns = ()  # columns of a table that are not read
    keep: Columns = ()  # and that stay, though they seem to say nothing
    category: Columns = ()  # and whose numbers are names
    header: bool | None = None  # whether the first row of a table holds names
    decimal: Decimal | None = None
    dates: Order | None = None
    missing: Columns = ()  # words that stand for missing cells
    test: str | None = None  # a table that is the test part; None: a fifth of this one
    split_by: str | None = None  # time:COLUMN or group:COLUMN, by which rows are parted; None: they are drawn
    root: str | None = None
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    batch_size: Count | None = None  # by the number of examples; see `batch_size` of cli/experiment.py
    augment: bool = False  # images: each is flipped and shifted at random whenever it is seen

    @property
    def reader(self) -> Reader:
        """What corrects a wrong guess of how a table is to be read."""
        return Reader(
            self.drop,
            self.keep,
            self.category,
            self.header,
            self.decimal,
            self.dates,
            self.missing,
            self.test,
            self.split_by,
        )


class ModelConfig(BaseModel):
    """Which network (None: by the data), and a file of weights to start from; further keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str | None = None
    weights: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class EngineConfig(_Table):
    """Where it runs."""

    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count | None = None


class RunConfig(_Table):
    """One run. What is None is chosen by the data."""

    seed: Annotated[int, Field(ge=0)] = 0
    twin: bool = False
    predictive_draws: Count = 32
    minutes: Annotated[float, Field(ge=0.1, le=1440, allow_inf_nan=False)] | None = None  # of what the data choose
    data: DataConfig
    model: ModelConfig = ModelConfig()
    prior: PriorOption = Field(default_factory=lambda: Normal(0.0, 0.3))
    where: str | list[str] | None = None  # name patterns of what is random, or last_layer; the rest are points
    likelihood: LikelihoodOption | None = None
    method: AnyMethod = Field(default_factory=MeanField)
    engine: EngineConfig = EngineConfig()

    @property
    def member(self) -> Method:
        """The method, or what each member of an ensemble does; of a refinement, its last stage."""
        return as_method(self.method).member

    @property
    def method_name(self) -> str:
        """`mean_field`, `ensemble-mean_field`, `refine-mean_field` or `ensemble-refine-mean_field`."""
        names, method = [], as_method(self.method)
        while method is not method.member:
            names.append(method.kind)
            method = as_method(getattr(method, method.stages[0]))
        return "-".join(file_name(name) for name in (*names, method.kind))


def read(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises `InvalidInput` where there is none, or it is no TOML."""
    try:
        with reading(path) as stream:
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise InvalidInput(f"{path} is larger than {LARGEST:,} bytes, so it is no configuration.")
        text = content.decode("utf-8")
        if DEEP_KEY.search(text):  # reading one takes the square of its length
            raise InvalidInput(f"{path} is no configuration: a key in it has more than {DEEPEST} parts.")
        values = tomllib.loads(text)
        return {key: _with_none(value) if key == "method" else value for key, value in values.items()}
    except FileNotFoundError as error:
        raise InvalidInput(f"There is no configuration file {path}.") from error
    except RecursionError as error:
        raise InvalidInput(f"{path} is no TOML file that can be read: it nests too deep.") from error
    except InvalidInput:
        raise
    except ValueError as error:  # no TOML, no UTF-8, a whole number of thousands of digits
        raise InvalidInput(f"{path} is no TOML file: {error}.") from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error


def write(config: RunConfig, path: Path) -> None:
    """Write what reproduces a run: every value, defaults too."""
    values = config.model_dump(mode="json")
    text = tomli_w.dumps(_without_none({**values, "method": _spelled(values["method"])}))
    replace_text(path, f"# posterity train --config {path.name}\n{text}")


NONE = "none"  # TOML has no word for it


def _spelled(method: dict[str, Any]) -> dict[str, Any]:
    """Write out that Laplace trains nothing, which is not what it does where a file says nothing."""
    inner = method.get("method")
    if method.get("kind") == "laplace" and inner is None:
        return {**method, "method": NONE}
    return {**method, "method": _spelled(inner)} if isinstance(inner, dict) else method


def _with_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _with_none(value) for key, value in values.items()}
    return None if values == NONE else values


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_none(v) if isinstance(v, dict) else v for k, v in values.items() if v is not None}


def absolute(config: RunConfig) -> RunConfig:
    """Make the paths of a configuration independent of the current folder."""
    changes: dict[str, str] = {}
    name = Path(config.data.name).expanduser()
    if name.is_file():
        changes["name"] = str(name.resolve())
    if config.data.test is not None:
        changes["test"] = str(Path(config.data.test).expanduser().resolve())
    if config.data.root is not None:
        changes["root"] = str(Path(config.data.root).expanduser().resolve())
    model = config.model
    if model.weights is not None:
        model = model.model_copy(update={"weights": str(Path(model.weights).expanduser().resolve())})
    return config.model_copy(update={"data": config.data.model_copy(update=changes), "model": model})
