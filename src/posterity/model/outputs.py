"""A problem's network as a function of its random parameters, and the curvature of its likelihood in the outputs."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from posterity.core.curvature import IndependentCurvature, MatrixCurvature, OutputCurvature, ScoreCurvature
from posterity.core.layout import substituted
from posterity.errors import InvalidInput
from posterity.model.problem import Problem, read
from posterity.types import Batch, Likelihood, Params
from posterity.weighing import known, known_log_probs, of_data, of_numbers

Kind = Literal["ggn", "fisher"]


def random_parameters(problem: Problem) -> dict[str, Tensor]:
    """Return the network's random parameters by name, in θ's order, without constant rows."""
    return {n: problem.layout.part(n, problem.params[n]) for n in problem.coordinates.random_names}


def computed_by(problem: Problem) -> Callable[[Params, Tensor], Tensor]:
    """Return the network as a function of (some of its parameters, inputs); the others are as they are bound. (B, D).

    Parameters come without constant rows, as `random_parameters` returns them.
    """

    def compute(params: Params, inputs: Tensor) -> Tensor:
        with substituted(problem.network, problem.layout.whole(params)):
            outputs = read(problem.network(inputs))
        return outputs.unsqueeze(-1) if outputs.dim() == 1 else outputs

    return compute


def output_curvature(
    problem: Problem, outputs: Tensor, targets: Tensor, kind: Kind, latents: Params, weights: Tensor | None = None
) -> OutputCurvature:
    """Return the curvature of −w log p(y | f) in the outputs f (B, D): its expectation over y, or that of the y seen.

    The expectation, `ggn`, is the Fisher information of p(y | f), which the likelihood says: `Likelihood.curvature`.
    `fisher` is ∂(−log p)/∂f times its transpose, the empirical Fisher information, for any likelihood.

    Raises:
        InvalidInput: for `ggn` of a likelihood that does not say it, or outputs of more than one dimension.
    """
    if outputs.dim() != 2:
        raise InvalidInput(
            f"The network's outputs have shape {tuple(outputs.shape)}; a Laplace approximation needs (B, outputs)."
        )
    batch = _batch(outputs, targets, weights)
    if kind == "fisher":
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            total = known_log_probs(problem.likelihood(leaf, latents), batch[1], known(batch)).sum()
            (score,) = torch.autograd.grad(total, [leaf])
        own = of_data(batch)
        return ScoreCurvature(-score if own is None else -score * own.to(score).sqrt().unsqueeze(-1))
    found = problem.likelihood.curvature(outputs, batch[1], latents)
    if found is None:
        raise unknown_curvature(problem.likelihood)
    own, numbers = of_data(batch), of_numbers(batch)
    if isinstance(found, Tensor) and numbers is not None and not outputs.shape[1] % numbers.shape[1]:
        each = numbers.to(found).repeat(1, outputs.shape[1] // numbers.shape[1])
        if found.dim() == 2:
            return IndependentCurvature(each * found)
        return MatrixCurvature(each.sqrt().unsqueeze(-1) * found * each.sqrt().unsqueeze(-2))
    curvature: OutputCurvature
    if isinstance(found, Tensor):
        curvature = IndependentCurvature(found) if found.dim() == 2 else MatrixCurvature(found)
    else:
        curvature = found  # a form of its own
    if own is None:
        return curvature
    return curvature.weighted((own if numbers is None else numbers.amin(1)).to(outputs).unsqueeze(-1))


def refuse_unknown(likelihood: Likelihood, kind: Kind) -> None:
    """Refuse a likelihood that does not say its curvature, where that is asked for."""
    if kind == "ggn" and getattr(type(likelihood), "curvature", Likelihood.curvature) is Likelihood.curvature:
        raise unknown_curvature(likelihood)


def unknown_curvature(likelihood: Likelihood) -> InvalidInput:
    return InvalidInput(
        f"The Gauss–Newton curvature of {type(likelihood).__name__} is not known; use curvature='fisher', which needs its "
        "log-density alone, or give it a method `curvature`."
    )


def _batch(outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Batch:
    return (outputs, targets) if weights is None else (outputs, targets, weights)


def latent_curvature(
    problem: Problem, outputs: Tensor, targets: Tensor, kind: Kind, latents: Params, weights: Tensor | None = None
) -> Tensor:
    """Return the batch's curvature in each of the likelihood's latents, (L,): its diagonal.

    `ggn` is what the likelihood says, where it does; else Σ_n of the squared scores of the targets that were seen. Cross terms
    are left out, among latents and with the outputs: a Gaussian's noise level has none.
    """
    if not latents:
        return outputs.new_zeros(0)
    batch = _batch(outputs, targets, weights)
    found = _said(problem.likelihood, outputs, batch, latents) if kind == "ggn" else None
    if found is None:
        with torch.enable_grad():  # each example has its own, as draws do
            leaves = {n: v.detach().expand(len(outputs), *v.shape).clone().requires_grad_() for n, v in latents.items()}
            distribution, seen = problem.likelihood(outputs.detach()[:, None], leaves), known(batch)
            each = known_log_probs(distribution, batch[1][:, None], None if seen is None else seen[:, None])
            scores = torch.autograd.grad(each.sum(), list(leaves.values()))
        own = of_data(batch)
        counts = outputs.new_ones(len(outputs)) if own is None else own.to(outputs)
        found = {n: torch.tensordot(counts, score.square(), 1) for n, score in zip(leaves, scores, strict=True)}
    return torch.cat([found[n].reshape(-1) for n in latents])


def _said(likelihood: Likelihood, outputs: Tensor, batch: Batch, latents: Params) -> Params | None:
    """Ask the likelihood, of data that count alike together."""
    if len(batch) == 2:
        return likelihood.latent_curvature(outputs, batch[1], latents)
    totals: dict[str, Tensor] = {}
    alike, which = batch[2].unique(dim=0, return_inverse=True)
    for index, weights in enumerate(alike):
        some = which == index
        found = likelihood.latent_curvature(outputs[some], batch[1][some], latents)
        if found is None:
            return None
        each = weights if weights.dim() == 0 else weights[1:]
        for name, value in found.items():
            factor = each if value.shape == each.shape else each.mean()
            totals[name] = totals.get(name, torch.zeros_like(value)) + factor.to(value) * value
    return totals


def refuse_bags(network: nn.Module, random: frozenset[str]) -> None:
    """Refuse random tables of `nn.EmbeddingBag`, whose derivatives torch has once, and not forward nor twice."""
    for prefix, module in network.named_modules():
        if isinstance(module, nn.EmbeddingBag) and f"{prefix}.weight".lstrip(".") in random:
            raise InvalidInput(
                f"EmbeddingBag '{prefix}' has no forward derivative in torch, which a linearisation and structure='low_rank' "
                f"need. Use nn.Embedding with a sum; prediction='sampled' with another structure; or where='!{prefix}.weight'."
            )


def refuse_mixing(network: nn.Module, random: frozenset[str]) -> None:
    """Refuse modules whose outputs of one example depend on others, or whose gradients are not their derivatives."""
    for prefix, module in network.named_modules():
        name = f"{type(module).__name__} '{prefix}'"
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise InvalidInput(
                f"{name} has no running statistics, so that one example's output depends on the others; use "
                "track_running_stats=True."
            )
        own = any(f"{prefix}.{n}".lstrip(".") in random for n, _ in module.named_parameters(recurse=False))
        if own and isinstance(module, nn.Embedding | nn.EmbeddingBag):
            named = {"max_norm": module.max_norm is not None, "scale_grad_by_freq": module.scale_grad_by_freq}
            reason = next((setting for setting, active in named.items() if active), None)
            if reason:
                raise InvalidInput(
                    f"{name} has {reason}, with which its gradients are not its derivatives. Leave it out: "
                    f"where='!{prefix}.weight'."
                )
