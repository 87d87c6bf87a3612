"""A trained posterior from disk, with the network that it belongs to and the data that it was made of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch

from posterity.cli.config import DataConfig, RunConfig
from posterity.cli.directory import TWIN, RunDirectory
from posterity.cli.experiment import Experiment, load_dataset
from posterity.cli.merge import checked
from posterity.cli.origin import data_of, describe_data, part
from posterity.cli.own import Named, code_in
from posterity.data import Dataset, Scaling
from posterity.data.form import TableForm
from posterity.data.own import TABLES
from posterity.data.splits import held_out
from posterity.errors import CorruptFile, InvalidInput, Mismatch, unknown
from posterity.methods import KINDS
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.files import load, read_specification
from posterity.posteriors.specification import Specification
from posterity.text import short
from posterity.train.batches import TensorData
from posterity.train.identity import differences
from posterity.zoo import NetworkSpec


@dataclass(frozen=True, eq=False)
class Saved:
    """A posterior, its twin where there is one, and how they came about."""

    posterior: FunctionPosterior
    config: RunConfig
    data: dict[str, Any]  # as `described` wrote it
    directory: RunDirectory | None  # None where a posterior file was named
    twin: FunctionPosterior | None = None
    from_run: bool = True  # False: network and data were said by flags, and what was held out is not known
    stamp: tuple[int, int] | None = None  # of the run's posterior file: each one that is written has another

    @property
    def scaling(self) -> Scaling | None:
        """The scaling of the training data; None where they were used as they are."""
        found = self.data["scaling"]
        if found is None:
            return None
        mean, std = torch.tensor(found["input_mean"]), torch.tensor(found["input_std"])
        return Scaling(mean, std, found["target_mean"], found["target_std"])

    def refuse_replaced(self) -> None:
        """Raise `InvalidInput` where the run's directory holds another posterior than this one, or none, by now."""
        if self.directory is not None and _stamp(self.directory.posterior()) != self.stamp:
            raise InvalidInput(
                f"{self.directory.path} was trained again or removed in the meantime: what was found is not of the posterior "
                "that is there now, and nothing was kept. Run the command again."
            )

    @property
    def form(self) -> TableForm:
        """How the training table was read and encoded; of runs of earlier versions, and arrays, as plain numbers."""
        found = self.data.get("form")
        return TableForm.plain(self.data["features"]) if found is None else TableForm.from_dict(found)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def described(experiment: Experiment) -> dict[str, Any]:
    """Return what a posterior file says of its configuration, network and data."""
    return {
        "config": experiment.config.model_dump(mode="json"),
        "model": experiment.spec.to_dict(),
        "data": describe_data(experiment.dataset),
    }


def knows_itself(file: Path) -> bool:
    """Tell whether a posterior file says how to build its network and what its data are, as those of runs do."""
    return {"config", "model", "data"} <= set(read_specification(file))


def open_run(path: Path, trust: bool = False) -> Saved:
    """Open a run directory or a posterior file.

    Raises:
        InvalidInput: where there is none, or it cannot be rebuilt; CorruptFile, Mismatch as `posterity.load` does.
    """
    directory = RunDirectory(path) if path.is_dir() else None
    file = directory.posterior() if directory else path
    if directory and not file.is_file():
        ready = directory.config.is_file()
        advice = f"Finish its training first: posterity train --resume {path}" if ready else "Is it a run's directory?"
        raise InvalidInput(f"{path} holds no posterior.safetensors. {advice}")
    if not file.exists():
        raise InvalidInput(f"There is no run or posterior file {path}.")
    if not knows_itself(file):
        raise InvalidInput(
            f"{file} was not saved by `posterity train`: it does not say how to build its network. "
            "Say it by --model and --data, where a command has them, or use it from Python: posterity.load(path, network)."
        )
    stamp, specification = _stamp(file), read_specification(file)
    twin = None
    if directory and directory.posterior(TWIN).is_file():
        twin = _load(directory.posterior(TWIN), trust)
    config, data = _config_of(specification, file), data_of(specification, file)
    if "form" not in data:  # a run of an earlier version, which left out no column but constant ones
        kept = config.data.model_copy(update={"keep": tuple(data["features"])})
        config = config.model_copy(update={"data": kept})
    return Saved(_load(file, trust), config, data, directory, twin, stamp=stamp)


def scored_data(saved: Saved, name: str | None = None) -> Dataset:
    """Load the run's own test data, or another data set's, scaled as the run's training data were.

    Raises:
        Mismatch: where the run's data have changed since, or the other data set has other inputs, classes or columns.
    """
    config = saved.config.data
    if name is None:
        return unchanged(load_dataset(config), saved)
    kept = config.model_dump(exclude={"name", "split", "validation", "batch_size", "augment", "test", "split_by"})
    if Path(name).suffix.lower() not in TABLES:  # whose columns nothing is said of
        kept = {key: kept[key] for key in ("image_size", "standardise", "standardise_targets", "task", "root")}
    form = None if saved.data.get("form") is None else saved.form
    if form is not None:
        kept["task"] = saved.data["task"]
    other = load_dataset(DataConfig(name=name, **kept), form)
    for what, mine, theirs in (
        ("inputs", tuple(saved.data["input_shape"]), other.input_shape),
        ("columns", tuple(saved.data["features"]), other.features),
        ("task", saved.data["task"], other.task),
    ):
        if mine != theirs:
            raise Mismatch(f"--data {name} does not fit this posterior: its {what}: {theirs}, the posterior's: {mine}.")
    return _rescaled(_with_classes(other, tuple(saved.data["classes"])), saved.scaling)


def unchanged(dataset: Dataset, saved: Saved) -> Dataset:
    """Refuse data that are not those of the run; runs of earlier versions do not know theirs."""
    known = saved.data.get("digests", {})
    changed = [name for name, kept in known.items() if dataset.digests.get(name) != kept]
    if changed:
        lines = differences(changed, known, dataset.digests)
        raise Mismatch(
            f"'{dataset.name}' is not what this run was made of any more. What differs: {'; '.join(lines)}. Put its data back, "
            "or train again."
        )
    return dataset


def _with_classes(other: Dataset, classes: tuple[str, ...]) -> Dataset:
    """Number another data set's labels as the run did, by the names of its classes; some may be absent.

    Raises:
        Mismatch: for classes that the run does not know.
    """
    if other.classes == classes:
        return other
    if strange := [name for name in other.classes if name not in classes]:
        some = ", ".join(strange[:5]) + (" …" if len(strange) > 5 else "")
        raise Mismatch(
            f"'{other.name}' has classes that the posterior does not know: {some}; the posterior's: {', '.join(classes)}. "
            "How it takes inputs of another kind, `posterity ood` shows."
        )
    number = torch.tensor([classes.index(name) for name in other.classes])
    train, test = number[other.train_targets], number[other.test_targets]
    return replace(other, classes=classes, train_targets=train, test_targets=test)


def training_data(saved: Saved, dataset: Dataset) -> TensorData:
    """Return what the run was trained on, split by its seed from the share that was held out (`held_out`, if any).

    Raises:
        InvalidInput: where the data have changed since.
    """
    data, device = saved.config.data, saved.posterior.device
    size = data.batch_size or TensorData.batch_size
    whole = TensorData(dataset.train_inputs.to(device), dataset.train_targets.to(device), size)
    own = held_out(whole, dataset.blocks, data.validation, saved.config.seed)
    if own.num_data != saved.posterior.problem.num_data and not saved.from_run:
        raise InvalidInput(
            f"'{dataset.name}' gives {own.num_data:,} training examples, and the posterior is of "
            f"{saved.posterior.problem.num_data:,}: name its own data with --data, or the share of them that was held out with "
            "--data.validation 0.1."
        )
    if own.num_data != saved.posterior.problem.num_data:
        raise InvalidInput(
            f"'{dataset.name}' now gives {own.num_data:,} training examples, and the run had "
            f"{saved.posterior.problem.num_data:,}: its data have changed. Train again: posterity train --config …"
        )
    return own


def _load(file: Path, trust: bool) -> FunctionPosterior:
    specification = read_specification(file)
    network = NetworkSpec.from_dict(part(specification, "model", file))
    if network.imports_code and not trust:
        raise InvalidInput(
            f"{file} needs the network '{network.name}', code that would be run. Add --trust if it is yours."
        )
    if not network.imports_code:
        _refuse_another(network, file)
    config = _config_of(specification, file)
    own = {noun: one for noun in ("prior", "likelihood") if isinstance(one := getattr(config, noun), Named)}
    if own and not trust:
        names = " and ".join(f"'{one}'" for one in own.values())
        raise InvalidInput(f"{file} needs {names}, code that would be run. Add --trust if it is yours.")
    return load(file, network.build(), **{noun: one.made for noun, one in own.items()})


def _refuse_another(network: NetworkSpec, file: Path) -> None:
    """Refuse a network that the file is not of, or too large for its numbers, before any memory is taken for it."""
    said = Specification.of(read_specification(file), file)
    if sum(map(prod, said.parameters.values())) > file.stat().st_size:
        raise CorruptFile(f"{file} is too small for the numbers of its network. Save or copy it again.")
    with torch.device("meta"):
        shapes = {name: list(one.shape) for name, one in network.build().named_parameters()}
    if shapes != said.parameters:
        raise Mismatch(f"{file} is not of the network that it names, '{short(network.name)}': its shapes are others.")


def _config_of(specification: Mapping[str, Any], file: Path) -> RunConfig:
    """Return the configuration that a header holds, after a look at what it says of the method and of its remarks."""
    where, config = f"the header of {file}", part(specification, "config", file)
    method = checked({**config, "method": part(specification, "method", file)}, {}, where).method
    remarks = specification.get("remarks", [])
    if not isinstance(remarks, list) or not all(isinstance(one, str) for one in remarks):
        raise CorruptFile(f"{file} has a header whose 'remarks' are no list of texts. Save or copy it again.")
    found = checked(config, {}, where)
    if strange := set(code_in(method)) - set(code_in(found.method)):
        raise unknown("method", min(strange), KINDS)  # its configuration names no such code
    return found


def _rescaled(other: Dataset, scaling: Scaling | None) -> Dataset:
    inputs, targets, own = other.test_inputs, other.test_targets, other.scaling
    if own is not None:
        inputs = inputs * own.input_std + own.input_mean
        targets = targets if other.classes else own.restore_targets(targets)
    if scaling is not None:
        inputs = scaling.scale_inputs(inputs)
        targets = targets if other.classes else scaling.scale_targets(targets)
    return replace(other, test_inputs=inputs, test_targets=targets, scaling=scaling)
