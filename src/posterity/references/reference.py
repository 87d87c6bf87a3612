"""What a long run of NUTS said of a task: functions on fixed inputs, kept in a small file with the run's diagnostics."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from os.path import isfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posterity.documents import AGAIN, damaged
from posterity.errors import CorruptFile, InvalidInput
from posterity.posteriors.chains import Chains
from posterity.predict.predictive import AnyPredictive, predictive
from posterity.references.tasks import Task, task
from posterity.tensors import Entry, read, write
from posterity.types import LIKELIHOOD

ENTRY, FORMAT = "posterity", "posterity-reference-1"
KEPT = 64  # functions of each chain, evenly spread over it


@dataclass(frozen=True, eq=False)
class Reference:
    """Functions drawn from p(θ | D) of one task, by chain, in the units that the network is trained in.

    Args:
        name: of the task, see `task`.
        inputs: the probes, (B, ...).
        outputs: the network's at each of them, (C, S, B, *out), of C chains with S evenly spread draws each; kept as
            float16, whose rounding (5e-4 of a value) is far below the error of that many draws.
        latents: the likelihood's own coordinates of the same draws, unconstrained, each (C, S, ...).
        facts: how the run was made and what its diagnostics said of all its draws: `method`, `diagnosis`, `seconds`, …
    """

    name: str
    inputs: Tensor
    outputs: Tensor
    latents: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @property
    def task(self) -> Task:
        return task(self.name)

    @property
    def predictive(self) -> AnyPredictive:
        """The predictive at the probes, an equal mixture of the C·S functions.

        >>> reference("moons").predictive.mean.shape
        torch.Size([225, 2])
        """
        outputs = self.outputs.flatten(0, 1).float()
        latents = {n: v.flatten(0, 1) for n, v in self.latents.items()}
        return predictive(self.task.likelihood(outputs, latents), outputs)

    @classmethod
    def of(cls, name: str, posterior: Chains, facts: Mapping[str, Any]) -> "Reference":
        """Evaluate a run's draws at the task's probes, and keep what a file needs."""
        _, _, probes = task(name).data()
        chains, count = posterior.energies.shape
        chosen = torch.linspace(0, count - 1, min(KEPT, count)).round().long()
        outputs = posterior.evaluated(probes).unflatten(0, (chains, count))[:, chosen]
        tails = posterior.by_chain[:, chosen]
        views = posterior.problem.layout.views(tails)
        latents = {n.removeprefix(LIKELIHOOD): v for n, v in views.items() if n.startswith(LIKELIHOOD)}
        return cls(name, probes, outputs.half(), latents, {"chains": chains, "draws": count, **facts})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whose header holds the facts."""
        tensors = {
            "inputs": self.inputs,
            "outputs": self.outputs,
            **{f"latent.{n}": v for n, v in self.latents.items()},
        }
        write(Path(path), tensors, ENTRY, {**self.facts, "format": FORMAT, "name": self.name})

    @classmethod
    def load(cls, path: str | Path) -> "Reference":
        """Read what `save` wrote.

        Raises:
            InvalidInput: where there is no such file.
            CorruptFile: where it is no reference.
        """
        if not isfile(path):
            raise InvalidInput(f"There is no reference file {path}. Make it: python benchmarks/references.py make NAME")
        facts, tensors = read(Path(path), ENTRY, partial(_check, Path(path)))
        del facts["format"]
        latents = {n.removeprefix("latent."): v for n, v in tensors.items() if n.startswith("latent.")}
        return cls(facts.pop("name"), tensors["inputs"], tensors["outputs"], latents, facts)


def _check(path: Path, facts: Mapping[str, Any], held: Mapping[str, Entry]) -> None:
    """Hold what a reference says, and the types and shapes of its tensors, against each other."""
    if facts.get("format") != FORMAT:
        raise CorruptFile(f"{path} is no reference: its header does not say '{FORMAT}'.")
    if not isinstance(facts.get("name"), str):
        raise damaged(path, "it does not say of which task it is", AGAIN)
    shapes = {name: entry.shape for name, entry in held.items()}
    inputs, outputs = shapes.get("inputs", ()), shapes.get("outputs", ())
    beside = {name: shape for name, shape in shapes.items() if name not in ("inputs", "outputs")}
    fits = len(inputs) > 0 and len(outputs) > 2 and outputs[2] == inputs[0]
    fits = fits and all(entry.dtype.is_floating_point for name, entry in held.items() if name != "inputs")
    if not fits or any(n[:7] != "latent." or s[:2] != outputs[:2] for n, s in beside.items()):
        raise damaged(path, "its tensors are not the inputs, outputs and latents of chains", AGAIN)


def reference(name: str) -> Reference:
    """Load the reference of a task: `cubic`, `moons`, `boston` or `digits`.

    Raises:
        InvalidInput: for a name that is no task, and a reference that has not been made.

    >>> found = reference("moons")
    >>> found.outputs.shape, found.facts["diagnosis"]["functions"]["rhat"] < 1.05
    (torch.Size([4, 64, 225, 2]), True)
    """
    task(name)
    return Reference.load(Path(str(files("posterity.references").joinpath(f"{name}.safetensors"))))
