"""A problem's network as a function of its random parameters, and the curvature of its likelihood in the outputs."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from posterity.core.curvature import CategoricalCurvature, IndependentCurvature, OutputCurvature, ScoreCurvature
from posterity.core.gaussian import softplus
from posterity.core.layout import substituted
from posterity.errors import InvalidInput
from posterity.model.likelihoods import IGNORED, Bernoulli, Categorical, Gaussian, HeteroscedasticGaussian
from posterity.model.problem import Problem
from posterity.types import Likelihood, Params

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
            outputs: Tensor = problem.network(inputs)
        return outputs.unsqueeze(-1) if outputs.dim() == 1 else outputs

    return compute


def output_curvature(
    problem: Problem, outputs: Tensor, targets: Tensor, kind: Kind, latents: Params
) -> OutputCurvature:
    """Return the curvature of −log p(y | f) in the outputs f (B, D): its expectation over y, or that of the y seen.

    The expectation, `ggn`, is the Fisher information of p(y | f):

        Categorical                diag(p) − p pᵀ            Bernoulli      p (1 − p)
        Gaussian                   1/std²                    with outputs (mean, raw), std = min_std + softplus(raw):
        HeteroscedasticGaussian    1/std² of the mean, 2 (sigmoid(raw)/std)² of raw

    `fisher` is ∂(−log p)/∂f times its transpose, the empirical Fisher information, for any likelihood.

    Raises:
        InvalidInput: for `ggn` of a likelihood that is not posterity's own, or outputs of more than one dimension.
    """
    if outputs.dim() != 2:
        raise InvalidInput(
            f"The network's outputs have shape {tuple(outputs.shape)}; a Laplace approximation needs (B, outputs)."
        )
    if kind == "fisher":
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            total = problem.likelihood(leaf, latents).log_prob(targets).sum()
            (score,) = torch.autograd.grad(total, [leaf])
        return ScoreCurvature(-score)
    match problem.likelihood:
        case Categorical():
            known = (targets.long() != IGNORED).unsqueeze(-1)  # a label that is not known has no curvature
            return CategoricalCurvature(outputs.softmax(-1) * known)
        case Bernoulli():
            probability = outputs.sigmoid()
            known = (targets.to(outputs.dtype) != IGNORED).reshape(outputs.shape)
            return IndependentCurvature(probability * (1 - probability) * known)
        case Gaussian():
            std = problem.likelihood.noise(outputs, latents)
            return IndependentCurvature(std.to(outputs).square().reciprocal().expand_as(outputs))
        case HeteroscedasticGaussian(min_std=least):
            raw = outputs.chunk(2, dim=-1)[1]
            std = softplus(raw) + least
            return IndependentCurvature(torch.cat([std.square().reciprocal(), 2 * (raw.sigmoid() / std).square()], -1))
    raise unknown_curvature(problem.likelihood)


def refuse_unknown(likelihood: Likelihood, kind: Kind) -> None:
    """Refuse a likelihood whose curvature is not known, and one of one's own with latents."""
    known = isinstance(likelihood, Categorical | Bernoulli | Gaussian | HeteroscedasticGaussian)
    if not known and kind == "ggn":
        raise unknown_curvature(likelihood)
    if not known and likelihood.latents():
        raise InvalidInput(f"{type(likelihood).__name__} has latents, whose curvature is not known; fix them.")


def unknown_curvature(likelihood: Likelihood) -> InvalidInput:
    return InvalidInput(
        f"The Gauss–Newton curvature of {type(likelihood).__name__} is not known; use curvature='fisher', which needs its "
        "log-density alone."
    )


def latent_curvature(problem: Problem, outputs: Tensor, targets: Tensor, kind: Kind, latents: Params) -> Tensor:
    """Return the batch's curvature in each of the likelihood's latents, (L,): 2 B (std′/std)² of each target's noise level.

    Where D targets share one it is 2 D B (std′/std)². A Gaussian's expected curvature has no cross terms of noise levels and
    means; the empirical one's are left out.
    """
    if not latents:
        return outputs.new_zeros(0)
    rho = latents["std"]
    if kind == "ggn":
        relative = rho.sigmoid() / softplus(rho)
        return (2 * targets.numel() / rho.numel() * relative.square()).reshape(-1)
    with torch.enable_grad():
        leaf = rho.detach().expand(len(outputs), *rho.shape).clone().requires_grad_()  # its own for each example
        total = problem.likelihood(outputs.detach()[:, None], {"std": leaf}).log_prob(targets[:, None]).sum()
        (score,) = torch.autograd.grad(total, [leaf])
    return score.square().sum(0).reshape(-1)


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
