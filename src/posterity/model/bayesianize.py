"""Any network, all or part of it random, as a module for anyone's own training loop."""

from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from posterity.core.activation import ActivationDraw, Flipout, LocalReparam, RandomWeight
from posterity.core.gaussian import inverse_softplus, softplus
from posterity.core.layout import Layout
from posterity.errors import InvalidInput, unknown
from posterity.model.coordinates import Coordinates
from posterity.model.divergence import Divergence
from posterity.model.initial import InitialStd, initial_std
from posterity.model.priors import Normal
from posterity.model.selection import Where
from posterity.types import PRIOR, Prior

EstimatorName = Literal["weight", "local_reparam", "flipout"]
ESTIMATORS = ("weight", "local_reparam", "flipout")


def bayesianize(
    network: nn.Module,
    where: Where = None,
    *,
    prior: Prior | None = None,
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
        prior: of the random parameters; `Normal(0, 0.3)` unless given.
        estimator: how gradients are drawn: `weight`, `local_reparam` or `flipout`; see `MeanField`.
        init: σ at the start: a number; `Relative(0.1)`, that fraction of |w|; or a tensor for each random parameter's name
            (`curvature_std` makes one).

    Raises:
        InvalidInput: before anything is copied, where selection, prior or initialisation do not fit the network.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> bnn = bayesianize(net, "last_layer", prior=Normal(0, 1))
    >>> x = torch.ones(3, 4)
    >>> bool((bnn(x) == bnn(x)).all()), bnn.random_names
    (False, ('2.weight', '2.bias'))
    >>> torch.equal(deterministic(bnn)(x), net(x))
    True
    """
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    if any(isinstance(m, Bayesian) for m in network.modules()):
        raise InvalidInput("The network holds Bayesian modules already; take `deterministic(network)` first.")
    where = frozenset(Coordinates.of(network, prior or Normal(0, 0.3), {}, where, points=False).random_names)
    return Bayesian(deepcopy(network), where, prior or Normal(0, 0.3), estimator, init)


def kl(module: nn.Module) -> Tensor:
    """Sum KL(q‖p) over all Bayesian modules in a tree, (), in nats; differentiable. Divide by num_data in a loss.

    Closed form under Normal priors; else an unbiased estimate from one draw (see `Divergence`).
    """
    parts = [m.kl() for m in module.modules() if isinstance(m, Bayesian)]
    if not parts:
        raise InvalidInput(f"{type(module).__name__} holds no Bayesian module; make one with bayesianize(…).")
    return torch.stack(parts).sum()


def deterministic(module: nn.Module) -> nn.Module:
    """Return a plain copy: each Bayesian module in the tree becomes its network, at the mean of its weights."""
    if isinstance(module, Bayesian):
        return module.at_mean()
    copied = deepcopy(module)
    for name, child in copied.named_children():
        setattr(copied, name, deterministic(child))
    return copied


class Bayesian(nn.Module):
    """A network with random parameters: `network` holds the means under their own names, `rho` all σ = softplus(ρ), (R,).

    Every call draws, in training and evaluation mode alike; with `estimator="weight"` one draw is one function for the
    whole batch. To predict, take `posterior(likelihood)`, which draws whole weights whatever the estimator. Draws come from
    torch's global random numbers (`torch.manual_seed`).

    A plain `state_dict` of the network loads as the means. Latents of a hierarchical prior are `latents`, means of further
    random coordinates, whose ρ are the last of `rho`.
    """

    def __init__(
        self, network: nn.Module, where: frozenset[str], prior: Prior, estimator: EstimatorName, init: InitialStd
    ) -> None:
        super().__init__()
        self.network, self.prior, self.estimator = network, prior, estimator
        self.coordinates = Coordinates.of(network, prior, {}, where, points=False)
        self.divergence = Divergence.of(self.coordinates)
        self.latents = nn.ParameterList([p for n, p in self.coordinates.params.items() if n.startswith(PRIOR)])
        self._set_means()
        self.rho = nn.Parameter(inverse_softplus(initial_std(self.coordinates, init)))
        self._drawing: ActivationDraw | None = None
        if estimator != "weight":
            rules = {"local_reparam": LocalReparam, "flipout": Flipout}[estimator]
            self._drawing = rules(self.coordinates.params, self.coordinates.start)

    @property
    def random_names(self) -> tuple[str, ...]:
        """Names of the random parameters, in the order of `rho`."""
        return self.coordinates.random_names

    @property
    def std(self) -> dict[str, Tensor]:
        """σ of each random parameter, by name, and of each latent of the prior."""
        return Layout.of(self._random()).views(softplus(self.rho))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the network with weights drawn from q."""
        if self._drawing is not None:
            return self._drawing.run(lambda: self.network(*args, **kwargs), self._random_weights())
        return torch.func.functional_call(self.network, self.draw(), args, kwargs)

    def draw(self) -> dict[str, Tensor]:
        """Draw the network's random parameters once, by name; differentiable in mean and rho."""
        draws = {
            n: p + s * torch.randn_like(s) for (n, p), s in zip(self._random().items(), self.std.values(), strict=True)
        }
        return dict(self.prior.weights(draws))

    def kl(self) -> Tensor:
        """Return KL(q‖p), (), in nats; differentiable."""
        mean = torch.cat([p.reshape(-1) for p in self.coordinates.params.values()])
        return self.divergence.value(mean, softplus(self.rho)).to(self.rho.dtype)

    def at_mean(self) -> nn.Module:
        """Return a plain copy of the network at the mean."""
        network = deepcopy(self.network)
        weights = self.prior.weights(self._random())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        return network

    def _random(self) -> dict[str, nn.Parameter]:
        """The means of what is random: parameters of the network, then latents."""
        where = self.coordinates
        return {
            n: p for (n, p), at in zip(where.params.items(), where.layout.offsets, strict=True) if at >= where.start
        }

    def _random_weights(self) -> dict[int, RandomWeight]:
        """Mean and spread of each weight as the network uses it, given one draw of the prior's latents."""
        means, stds = self._random(), self.std
        draws = {n: means[n] + stds[n] * torch.randn_like(stds[n]) for n in means if n.startswith(PRIOR)}
        centers = self.prior.weights({**means, **draws})
        spreads = self.prior.weights({**stds, **draws})
        assert self._drawing is not None  # only called with an activation estimator
        return {id(means[n]): RandomWeight(centers[n], self._drawing.spread(spreads[n])) for n in centers}

    @torch.no_grad()
    def _set_means(self) -> None:
        """Give a non-centred prior's coordinates the values at which the network computes what it did."""
        for parameter, value in zip(
            self.coordinates.params.values(),
            self.coordinates.layout.views(self.coordinates.theta()).values(),
            strict=True,
        ):
            parameter.copy_(value)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        own = f"{prefix}network."
        plain = [k for k in self.network.state_dict() if prefix + k in state_dict]
        if plain and not any(k.startswith(own) for k in state_dict):  # a plain network's: its values are the means
            for key in plain:
                state_dict[own + key] = state_dict.pop(prefix + key)
            state_dict.setdefault(f"{prefix}rho", self.rho.detach())
        super()._load_from_state_dict(state_dict, prefix, *rest)
