"""One run, prepared and checked: data, network and problem; nothing is trained here, and nothing is written."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from os.path import isdir
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from posterity.cli.config import DataConfig, ModelConfig, RunConfig
from posterity.cli.kinds import kinds_in
from posterity.cli.own import Named, made, with_code
from posterity.cli.targets import OF_CLASSES, advice, in_own_units, tasked
from posterity.cli.weights import load_weights
from posterity.data import Dataset, Options, describe, load, names
from posterity.data.augment import flipped_and_shifted
from posterity.data.form import TableForm
from posterity.data.own import TABLES
from posterity.data.splits import held_out
from posterity.errors import InvalidInput
from posterity.identity import weights_of
from posterity.methods import as_method
from posterity.methods.base import Method
from posterity.methods.records import each_stage, lengthened, stages_of
from posterity.model.known import AnyLikelihood
from posterity.model.likelihoods import Bernoulli, Categorical, Gaussian
from posterity.model.plain import plain
from posterity.model.problem import Problem
from posterity.train.batches import TensorData
from posterity.train.identity import Identity
from posterity.train.random import derived_seed
from posterity.types import Likelihood
from posterity.zoo import NetworkSpec, image_side

DROPOUT_RATE = 0.1  # of networks without dropout of their own
BATCH, LEAST = TensorData.batch_size, 8  # examples per step, usually and at least
STEPS = 40  # of an epoch, at least
Choose: TypeAlias = Callable[[RunConfig, Dataset], tuple[RunConfig, Dataset]]


def as_it_is(config: RunConfig, dataset: Dataset) -> tuple[RunConfig, Dataset]:
    """Choose nothing."""
    return config, dataset


@dataclass(frozen=True, eq=False)
class Experiment:
    """A complete configuration and what it names, tried on each other."""

    config: RunConfig
    dataset: Dataset
    spec: NetworkSpec
    network: nn.Module
    data: TensorData
    problem: Problem

    @property
    def parameters(self) -> int:
        """Number of the network's trainable parameters."""
        return sum(p.numel() for p in self.network.parameters() if p.requires_grad)

    @property
    def random(self) -> int:
        """Number of those that are random; the others are points."""
        return self.problem.coordinates.network - self.problem.coordinates.start


def prepare(config: RunConfig, choose: Choose = as_it_is) -> Experiment:
    """Load the data, build the network, and try one on the other.

    Args:
        choose: fills by the data what the configuration left open, before the usual defaults do.

    Raises:
        DataNotFound, CorruptFile, InvalidInput: before anything is trained or written.
    """
    config, dataset, spec, network = built(config, choose)
    if not len(dataset.train_inputs):
        raise InvalidInput(
            f"'{dataset.name}' has no training part. It is for trained runs: posterity evaluate RUN --data {dataset.name}"
        )
    if config.model.weights is not None:
        load_weights(network, Path(config.model.weights))
    likelihood = made(config.likelihood)
    assert likelihood is not None  # `built` saw to it
    augment = flipped_and_shifted if config.data.augment else None
    assert config.data.batch_size is not None
    data = TensorData(dataset.train_inputs, dataset.train_targets, config.data.batch_size, augment=augment)
    data = held_out(data, dataset.blocks, config.data.validation, config.seed)
    _check(config, data)
    problem = Problem(network, made(config.prior), likelihood, data.num_data, config.where)
    data.checked(problem.check, torch.device("cpu"))
    config = _dropping(config, problem)
    return Experiment(config, dataset, spec, network, data, problem)


def identity_of(experiment: Experiment) -> Identity:
    """Return what a run is of beside what `fit` knows of it: its data as they were read, and the weights it starts with."""
    data, config = experiment.dataset, experiment.config
    shares = config.data.model_dump(
        mode="json", include={"validation", "batch_size", "augment", "standardise", "split"}
    )
    if not config.data.standardise_targets:  # the digests are of targets as they were read
        shares["standardise_targets"] = False
    if config.data.split_by is not None:
        shares["split_by"] = config.data.split_by
    return Identity(
        {
            "data": {**data.digests, "classes": ", ".join(data.classes), "columns": ", ".join(data.features), **shares},
            "model": experiment.spec.to_dict(),
            "start": weights_of(experiment.network.named_parameters()),
        }
    )


def built(config: RunConfig, choose: Choose = as_it_is) -> tuple[RunConfig, Dataset, NetworkSpec, nn.Module]:
    """Load the data and build the network, with fresh weights; what the configuration left open is chosen by the data.

    Raises:
        DataNotFound, CorruptFile, InvalidInput.
    """
    config = tasked(_sized(config))
    config, dataset = choose(config, load_dataset(config.data))
    config = config.model_copy(update={"method": with_code(config.method)})
    if config.likelihood is None:
        dataset = replace(dataset, notes=(*dataset.notes, *advice(dataset)))
    config = tasked(_resolved(config, dataset))  # what a run is of, as its own file will say when it goes on
    dataset = dataset if config.data.standardise_targets else in_own_units(dataset)
    assert config.likelihood is not None  # _resolved saw to both
    assert config.model.name is not None
    outputs = _num_outputs(made(config.likelihood), dataset)
    spec = NetworkSpec(config.model.name, dataset.input_shape, outputs, config.model.options)
    return config, dataset, spec, plain(_seeded(spec, config.seed))


def twin_of(config: RunConfig, steps_per_epoch: int = 1) -> Method:
    """Return maximum likelihood with the same epochs, or as many steps, optimiser and patience, as far as there are any."""
    twin, steps = as_method(config.method).twin(), config.member.training
    found: Method = twin if steps is None else lengthened(twin, ceil(steps / steps_per_epoch))
    return found


def load_dataset(data: DataConfig, form: TableForm | None = None) -> Dataset:
    """Load what a configuration names; a text table as that of a run, where its `form` is given."""
    options = Options(target=data.target, task=data.task, table=replace(data.reader, form=form))
    dataset = load(data.name, root=data.root, split=data.split, image_size=data.image_size, options=options)
    dataset = replace(dataset, digests=dataset.digested())
    dataset = dataset.standardised() if data.standardise else dataset.unscaled()
    return dataset if data.standardise_targets else in_own_units(dataset)


def _sized(config: RunConfig) -> RunConfig:
    """Give a network images of the one size that it needs; images get LeNet by default."""
    name = config.data.name.lower()
    side = image_side(config.model.name or "lenet")
    if config.data.image_size is not None or side is None or Path(name).suffix in TABLES:
        return config
    if isdir(Path(config.data.name).expanduser()):  # of pictures of any size
        shape: tuple[int, ...] = (3, 0, 0)
    elif name in names():
        shape = describe(name, root=config.data.root).input_shape
    else:
        shape = load_dataset(config.data).input_shape
    if len(shape) != 3 or shape[1:] == (side, side):
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"image_size": side})})


def _resolved(config: RunConfig, dataset: Dataset) -> RunConfig:
    """Choose by the data what was left open."""
    likelihood = config.likelihood or (Categorical() if dataset.classes else Gaussian())
    classes = isinstance(likelihood, Categorical | Bernoulli)
    if classes != bool(dataset.classes) and not isinstance(likelihood, Named):
        of_values = [kind for kind in kinds_in(AnyLikelihood) if kind not in OF_CLASSES]
        other = " Are its labels numbers? --task regression." if dataset.classes else ""
        raise InvalidInput(
            f"--likelihood {likelihood.kind} does not fit '{dataset.name}', a task of {dataset.task}. Choices: "
            f"{', '.join(OF_CLASSES if dataset.classes else of_values)}.{other}"
        )
    name = config.model.name or ("lenet" if len(dataset.input_shape) == 3 else "mlp:50")
    model = ModelConfig(name=name, weights=config.model.weights, **config.model.options)
    own = config.data.batch_size or batch_size(config, len(dataset.train_inputs))
    scaled = config.data.standardise_targets and not made(likelihood).own_units
    data = config.data.model_copy(update={"batch_size": own, "standardise_targets": scaled})
    return config.model_copy(update={"likelihood": likelihood, "model": model, "data": data})


def batch_size(config: RunConfig, count: int) -> int:
    """Return the usual batch, or a smaller one of few examples: an epoch of three steps would leave weights where they are.

    Samplers of stochastic gradients keep the usual one: the noise of a small batch's gradient heats them.
    """
    if not config.member.small_batches:
        return BATCH
    return min(BATCH, max(LEAST, ceil((1 - config.data.validation) * count / STEPS)))


def _dropping(config: RunConfig, problem: Problem) -> RunConfig:
    """Let each method choose by the problem what was left open, as Monte Carlo dropout a rate."""

    def given(method: Any) -> Any:
        changed = each_stage(method, given)
        return as_method(changed).suited(problem) if isinstance(changed, Method) else changed

    return config.model_copy(update={"method": given(config.method)})


def _num_outputs(likelihood: Likelihood, dataset: Dataset) -> int:
    if isinstance(likelihood, Bernoulli):
        if dataset.num_classes != 2:
            raise InvalidInput(
                f"--likelihood bernoulli needs 2 classes, '{dataset.name}' has {dataset.num_classes}. Use categorical."
            )
        return 1
    if isinstance(likelihood, Categorical):
        return dataset.num_classes
    own = getattr(likelihood, "own", likelihood)  # of a class of one's own, which may say how many it reads of a target
    width = getattr(own, "width", None)
    return max(1, dataset.num_classes) if width is None else int(width(1))


def _seeded(spec: NetworkSpec, seed: int) -> nn.Module:
    """Build the network with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "network"))
        return spec.build()


def _check(config: RunConfig, data: TensorData) -> None:
    _check_prior(config)
    member = config.member
    if data.augment is not None and data.inputs.dim() != 4:
        raise InvalidInput(f"--augment flips and shifts images; '{config.data.name}' has none. Leave it out.")
    if data.augment is not None and not member.augmentable:
        raise InvalidInput(
            f"--augment shows other images at every pass, and {member.kind} needs the same. Leave it out."
        )
    _check_weights(config)
    if member.patience is not None and data.held_out is None:
        raise InvalidInput("--patience needs a validation set to watch; give --validation more than 0.")
    if config.twin and config.method == twin_of(config):
        raise InvalidInput("--twin: maximum likelihood is its own twin. Choose another --method, or --no-twin.")


def _check_weights(config: RunConfig) -> None:
    """Refuse what would throw weights away that were given, or take weights as trained that were not."""
    weights, method = config.model.weights, as_method(config.method)
    kept = config.member.epochs == 0
    if kept and weights is None:
        raise InvalidInput(
            "--method.method none takes the network's weights as they are, so they must come from somewhere: --weights FILE. "
            "Or leave out --method.method none, and laplace trains the network that it is around."
        )
    if weights is not None and not method.keeps_start:
        raise InvalidInput(
            f"--ensemble {getattr(method, 'n', '')} gives every member fresh weights, and --weights would be lost. Add "
            "--method.reinitialise false, or leave one out."
        )
    if kept and config.twin:
        raise InvalidInput(
            f"--twin: with --method.method none the network is its own twin: posterity evaluate {weights} --model "
            f"{config.model.name} --data {config.data.name}. Leave out --twin."
        )


def _check_prior(config: RunConfig) -> None:
    """Refuse what a method would refuse of a prior, before a run directory is made."""
    for method in stages_of(config.method):
        if flaw := as_method(method).prior_flaw(made(config.prior)):
            raise InvalidInput(flaw)
