"""All that a fit will call is tried first, on two examples and on copies: what would fail at its end is refused before it.

One step in training mode at the smallest batch that will come, the copy that a posterior is made of, taken after that step,
and what prediction and validation ask: nothing of the network itself, nor of torch's random numbers, is moved.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.modules.batchnorm import _BatchNorm

from posterity.core.entered import entered
from posterity.errors import InvalidInput, PosterityError, PosterityWarning
from posterity.model.alone import alike, refuse_count, unmoved
from posterity.model.derivatives import altered
from posterity.model.padding import KnownLookups
from posterity.model.plain import copied, outside
from posterity.model.problem import Problem
from posterity.posteriors.samples import Samples
from posterity.predict.predictive import predictive
from posterity.types import Batch
from posterity.weighing import rows

ROWS = 128  # examples whose distributions are made


def rehearse(problem: Problem, batch: Batch, held_out: Batch | None = None, smallest: int | None = None) -> None:
    """Try a step, the copy after it, and the predictions of validation.

    Args:
        batch: of the training data; two of its examples are used.
        held_out: of the validation data, where there are any.
        smallest: how many data the smallest batch will hold; 2 are tried where it is not known.

    Raises:
        InvalidInput: with the reason, by name, and the cure.
    """
    trial = _copy(problem)
    trial.train()
    with unmoved():
        _step(trial, rows(batch, slice(min(2, smallest or 2))))
        _say_altered(trial, batch[0][:2], batch[1][:2])
        after = _copy(trial)  # now that it has run
        after.network.eval()
        # Nobody reads these predictions: whatever normalises may do so by the statistics that it has.
        after = replace(after, still=frozenset(name for name, _ in after.network.named_modules()))
        _predict(after, (batch[0][:2], batch[1][:2]))
        with torch.no_grad():  # outputs of either sign, say, where two may be of one
            _log_prob(after, after.outputs(batch[0][:ROWS].clone()), batch[1][:ROWS])
        if held_out is not None:
            _predict(after, (held_out[0][:2], held_out[1][:2]))


def _copy(problem: Problem) -> Problem:
    random = frozenset(problem.coordinates.random_names)
    return replace(problem, network=copied(problem.network), where=random)


@contextmanager
def _saying(what: str, cure: str = "") -> Iterator[None]:
    """Turn whatever a part that is not ours raises into one line."""
    try:
        yield
    except PosterityError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        cure = _BOUNDS if "satisfy the constraint" in reason else cure
        raise InvalidInput(f"{what}: {reason.rstrip('.: ')}.{cure}") from error


def _step(trial: Problem, batch: Batch) -> None:
    """Take one step's forward and backward pass, as training does."""
    inputs, targets = batch[:2]
    running: list[tuple[str, nn.Module]] = []
    with torch.enable_grad():
        try:
            with _following(trial.network, running), entered(KnownLookups(trial.network)):
                outputs = trial.outputs(rows := inputs.clone())
        except PosterityError:
            raise
        except Exception as error:
            raise InvalidInput(_in_training(error, running, len(inputs))) from error
        refuse_count(outputs, len(inputs), trial.network)
        nll = -_log_prob(trial, outputs, targets).mean()
        _refuse_gradients(trial, nll, rows)


def _refuse_gradients(trial: Problem, nll: Tensor, inputs: Tensor) -> None:
    """Refuse a loss that does not depend on the parameters, depends on others, or has no finite gradient."""
    name = type(trial.network).__name__
    params = dict(trial.params)
    leaf = outside(nll, [*params.values(), *trial.network.parameters()], inputs)
    if leaf is not None:
        raise InvalidInput(
            f"{name} computes with a trainable tensor of shape {tuple(leaf.shape)} that is none of its parameters, so that it "
            "would not be inferred: hold it as nn.Parameter, modules in nn.ModuleList, and no closure over another module."
        )
    grads: dict[str, Tensor | None] = {}
    if nll.requires_grad:
        with _saying(f"{name} has no gradient", _IN_PLACE):
            values = torch.autograd.grad(nll, list(params.values()), allow_unused=True)
            grads = dict(zip(params, values, strict=True))
    network = dict(trial.network.named_parameters())
    if not any(grad is not None for n, grad in grads.items() if n in network):
        raise InvalidInput(
            f"The outputs of {name} do not depend on any of its trainable parameters: does its forward detach them, run "
            "under torch.no_grad or checkpoint(…, use_reentrant=True), or belong to another module than the one that was given?"
        )
    if cut_off := [n for n in network if grads.get(n) is None and n in params]:
        _refuse_detached(trial, inputs.detach(), cut_off)
    for n, grad in grads.items():
        if grad is not None and not (grad.coalesce().values() if grad.is_sparse else grad).isfinite().all():
            raise InvalidInput(
                f"The gradient of '{n}' is NaN or infinite for the first examples: an operation in {name} has no derivative "
                "there, as a square root or a norm of 0; add a small number inside it."
            )


@torch.no_grad()
def _refuse_detached(trial: Problem, inputs: Tensor, names: list[str]) -> None:
    """Refuse parameters that the outputs depend on, and whose gradient somebody has cut off: they are meant to be frozen."""
    trial = _copy(trial)  # it is moved here
    trial.network.eval()
    before = _again(trial, inputs)
    for name in names if torch.equal(before, _again(trial, inputs)) else ():
        parameter = trial.params[name]
        kept = parameter.clone()
        parameter.add_(0.1 * (1 + parameter.abs()))
        if not torch.equal(_again(trial, inputs), before):
            raise InvalidInput(
                f"The outputs of {type(trial.network).__name__} depend on '{name}', but their gradient does not reach it: "
                "forward computes with it under torch.no_grad, or detaches. If it is to stay as it is, say so, "
                f"network.get_parameter('{name}').requires_grad_(False), or requires_grad_(False) of its module; else let "
                "gradients pass."
            )
        parameter.copy_(kept)


def _say_altered(trial: Problem, inputs: Tensor, targets: Tensor) -> None:
    """Say which gradients are no derivatives; networks that cannot compute in double precision are not asked."""
    trial = _copy(trial)
    trial.network.eval()  # statistics are given: gradients do not pass through their way here
    random = frozenset(trial.coordinates.random_names)
    own = {n: p for n, p in trial.network.named_parameters() if n in random}

    def loss() -> Tensor:
        torch.manual_seed(0)
        outputs = trial.outputs(_double(inputs))
        return -_log_prob(trial, outputs, _double(targets)).mean()

    try:
        trial.network.double()  # some accelerators have no such numbers
        loss()
    except Exception:  # whatever it raises: half of it may be in single precision
        return
    if names := altered(trial.network, own, loss):
        listed = ", ".join(f"'{name}'" for name in names[:3]) + (
            f" and {len(names) - 3} more" if len(names) > 3 else ""
        )
        warnings.warn(
            f"The gradients of {listed} are not the derivatives of the loss: a hook, a backward pass of its own, or "
            "max_norm and scale_grad_by_freq of a table make others of them. Points can be trained so; a posterior that is "
            "inferred by them is not that of this network. Leave that out, or keep such weights as points, "
            f"where='!{names[0]}'.",
            PosterityWarning,
            stacklevel=4,
        )


def _double(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values.clone()


def _again(trial: Problem, inputs: Tensor) -> Tensor:
    """Return the outputs by the same random numbers whenever it is asked."""
    torch.manual_seed(0)
    return trial.outputs(inputs.clone()).nan_to_num()


def _predict(problem: Problem, batch: Batch) -> None:
    """Predict and score by three functions of two examples, and see that the likelihood takes draws as it takes one."""
    inputs, targets = batch[:2]
    theta = problem.theta()
    noise = torch.randn_like(theta) * 0.01 * (theta.abs() + theta.abs().mean())
    functions = Samples(problem, torch.stack([theta, theta + noise, theta - noise]))
    draws = functions.draws(inputs, 3, torch.Generator(device=theta.device).manual_seed(0))
    name = type(problem.likelihood).__name__
    with torch.no_grad():
        each = torch.stack(
            [
                _log_prob(problem, outputs, targets, {n: value[index] for n, value in draws.latents.items()})
                for index, outputs in enumerate(draws.outputs)
            ]
        )
        with _saying(f"{name} does not take the outputs of several draws, {tuple(draws.outputs.shape)}", _DRAWS):
            both = problem.likelihood(draws.outputs, draws.latents)
            log_probs = both.log_prob(targets)
        if both.batch_shape != each.shape or not alike(log_probs, each):
            raise InvalidInput(
                f"{name} reads the outputs of several draws, {tuple(draws.outputs.shape)}, in another way than those of one."
                f"{_DRAWS}"
            )
        with _saying(f"Predictions by {name} cannot be scored"):
            predictive(both, draws.outputs).scores(targets)


def _log_prob(problem: Problem, outputs: Tensor, targets: Tensor, latents: dict[str, Tensor] | None = None) -> Tensor:
    """Return log p(y | outputs), (B,), of a likelihood that does what one must."""
    name = type(problem.likelihood).__name__
    with _saying(f"{name} does not take outputs of shape {tuple(outputs.shape)}"):
        distribution = problem.likelihood(outputs, problem.latents(problem.params) if latents is None else latents)
    if not isinstance(distribution, Distribution):
        raise InvalidInput(f"{name} returned a {type(distribution).__name__}; it returns a torch Distribution.")
    _refuse_shape(name, distribution, len(targets))
    with _saying(f"{name} gives targets of shape {tuple(targets.shape)} and dtype {targets.dtype} no density"):
        log_probs: Tensor = distribution.log_prob(targets)
    if log_probs.shape != targets.shape[:1]:
        raise InvalidInput(
            f"{name} gives targets of shape {tuple(targets.shape)} log-densities of shape {tuple(log_probs.shape)}, not one "
            f"for each: its events have shape {tuple(distribution.event_shape)}, and so must the targets after the first axis."
        )
    if not log_probs.isfinite().all():
        raise InvalidInput(
            f"{name} gives one of the first targets a log-density that is NaN or infinite: is it one that its "
            "distribution can give, and are the parameters finite that the outputs make?"
        )
    return log_probs


def _refuse_shape(name: str, distribution: Distribution, count: int) -> None:
    shape = tuple(distribution.batch_shape)
    if shape == (count,):
        return
    said = f"{name} returned a {type(distribution).__name__} of batch shape {shape} for {count} targets; it must be ({count},)"
    if shape == (count, 1):
        raise InvalidInput(f"{said}: take the last axis off the outputs, outputs.squeeze(-1).")
    if len(shape) > 1 and shape[0] == count:
        raise InvalidInput(
            f"{said}: one target has several numbers, torch.distributions.Independent(distribution, {len(shape) - 1})."
        )
    raise InvalidInput(f"{said}: one distribution for each target.")


@contextmanager
def _following(network: nn.Module, running: list[tuple[str, nn.Module]]) -> Iterator[None]:
    """Keep the modules that are at work in a stack; an error leaves there those that raised it."""
    handles = []
    for name, module in network.named_modules():
        handles += [
            module.register_forward_pre_hook(lambda m, _, name=name: running.append((name, m))),
            module.register_forward_hook(lambda *_: running.pop() and None),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _in_training(error: Exception, running: list[tuple[str, nn.Module]], count: int) -> str:
    name, module = running[-1] if running else ("", nn.Identity())
    where = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    examples = "one example" if count == 1 else f"{count} examples"
    if count == 1 and isinstance(module, _BatchNorm | nn.modules.instancenorm._InstanceNorm):
        cure = (
            " One example has no variance, and a batch of one will come: choose a batch size that leaves no single example "
            "over, or DataLoader(…, drop_last=True), or nn.GroupNorm or nn.LayerNorm in its place."
        )
    else:
        cure = _IN_PLACE if "in-place" in reason or "inplace" in reason else ""
    return f"In training mode {where} fails on a batch of {examples}: {reason.removesuffix('.')}.{cure}"


_IN_PLACE = " Write x = x + 1 for x += 1, and inplace=False in activations."
_BOUNDS = (
    " Map the outputs to what the parameter may be: torch.nn.functional.softplus(…) + 1e-6 where it is > 0, "
    "sigmoid where it is between 0 and 1."
)
_DRAWS = (
    " Draws stand before the batch, (n, B, …), and latents have the draws' axis alone: count axes from the end, as "
    "outputs[..., 0], outputs.squeeze(-1) or outputs.chunk(2, -1), and give a latent axes, as std[..., None]."
)
