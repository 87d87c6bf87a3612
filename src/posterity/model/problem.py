"""A problem: network + prior + likelihood + number of data. It says what is to be inferred and knows no algorithm."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from posterity.core import gaussian
from posterity.core.layout import Layout, bound, trainable
from posterity.errors import InvalidInput
from posterity.model.priors import normal_form
from posterity.types import LIKELIHOOD, Batch, Likelihood, Params, Prior


@dataclass(frozen=True)
class Problem:
    """What is to be inferred, p(θ | D) ∝ p(θ) Π_n p(y_n | f(θ, x_n)).

    θ is one vector: the network's trainable parameters in their order, then the likelihood's latents, `likelihood.*`.
    The network is used as it is; whoever trains it makes a copy first (`posterity.fit` does).

    Args:
        network: any module that maps inputs (B, ...) to outputs (B, ...) or (B,).
        prior: over the network's parameters.
        likelihood: of the targets given the outputs.
        num_data: N, the size of the training set that a batch stands for.
    """

    network: nn.Module
    prior: Prior
    likelihood: Likelihood
    num_data: int
    params: dict[str, nn.Parameter] = field(init=False, repr=False)
    layout: Layout = field(init=False, repr=False)
    # The prior's mean and std for each of the network's weights, where it is Normal.
    normal: tuple[Tensor, Tensor] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.num_data < 1:
            raise InvalidInput(f"num_data is {self.num_data}; a posterior needs at least one training example.")
        params = trainable(self.network)
        clash = [n for n in params if n.startswith(LIKELIHOOD)]
        if clash:
            raise InvalidInput(
                f"The network's parameter '{clash[0]}' has a reserved name; rename the module 'likelihood'."
            )
        like = next(iter(params.values()))
        for name, latent in self.likelihood.latents().items():
            params[LIKELIHOOD + name] = nn.Parameter(latent.initial.to(like, copy=True))
        object.__setattr__(self, "params", params)
        object.__setattr__(self, "layout", Layout.of(params))
        own = {n: p.detach() for n, p in self.network_part(params).items()}
        object.__setattr__(self, "normal", normal_form(self.prior, {n: p.shape for n, p in own.items()}, like))
        self.prior.log_prob(own)  # a prior that cannot take these parameters says so here

    def theta(self) -> Tensor:
        """Copy the parameters' present values into a new flat vector (P,)."""
        return self.layout.flatten({n: p.detach() for n, p in self.params.items()})

    @property
    def network_size(self) -> int:
        """Number of coordinates that belong to the network; the likelihood's follow."""
        return sum(p.numel() for p in self.network_part(self.params).values())

    def network_part(self, params: Params) -> dict[str, Tensor]:
        return {n: p for n, p in params.items() if not n.startswith(LIKELIHOOD)}

    def latents(self, params: Params) -> dict[str, Tensor]:
        """Return the likelihood's own coordinates, by the likelihood's names."""
        return {n.removeprefix(LIKELIHOOD): p for n, p in params.items() if n.startswith(LIKELIHOOD)}

    def outputs(self, inputs: Tensor) -> Tensor:
        """Run the network with the parameters that it is bound to: (B, *out), never (B,)."""
        outputs = self.network(inputs)
        if not isinstance(outputs, Tensor):
            raise InvalidInput(
                f"The network returned a {type(outputs).__name__}; it must return one tensor. Wrap it in a module that "
                "picks the tensor of outputs."
            )
        outputs = outputs.to(next(iter(self.params.values())).dtype)  # autocast may have lowered it
        return outputs.unsqueeze(-1) if outputs.dim() == 1 else outputs

    def predict(self, inputs: Tensor) -> Distribution:
        """Return p(y | x, θ) with the parameters that the network is bound to; batch shape (B,)."""
        return self.likelihood(self.outputs(inputs), self.latents(self.params))

    def nll(self, batch: Batch) -> tuple[Tensor, Distribution]:
        """Return the batch's mean negative log-likelihood, (), in nats per datum, and the distribution it came from."""
        inputs, targets = batch
        distribution = self.predict(inputs)
        return -distribution.log_prob(targets).mean(), distribution

    def log_prior(self, theta: Tensor) -> Tensor:
        """Return log p(θ), shape (), in nats: the network's prior and that of each latent."""
        params = self.layout.views(theta)
        if self.normal is None:
            total = self.prior.log_prob(self.network_part(params))
        else:
            total = gaussian.log_prob(theta[: self.network_size], *self.normal).sum()
        priors = self.likelihood.latents()
        for name, value in self.latents(params).items():
            total = total + priors[name].log_prob(value)
        return total

    def log_joint(self, theta: Tensor, batch: Batch) -> Tensor:
        """Return N/B Σ_b log p(y_b | x_b, θ) + log p(θ), shape (), in nats for the whole data set; differentiable in θ."""
        inputs, targets = batch
        params = self.layout.views(theta)
        outputs = torch.func.functional_call(self.network, self.network_part(params), (inputs,))
        outputs = outputs.unsqueeze(-1) if outputs.dim() == 1 else outputs
        distribution = self.likelihood(outputs, self.latents(params))
        log_likelihood = distribution.log_prob(targets).sum()
        return log_likelihood * (self.num_data / len(targets)) + self.log_prior(theta)

    def check(self, batch: Batch) -> None:
        """Try a batch before anything is changed.

        Raises:
            InvalidInput: where inputs are not finite, the network cannot take them, or the targets do not fit.
        """
        inputs, targets = batch
        check_inputs(inputs)
        training = {m: m.training for m in self.network.modules()}
        try:
            self.network.eval()
            with torch.no_grad():
                outputs = call(self, inputs[:2])
            if not outputs.isfinite().all():
                raise InvalidInput(
                    "The network returns NaN or infinite outputs for finite inputs, before any training."
                )
            self.likelihood.check(outputs[:1].expand(len(targets), *outputs.shape[1:]), targets)
        finally:
            for module, mode in training.items():
                module.training = mode

    def snapshot(self, buffers: Mapping[str, Tensor] | None = None) -> "Problem":
        """Copy the problem with a network of its own in eval mode, with these buffers (running statistics) if given."""
        network = deepcopy(self.network).eval()
        own = dict(network.named_buffers())
        for name, value in (buffers or {}).items():
            own[name].copy_(value)
        return Problem(network, self.prior, self.likelihood, self.num_data)

    def bound(self, theta: Tensor) -> AbstractContextManager[None]:
        """Make the network (and the latents) compute with θ inside a `with` block."""
        return bound(self.params, self.layout.views(theta))


def check_inputs(inputs: Tensor) -> None:
    """Refuse inputs with NaN or infinite values, naming the first row that has one."""
    if inputs.is_floating_point() and not inputs.isfinite().all():
        row = int((~inputs.isfinite().reshape(len(inputs), -1).all(1)).nonzero()[0, 0])
        raise InvalidInput(f"Input {row} holds NaN or infinite values; remove or mend that example.")


def call(problem: Problem, inputs: Tensor) -> Tensor:
    """Run the network, and say in one line what it did not like about the inputs' shape or type."""
    try:
        return problem.outputs(inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, InvalidInput):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidInput(
            f"{type(problem.network).__name__} cannot take inputs of shape {tuple(inputs.shape)} and dtype {inputs.dtype}: "
            f"{reason}"
        ) from error
