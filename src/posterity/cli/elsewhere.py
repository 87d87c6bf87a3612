"""Files that no run wrote: a posterior saved from Python, or the weights of a plain network, with network and data by flags."""

from dataclasses import replace
from pathlib import Path

import torch
from pydantic import ValidationError

from posterity.cli.config import RunConfig
from posterity.cli.experiment import built
from posterity.cli.flags import BY_ITSELF, Source, given
from posterity.cli.merge import merge
from posterity.cli.origin import describe_data
from posterity.cli.saved import Saved, knows_itself, open_run
from posterity.cli.weights import is_posterior, load_weights
from posterity.data import Dataset
from posterity.data.splits import held_out
from posterity.errors import InvalidInput
from posterity.model.likelihoods import Categorical, Gaussian
from posterity.model.priors import Flat
from posterity.model.problem import Problem
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.files import load, read_specification
from posterity.posteriors.point import Point
from posterity.train.batches import TensorData
from posterity.types import Likelihood

ALLOWED = ("data.", "model.")  # of what the flags may say, and of weights the likelihood; a posterior has the rest
PLAIN = "network"  # the method of a network that no method of ours made
EVALUATED = 1000  # training examples at a time


def opened(path: Path, source: Source = BY_ITSELF, trust: bool = False) -> Saved:
    """Open a run directory or a posterior file; or, with its network and data by flags, a file that no run wrote.

    Raises:
        InvalidInput: where there is none, where flags are missing or not wanted, and for weights that are no network of
            these data; Mismatch: where the network is another; CorruptFile.
    """
    if says_itself(path):
        if source != BY_ITSELF and path.exists():
            flag = next(iter(given(source).values()))[0]
            raise InvalidInput(
                f"{flag} is for files that no run wrote; {path} says of itself what it is. Leave it out."
            )
        return open_run(path, trust)
    config = _configured(path, source)
    return _posterior(path, config) if is_posterior(path) else _weights(path, config)


def says_itself(path: Path) -> bool:
    """Tell whether nothing needs to be said of a path: it is a run's, or there is nothing there."""
    return path.is_dir() or not path.exists() or (is_posterior(path) and knows_itself(path))


def _configured(path: Path, source: Source) -> RunConfig:
    """Make the configuration that the flags describe, without anything held out of the data."""
    what = "a posterior that no run wrote" if is_posterior(path) else "a file of weights"
    missing = [flag for flag, value in (("--model NAME", source.model), ("--data NAME", source.data)) if value is None]
    if missing:
        raise InvalidInput(
            f"{path} is {what}: it does not say how to build its network, or what its data are. Add {' and '.join(missing)}, "
            "as --model module:callable --data digits; module:callable is code of yours, which is run."
        )
    values = given(source)
    allowed = ALLOWED if is_posterior(path) else (*ALLOWED, "likelihood.")
    if strange := next((flag for key, (flag, _) in values.items() if not key.startswith(allowed)), None):
        raise InvalidInput(f"{strange} has no meaning for {what}. Its network and data can be said: --model, --data, …")
    values.setdefault("data.validation", ("--data.validation", 0))
    return merge({}, values)


def _posterior(path: Path, config: RunConfig) -> Saved:
    specification = read_specification(path)
    described = (specification.get("components") or [specification])[0]["likelihood"]
    try:
        likelihood = RunConfig.model_validate({"data": {"name": ""}, "likelihood": described}).likelihood
    except ValidationError as error:
        raise InvalidInput(
            f"{path} has a likelihood of your own, '{described.get('kind')}'. Use it from Python: "
            "posterity.load(path, network, likelihood=…)."
        ) from error
    config, dataset, _, network = built(config.model_copy(update={"likelihood": likelihood}))
    posterior = load(path, network)
    if "method" not in posterior.provenance:
        posterior.provenance["method"] = {"kind": posterior.kind}
    return _checked(posterior, config, dataset)


def _weights(path: Path, config: RunConfig) -> Saved:
    config, dataset, _, network = built(config)
    load_weights(network, path)
    likelihood: Likelihood = config.likelihood or Categorical()
    problem = Problem(network, Flat(), likelihood, _count(dataset, config)).snapshot()
    if isinstance(likelihood, Gaussian) and likelihood.std is None:
        problem = replace(problem, likelihood=Gaussian(std=_noise(problem, dataset, path)))
    posterior = Point(problem, problem.theta())
    posterior.provenance["method"] = {"kind": PLAIN}
    return _checked(posterior, config, dataset)


def _count(dataset: Dataset, config: RunConfig) -> int:
    """Return how many examples the weights are of; a set for evaluation alone has none, and 1 stands for them."""
    if not len(dataset.train_inputs):
        return 1
    data = TensorData(dataset.train_inputs, dataset.train_targets)
    return len(held_out(data, dataset.blocks, config.data.validation, config.seed).targets)


@torch.no_grad()
def _noise(problem: Problem, dataset: Dataset, path: Path) -> float:
    """Return the maximum-likelihood noise of a plain network: its RMSE on the training part, in the data set's units."""
    problem.check((dataset.train_inputs[:2], dataset.train_targets[:2]))
    parts = zip(dataset.train_inputs.split(EVALUATED), dataset.train_targets.split(EVALUATED), strict=True)
    squares = [(problem.outputs(x).squeeze(-1) - y).square().sum() for x, y in parts]
    noise = float((torch.stack(squares).sum() / len(dataset.train_targets)).sqrt())
    if not 0 < noise < float(dataset.train_targets.std()):
        raise InvalidInput(
            f"{path}: the network is off by {noise:.3g} on the training data, no less than their std of "
            f"{float(dataset.train_targets.std()):.3g}: it was trained in other units, or not at all. Add "
            "--data.standardise false for those of the file."
        )
    return noise


def _checked(posterior: FunctionPosterior, config: RunConfig, dataset: Dataset) -> Saved:
    """Try the posterior on two test examples before anything else is done with it."""
    posterior.problem.check((dataset.test_inputs[:2], dataset.test_targets[:2]))
    return Saved(posterior, config, describe_data(dataset), None, from_run=False)
