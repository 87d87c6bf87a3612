"""An ensemble of any method: the same problem inferred n times from independent starts, mixed with equal weights.

q(θ) = 1/n Σ_k q_k(θ)

`Ensemble(MLE(), 5)` is a deep ensemble (Lakshminarayanan et al. 2017), without its adversarial training.
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from inspect import signature
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from posterity.errors import InvalidInput, PosterityWarning
from posterity.methods.base import Method, as_method
from posterity.methods.map import MLE
from posterity.methods.records import AnyMethod
from posterity.model.padding import padding_kept
from posterity.model.problem import Problem
from posterity.options import STRICT, dataclass
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.mixture import Mixture
from posterity.types import Data, Engine


@dataclass(frozen=True, config=STRICT)
class Ensemble(Method):
    """Run a method n times and mix what it finds.

    Args:
        method: what each member does.
        n: number of members.
        reinitialise: give each member fresh weights, seeded by its number, but for what is frozen; see `reinitialise`. False
            keeps the network's weights as the common start, for pretrained networks: members then differ by data order
            and noise alone.
    """

    method: AnyMethod = Field(default_factory=MLE)
    n: Annotated[int, Field(ge=1)] = 5
    reinitialise: bool = True
    kind: Literal["ensemble"] = "ensemble"
    stages: ClassVar[tuple[str, ...]] = ("method",)
    centred: ClassVar[bool] = False

    @property
    def title(self) -> str:
        member = as_method(self.method).title
        return f"Ensemble of {self.n} × {member if member.isupper() else member.lower()}"

    @property
    def growing(self) -> tuple[str, ...]:
        return ("n", *(f"method.{name}" for name in as_method(self.method).growing))

    @property
    def starts_anew(self) -> bool:
        return not self.reinitialise

    @property
    def keeps_start(self) -> bool:
        return not self.reinitialise

    @property
    def member(self) -> Method:
        return as_method(self.method).member

    def twin(self) -> Method:
        return as_method(self.method).twin()

    def infer(self, problem: Problem, data: Data, engine: Engine) -> Mixture:
        """Infer the members one after the other; a finished one is not run again on resume."""
        members: list[FunctionPosterior] = []
        for k in range(self.n):
            part = engine.fork(f"member-{k + 1}")
            own = problem.snapshot()
            if self.reinitialise:
                seed = int(
                    torch.randint(2**31, (), generator=part.streams()("initialisation"), device=own.theta().device)
                )
                unmoved = reinitialise(own, seed)
                if k == 0 and unmoved:
                    _say_alike(unmoved)
                own = replace(own)  # its latents anew, too
            member = as_method(self.method).infer(own, data, part)
            if not isinstance(member, FunctionPosterior):
                raise InvalidInput(
                    f"A member, by {as_method(self.method).title}, is a {type(member).__name__}, which cannot be mixed: "
                    "let its class derive from posterity.Posterior."
                )
            members.append(member)
        _say_equal(members, self.reinitialise)
        return Mixture.of(tuple(members))


def reinitialise(problem: Problem, seed: int) -> tuple[str, ...]:
    """Draw fresh weights, in place, without touching torch's global random numbers; return the names of those that stay.

    Each module draws its own by `reset_parameters` (or `_reset_parameters`, as attention calls it), those inside of it before.
    What is trained but no module draws anew, such as an `nn.Parameter` in a module of one's own, gets normals of its present
    mean and std. What somebody has set to one number stays: zeros, as of the second factor of a LoRA, biases, scales, and raw
    parameters. So do frozen parameters, and the statistics of normalisation that keeps still.
    """
    network = problem.network
    before = {n: (p, p._version, p.detach().clone()) for n, p in network.named_parameters()}
    statistics = {n: b.clone() for n, b in network.named_buffers() if n.rpartition(".")[0] in (problem.still or ())}
    with torch.random.fork_rng(), padding_kept(network), torch.no_grad():
        torch.manual_seed(seed)
        for module in reversed(list(network.modules())):
            if any(trained := [p.requires_grad for p in module.parameters()]) or not trained:
                _reset(module)
        unmoved = []
        for name, parameter in network.named_parameters():
            first, version, values = before[name]
            drawn = parameter is not first or parameter._version != version
            if not first.requires_grad:
                parameter.requires_grad_(False).copy_(values)  # also one that its module has made anew
            elif _constant(values, drawn):
                usual = drawn and (
                    values.dim() < 2 or torch.equal(parameter, values)
                )  # biases, and what modules start at
                unmoved += [name] * (not usual)
                parameter.copy_(values)
            elif not drawn:
                parameter.copy_(values.mean() + values.std(correction=0) * torch.randn_like(values))
        for name, buffer in network.named_buffers():
            if name in statistics:
                buffer.copy_(statistics[name])
    return tuple(unmoved)


def _constant(values: Tensor, drawn: bool) -> bool:
    """Whether somebody has set all of a tensor's numbers to one; of what a module draws: to 0, or those of a vector."""
    alike = bool((values == values.flatten()[:1]).all())
    vector = (
        values.dim() < 2 and values.numel() > 1
    )  # a bias, a scale; weights of one value are no start that anybody wants
    return alike and (not drawn or vector or not values.any())


def _reset(module: nn.Module) -> None:
    for name in ("reset_parameters", "_reset_parameters"):
        reset = getattr(module, name, None)
        if callable(reset) and not any(
            p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            for p in signature(reset).parameters.values()
        ):
            with parametrize.cached():  # what a parametrisation computes is written into, and assigned by its inverse
                reset()
                drawn = {n: getattr(module, n).clone() for n in getattr(module, "parametrizations", ())}
            for part, value in drawn.items():
                with suppress(NotImplementedError):
                    setattr(module, part, value)
            return


def _say_alike(names: tuple[str, ...]) -> None:
    shown = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
    warnings.warn(
        f"All members start with the same {shown}: there all numbers are equal, as somebody has set them. They differ by what "
        "the training makes of them; other numbers, torch.nn.init.normal_(…) say, would be drawn anew for each member.",
        PosterityWarning,
        stacklevel=3,
    )


def _say_equal(members: Sequence[FunctionPosterior], reinitialised: bool) -> None:
    """Say that an ensemble is one function: nothing in it has told its members apart."""
    first, *others = members
    rounding = 1000 * torch.finfo(first.mean.dtype).eps * first.mean.abs().max()  # of sums in another order
    if not others or any((first.mean - other.mean).abs().max() > rounding for other in others):
        return
    cure = (
        "give the network other weights than equal ones"
        if reinitialised
        else "Ensemble(…, reinitialise=True), or batches that are smaller than the data set, whose order differs"
    )
    warnings.warn(
        f"All {len(members)} members are the same, and the ensemble adds no spread to one of them: they started from the "
        f"same weights and were trained by the same steps. To tell them apart: {cure}.",
        PosterityWarning,
        stacklevel=3,
    )
