"""Any network, all or part of it random, as a module for anyone's own training loop."""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal, Self

import torch
from torch import Generator, Tensor, nn

from posterity.core.activation import ActivationDraw, Flipout, LocalReparam
from posterity.core.dispatch import RandomWeight
from posterity.core.gaussian import inverse_softplus, noise_like, softplus
from posterity.core.layout import Layout, substituted
from posterity.errors import InvalidInput, unknown
from posterity.model.coordinates import Coordinates
from posterity.model.divergence import Divergence
from posterity.model.initial import InitialStd, initial_std
from posterity.model.plain import plain
from posterity.model.priors import Normal, as_prior
from posterity.model.selection import Where
from posterity.types import PRIOR, Prior

EstimatorName = Literal["weight", "local_reparam", "flipout"]
RULES: dict[str, type[ActivationDraw] | None] = {
    "weight": None,
    "local_reparam": LocalReparam,
    "flipout": Flipout,
}


def bayesianize(
    network: nn.Module,
    where: Where = None,
    *,
    prior: Prior | Mapping[str, Prior] | None = None,
    estimator: EstimatorName = "weight",
    init: InitialStd = 0.02,
) -> "Bayesian":
    """Make all or part of a network Bayesian: q(w) = N(μ, σ²) for each selected weight, drawn anew at each forward pass.

    The result is a module for any training loop: its `forward` takes and returns what the network's does, and the loss in
    nats per datum is `mean nll + kl(bnn) / num_data`. The network is copied, not changed; μ starts at its weights, so what
    it has learnt is kept, and with σ → 0 it computes what it did.

    Args:
        network: any module.
        where: which parameters are random; see `select`. The others stay ordinary parameters.
        prior: of the random parameters, or one for each name pattern; `Normal(0, 0.3)` unless given.
        estimator: how gradients are drawn: `weight`, `local_reparam` or `flipout`; see `MeanField`.
        init: σ at the start: a number; `Relative(0.1)`, that fraction of |w|; or a tensor for each random parameter's name
            (`curvature_std` makes one).

    Raises:
        InvalidInput: where selection, prior, estimator or initialisation do not fit the network; it is left as it was.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> bnn = bayesianize(net, "last_layer", prior=Normal(0, 1))
    >>> x = torch.ones(3, 4)
    >>> bool((bnn(x) == bnn(x)).all()), bnn.random_names
    (False, ('2.weight', '2.bias'))
    >>> torch.equal(deterministic(bnn)(x), net(x))
    True
    """
    if any(isinstance(m, Bayesian) for m in network.modules()):
        raise InvalidInput("The network holds Bayesian modules already; take `deterministic(network)` first.")
    return Bayesian(plain(network), where, prior, estimator, init)


def kl(module: nn.Module) -> Tensor:
    """Sum KL(q‖p) over all Bayesian modules in a tree, (), in nats; differentiable. Divide by num_data in a loss.

    Closed form under Normal priors; else an unbiased estimate from one draw (see `Divergence`).
    """
    parts = [m.kl() for m in module.modules() if isinstance(m, Bayesian)]
    if not parts:
        raise InvalidInput(f"{type(module).__name__} holds no Bayesian module; make one with bayesianize(…).")
    return torch.stack(parts).sum()


def deterministic(module: nn.Module) -> nn.Module:
    """Return a plain copy: each Bayesian module in the tree becomes its network, at the mean of its weights.

    A module that is in several places stays one module.
    """
    copied = plain(module)
    if isinstance(copied, Bayesian):
        return copied.at_mean()
    means = {m: m.at_mean() for m in copied.modules() if isinstance(m, Bayesian)}
    for parent in list(copied.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, Bayesian):
                setattr(parent, name, means[child])
    return copied


class Bayesian(nn.Module):
    """A network with random parameters: `network` holds the means under their own names, `rho` all σ = softplus(ρ), (R,).

    Every call draws, in training and evaluation mode alike; with `estimator="weight"` one draw is one function for the
    whole batch. To predict, take `posterity.posterior(module)`, which draws whole weights whatever the estimator. Draws come
    from torch's global random numbers (`torch.manual_seed`).

    Activation checkpointing inside the network recomputes after the draw is gone, with the means: with `estimator="weight"`
    its gradients are wrong, and with the others torch refuses it. `posterity.fit` computes them within the draw.

    A plain `state_dict` of the network loads as the means, and leaves every σ as it is. Latents of a hierarchical prior are
    `latents`, means of further random coordinates, whose ρ are the last of `rho`.
    """

    def __init__(
        self,
        network: nn.Module,
        where: Where,
        prior: Prior | Mapping[str, Prior] | None,
        estimator: EstimatorName,
        init: InitialStd,
    ) -> None:
        super().__init__()
        if estimator not in RULES:
            raise unknown("estimator", estimator, RULES)
        self.network, self.prior, self.estimator = network, as_prior(prior or Normal(0, 0.3)), estimator
        self.coordinates = Coordinates.of(network, self.prior, {}, where, points=False)
        self.divergence = Divergence.of(self.coordinates)
        self.latents = nn.ParameterList([p for n, p in self.coordinates.params.items() if n.startswith(PRIOR)])
        self._set_means()
        self.rho = nn.Parameter(inverse_softplus(initial_std(self.coordinates, init)))
        self._looked_up_sparsely = _looked_up_sparsely(network)
        rule = RULES[estimator]
        self._drawing = None if rule is None else rule(self.coordinates.params, self.coordinates.start, network)

    @property
    def random_names(self) -> tuple[str, ...]:
        """Names of the random parameters, in the order of `rho`."""
        return self.coordinates.random_names

    @property
    def mean(self) -> dict[str, nn.Parameter]:
        """μ of each random parameter, by name, and of each latent of the prior: the module's own parameters."""
        pairs = zip(self._params().items(), self.coordinates.layout.offsets, strict=True)
        return {n: p for (n, p), at in pairs if at >= self.coordinates.start}

    @property
    def std(self) -> dict[str, Tensor]:
        """σ of each random parameter, by name, and of each latent of the prior."""
        return Layout.of(self.mean).views(softplus(self.rho))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the network with weights drawn from q."""
        if self._drawing is not None:
            return self._drawing.run(lambda: self.network(*args, **kwargs), self.mean, self._random_weights())
        with substituted(self.network, self.draw()):
            return self.network(*args, **kwargs)

    def draw(self, generator: Generator | None = None) -> dict[str, Tensor]:
        """Draw the network's random parameters once, by name; differentiable in mean and rho."""
        means, stds = self.mean, self.std
        draws = {n: p + stds[n] * noise_like(p, generator) for n, p in means.items()}
        weights = dict(self.prior.weights(draws))
        for name in self._looked_up_sparsely & weights.keys():
            weights[name] = _DenseGradient.apply(weights[name])  # type: ignore[no-untyped-call]
        return weights

    def kl(self) -> Tensor:
        """Return KL(q‖p), (), in nats; differentiable."""
        mean = torch.cat([p.reshape(-1) for p in self._params().values()])
        return self.divergence.value(mean, softplus(self.rho)).to(self.rho.dtype)

    def at_mean(self) -> nn.Module:
        """Return a plain copy of the network at the mean."""
        network = deepcopy(self.network)
        weights = self.prior.weights(self.mean)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        return network

    def extra_repr(self) -> str:
        count = self.coordinates.network - self.coordinates.start
        return f"random={count:,}, prior={_brief(self.prior)}, estimator='{self.estimator}'"

    def _params(self) -> dict[str, nn.Parameter]:
        """Every mean and point, in the order of the coordinates; looked up anew, since conversions may replace them."""
        latents = dict(zip(self.coordinates.latents, self.latents, strict=True))
        own = {**dict(self.network.named_parameters()), **latents}
        return {n: own[n] for n in self.coordinates.layout.names}

    def _random_weights(self) -> dict[str, RandomWeight]:
        """Mean and spread of each weight as the network uses it, given one draw of the prior's latents."""
        means, stds = self.mean, self.std
        draws = {n: means[n] + stds[n] * torch.randn_like(stds[n]) for n in means if n.startswith(PRIOR)}
        centers = self.prior.weights({**means, **draws})
        spreads = self.prior.weights({**stds, **draws})
        assert self._drawing is not None  # only called with an activation estimator
        return {n: RandomWeight(centers[n], self._drawing.spread(spreads[n])) for n in centers}

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        numbers = self.divergence.prior_mean, self.divergence.prior_std  # no parameters, so nobody else moves them
        mean, std = (value.to(self.rho) if isinstance(value, Tensor) else value for value in numbers)
        self.divergence = Divergence(self.coordinates, mean, std)
        return self

    @torch.no_grad()
    def _set_means(self) -> None:
        """Give a non-centred prior's coordinates the values at which the network computes what it did."""
        theta = self.coordinates.layout.views(self.coordinates.theta())
        for name, parameter in self.coordinates.params.items():
            parameter.copy_(theta[name])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        plain = [k for k in self.network.state_dict() if prefix + k in state_dict]
        if plain and f"{prefix}rho" not in state_dict:  # a plain network's: its values are the means
            means = self._as_means({k: state_dict.pop(prefix + k) for k in plain})
            state_dict.update({f"{prefix}network.{k}": v for k, v in means.items()})
            for key, own in self.state_dict().items():
                if not key.startswith("network."):
                    state_dict[prefix + key] = own
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def _as_means(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn weights into a non-centred prior's coordinates, given its latents; leave what does not fit as it is."""
        if not self.coordinates.noncentred:
            return weights
        ones = {n: p if n.startswith(PRIOR) else torch.ones_like(p) for n, p in self.mean.items()}
        scales = {n: s for n, s in self.prior.weights(ones).items() if n in weights and weights[n].shape == s.shape}
        return {**weights, **{n: weights[n] / scale for n, scale in scales.items()}}


def _looked_up_sparsely(network: nn.Module) -> set[str]:
    """Name the weights whose own gradients are sparse tensors."""
    tables = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.sparse}
    return {n for n, p in network.named_parameters() if id(p) in tables}


class _DenseGradient(torch.autograd.Function):
    """The identity, with a gradient that can be a part of ρ's, which is one vector."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor) -> Tensor:
        return weight.view_as(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.to_dense() if grad.is_sparse else grad


def _brief(prior: Prior) -> str:
    """A prior's repr, but for what a reader knows already (its kind), and for long ones."""
    text = re.sub(r"(, )?kind='\w+'", "", repr(prior))
    return text if len(text) <= 80 and "\n" not in text else f"{type(prior).__name__}(…)"
