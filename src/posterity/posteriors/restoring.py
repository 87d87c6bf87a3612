"""A posterior from what its file says and holds: checked against its network and its family before anything is made."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor, nn

from posterity.core.layout import Layout, difference, trainable
from posterity.documents import damaged
from posterity.errors import CorruptFile, InvalidInput, Mismatch, unknown
from posterity.model.informative import Informative
from posterity.model.padding import padding_rows
from posterity.model.problem import Problem
from posterity.posteriors import stated
from posterity.posteriors.base import FAMILIES, FunctionPosterior
from posterity.posteriors.chains import Chains
from posterity.posteriors.dropout import Dropout
from posterity.posteriors.identity import structure
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.low_rank import LowRankGaussian
from posterity.posteriors.mixture import Mixture, restored, stated_for
from posterity.posteriors.specification import FORMAT, Described, Specification
from posterity.posteriors.stated import Held, Stated, under, within
from posterity.tensors import AGAIN, SEAL, Entry, Values
from posterity.types import Likelihood, Prior

OWN = {*Specification.model_fields, SEAL}
OURS = (Chains, Dropout, Linearised, LowRankGaussian)  # with what they import, all families that come with this library


def checked(values: Values, path: Path) -> Specification:
    """Check what a file says of itself. Errors are those of `read_specification`."""
    family = values.get("family")
    if values.get("format") == FORMAT and isinstance(family, str) and family not in FAMILIES:
        own = unknown("family of posteriors", family[:80], FAMILIES)
        raise InvalidInput(f"{own} One of your own is known once its class is imported.")
    found = Specification.of(values, path)
    if found.components is not None and found.family != Mixture.kind:
        raise damaged(path, f"a {found.family} has no components", AGAIN)
    return found


@dataclass
class Restoring:
    """A posterior that is being restored: first what its file says is checked, then its tensors are put in place."""

    path: Path
    networks: tuple[nn.Module, ...]
    prior: Prior | None
    likelihood: Likelihood | None

    def check(self, values: Values, entries: Mapping[str, Entry]) -> None:
        """Hold what a file says against the networks, and what it holds against what its family needs there."""
        self.said = checked(values, self.path)
        self.parts: Sequence[Described] = self.said.components or [self.said]
        held = {name: entry[:2] for name, entry in entries.items()}
        networks = self._matched()
        own = [self._problem(part, one) for part, one in zip(self.parts, networks, strict=True)]
        self.problems = own
        first = stated.buffers(own[0])
        buffers = under("buffer.", held)
        if {n: shape for n, (_, shape) in buffers.items()} != {n: shape for n, (_, shape) in first.items()}:
            raise Mismatch(
                f"{self.path} does not fit this network: its buffers are {sorted(buffers)[:8]}, the "
                f"network's {sorted(first)[:8]}."
            )
        needed = within("buffer.", first) | self._of_problem(self.parts[0], own[0], held)
        try:
            needed |= within("posterior.", self._of_family(under("posterior.", held)))
        except CorruptFile as error:
            raise damaged(self.path, str(error), AGAIN) from error
        if self.said.components is not None:
            for i, (part, problem) in enumerate(zip(self.parts, own, strict=True)):
                start = f"component.{i}."
                needed |= within(start, self._of_problem(part, problem, under(start, held)))
        if wrong := stated.difference(needed, held):
            raise damaged(self.path, f"of a {self.said.family} of this network {wrong}", AGAIN)

    def posterior(self, tensors: Mapping[str, Tensor]) -> FunctionPosterior:
        """Restore the posterior from the tensors that were checked."""
        parts = under("posterior.", tensors)
        if self.said.components is None:
            problem = self._filled(0, tensors).snapshot(under("buffer.", tensors))
            found = restored(FAMILIES[self.said.family], problem, parts)
        else:
            every = range(len(self.problems))
            found = Mixture.restored([self._filled(i, under(f"component.{i}.", tensors)) for i in every], parts)
        if flaw := found.flaw():
            raise damaged(self.path, flaw, AGAIN)
        found = self._specified(found)
        found.provenance.update({k: v for k, v in (self.said.model_extra or {}).items() if k not in OWN})
        return found

    def _specified(self, found: FunctionPosterior) -> FunctionPosterior:
        """Restore what a file says beside its tensors; earlier versions wrote the temperature of a descent with the method."""
        if self.said.spec is not None:
            return found.specified(self.said.spec)
        method = (self.said.model_extra or {}).get("method")
        while isinstance(method, Mapping) and isinstance(method.get("method"), Mapping):
            method = method["method"]
        temperature = method.get("temperature") if isinstance(method, Mapping) else None
        return found.descended(float(temperature)) if isinstance(temperature, int | float) else found

    def _matched(self) -> Sequence[nn.Module]:
        """Give each component its network."""
        given, wanted = self.networks, self.said.components
        if wanted is None:
            if len(given) != 1:
                raise Mismatch(f"{self.path} is a posterior of one network, and {len(given)} were given.")
            return given
        several = given * len(wanted) if len(given) == 1 else given
        if len(several) != len(wanted):
            names = ", ".join(part.network for part in wanted)[:200]
            raise Mismatch(
                f"{self.path} is a mixture of {len(wanted)} ({names}), and {len(given)} networks were given."
            )
        return several

    def _problem(self, part: Described, network: nn.Module) -> Problem:
        """Build the problem that a file is of, around a network that is its own."""
        prior = part.restored_prior(self.path) if self.prior is None else self.prior
        likelihood = part.restored_likelihood(self.path) if self.likelihood is None else self.likelihood
        _same_network(part, network, self.path)
        if part.constant is not None and {n: tuple(r) for n, r in part.constant.items()} != padding_rows(network):
            raise Mismatch(
                f"{self.path} has rows of padding {part.constant}; the network's are {padding_rows(network)}."
            )
        random, movers = frozenset(part.random), frozenset(part.movers)
        # A file without constants is of a version that drew rows of padding like any others: it is drawn from as it was.
        padding = part.constant is not None
        return Problem(network, prior, likelihood, part.num_data, random, movers=movers, padding=padding)

    def _of_problem(self, part: Described, problem: Problem, held: Held) -> Stated:
        """Return what a file holds of a problem beside its posterior: constant rows, and an informative prior's numbers."""
        shapes = part.parameters
        rows = {n: stated.sized(problem, len(own), *shapes[n][1:]) for n, own in (part.constant or {}).items()}
        found = within("constant.", rows)
        if part.of_informative:
            size = part.informative_layout(self.path).size
            own: dict[str, tuple[int, ...]] = {"prior.mean": (size,), "prior.std": (size,)}
            if "prior.factor" in held:
                own["prior.factor"] = size, stated.length(held, "prior.factor", 1)
            dtype = held["prior.mean"][0] if "prior.mean" in held else stated.sized(problem)[0]
            found |= {name: (dtype, shape) for name, shape in own.items()}
        return found

    def _of_family(self, held: Held) -> Stated:
        if self.said.components is not None:
            return Mixture.stated_for(self.problems, held)
        return stated_for(FAMILIES[self.said.family], self.problems[0], held)

    def _filled(self, i: int, tensors: Mapping[str, Tensor]) -> Problem:
        """Put a file's own constant rows and prior into a problem that was built without them."""
        part, problem = self.parts[i], self.problems[i]
        if part.constant:
            network = deepcopy(problem.network)
            with torch.no_grad():
                for name, rows in part.constant.items():
                    parameter = network.get_parameter(name)
                    parameter[rows] = tensors[f"constant.{name}"].to(parameter)
            problem = replace(problem, network=network, where=frozenset(part.random))
        if part.of_informative and self.prior is None:
            layout = part.informative_layout(self.path)
            try:
                prior = Informative.from_tensors(layout, under("prior.", tensors))
            except InvalidInput as error:
                raise damaged(self.path, str(error), AGAIN) from error
            problem = replace(problem, prior=prior, where=frozenset(part.random))
        return problem


def _same_network(said: Described, network: nn.Module, path: Path) -> None:
    name = type(network).__qualname__
    if name != said.network:
        raise Mismatch(f"{path} is a posterior of {said.network}; it was given a {name}. Build that network.")
    own = Layout.of(trainable(network))
    shapes = {n: tuple(s) for n, s in said.parameters.items()}
    if shapes != {n: tuple(s) for n, s in own.named_shapes().items()}:
        raise Mismatch(f"{path}: " + difference(own, shapes))
    saved, given = said.structure, structure(network)
    if saved != given:  # equal shapes, but another activation, stride or padding
        pairs = zip_longest(saved.splitlines(), given.splitlines(), fillvalue="nothing")
        row = next((a.strip(), b.strip()) for a, b in pairs if a != b)
        raise Mismatch(f"{path} is a posterior of a network with {row[0]}; the one given has {row[1]} there.")
    dtype = str(next(iter(trainable(network).values())).dtype).removeprefix("torch.")
    if dtype != said.dtype:
        raise Mismatch(f"{path} holds {said.dtype} weights; the network's are {dtype}. Convert the network first.")
