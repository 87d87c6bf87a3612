"""`posterity explain`: what mean field would make of a network, parameter by parameter, before any training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from posterity.cli import config as files
from posterity.cli.console import Voice
from posterity.cli.experiment import prepare
from posterity.cli.flags import PLAIN, UNSET, Output, Settings, given
from posterity.cli.merge import merge, refuse_code
from posterity.cli.problem_flags import RUN
from posterity.errors import InvalidInput
from posterity.methods import MeanField
from posterity.model.explain import explain_problem
from posterity.model.initial import initial_std

EXAMPLES = 2  # the fewest that batch normalisation takes


@Parameter(name="*")
@dataclass(frozen=True)
class Source:
    """Where settings come from, beside flags."""

    config: Annotated[
        Path | None, Parameter(group=RUN, metavar="FILE", help="The network of a run.toml; flags override it.")
    ] = None
    trust: Annotated[
        bool, Parameter(negative="", group=RUN, help="Run the code of a module:callable network that a file names.")
    ] = False


FLAGS = Source()


def explain(
    data: str | None = None, /, *, settings: Settings = UNSET, source: Source = FLAGS, output: Output = PLAIN
) -> None:
    """Say for each parameter whether it is random, its prior, its std at the start, the estimator that it gets, and why.

    Flags are those of `posterity train`: the table is of the run that they would start.

    Parameters
    ----------
    data
        A known data set (posterity data lists them), or your own table (.csv, .parquet, …), .npz or folder of
        pictures.
    """
    voice, values = Voice(output), given(settings)
    if data is not None:
        values["data.name"] = ("DATA", data)
    file = {} if source.config is None else files.read(source.config)
    config = merge(file, values, str(source.config or "run.toml"))
    refuse_code(config, values, source.trust, str(source.config))
    method = config.member
    if not isinstance(method, MeanField):
        raise InvalidInput(
            f"explain is for mean field, whose estimators differ by parameter; '{method.kind}' has none."
        )
    experiment = prepare(config)
    problem, training = experiment.problem, experiment.data
    std = initial_std(problem.coordinates, method.initial_stds(problem, training))
    found = explain_problem(problem, training.inputs[:EXAMPLES], method.estimator, std)
    asked = {"data": experiment.dataset.name, "model": experiment.config.model.name, "estimator": method.estimator}
    voice.say(", ".join(map(str, asked.values())))
    voice.say(str(found))
    voice.result({**asked, **found.to_dict()})
