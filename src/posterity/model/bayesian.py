"""A network with random parameters as a module of torch: what `bayesianize` makes."""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Literal, Self, cast

import torch
from torch import Generator, Size, Tensor, nn

from posterity.core.activation import ActivationDraw, Flipout, LocalReparam, RuledPasses
from posterity.core.dispatch import RandomWeight
from posterity.core.entered import entered
from posterity.core.gaussian import inverse_softplus, noise_like, softplus
from posterity.core.layout import Layout, substituted
from posterity.core.sparse import DenseGradient, looked_up_sparsely
from posterity.core.threads import Turn
from posterity.errors import InvalidInput, unknown
from posterity.model.coordinates import Coordinates
from posterity.model.divergence import Divergence
from posterity.model.initial import InitialStd, initial_std
from posterity.model.joined import Joined
from posterity.model.modes import frozen, keep_still, placed
from posterity.model.padding import KnownLookups
from posterity.model.patterns import match
from posterity.model.plain import plain
from posterity.model.priors import Normal, as_prior
from posterity.model.selection import Where, select
from posterity.types import PRIOR, Prior

EstimatorName = Literal["weight", "local_reparam", "flipout"]
RULES: dict[str, type[ActivationDraw]] = {
    "weight": LocalReparam,  # beside others, as it draws a weight that is used where it has no rule
    "local_reparam": LocalReparam,
    "flipout": Flipout,
}


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
        estimator: EstimatorName | Mapping[str, EstimatorName],
        init: InitialStd,
    ) -> None:
        super().__init__()
        where = _not_yet_random(network, where)
        self.network, self.estimator = network, estimator
        self.prior = as_prior(Normal(0, 0.3) if prior is None else prior)
        self.coordinates = Coordinates.of(network, self.prior, {}, where, points=False)
        self.divergence = Divergence.of(self.coordinates)
        self._still, self._turn, self._seen = placed(network), Turn(), False
        self.latents = nn.ParameterList([p for n, p in self.coordinates.params.items() if n.startswith(PRIOR)])
        self._set_means()
        self.rho = nn.Parameter(inverse_softplus(self._beside_constants(initial_std(self.coordinates, init))))
        self._looked_up_sparsely = looked_up_sparsely(network)
        self.estimators = _assigned(estimator, self.coordinates.random_layout.named_shapes())
        self._drawings = {
            kind: RULES[kind](self.coordinates.params, self.coordinates.start) for kind in set(self.estimators.values())
        }
        whole = {n for n, kind in self.estimators.items() if kind == "weight"}
        self._drawing = None if len(whole) == len(self.estimators) else RuledPasses(network, whole)

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
        """σ of each random parameter, by name, and of each latent of the prior; 0 in constant rows (of padding)."""
        stds = Layout.of(self.mean).views(softplus(self.rho))
        for name, rows in self.coordinates.layout.constants.items():
            if name in stds:
                stds[name] = rows.among(rows.left_out_of(stds[name]), zero=True)
        return stds

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the network with weights drawn from q."""
        turn = nullcontext() if torch.compiler.is_compiling() else self._turn.lock
        if self._drawing is not None:
            outputs = self._drawing.run(lambda: self._computed(args, kwargs), self.mean, self._random_weights())
        else:
            with turn, substituted(self.network, self.draw()):
                outputs = self._computed(args, kwargs)
        self._seen = self._seen or torch.is_grad_enabled()
        return outputs

    def _computed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the network, whatever its weights are; the first pass with gradients shows how it looks up its tables."""
        known = self._seen or not torch.is_grad_enabled() or torch.compiler.is_compiling()
        with nullcontext() if known else entered(KnownLookups(self.network)):
            return self.network(*args, **kwargs)

    def draw(self, generator: Generator | None = None) -> dict[str, Tensor]:
        """Draw the network's random parameters once, by name; differentiable in mean and rho."""
        means, stds = self._held_means(), self.std
        draws = {n: p + stds[n] * noise_like(p, generator) for n, p in means.items()}
        weights = self.coordinates.of_network(self.coordinates.computed(draws))
        for name in self._looked_up_sparsely & weights.keys():
            weights[name] = DenseGradient.apply(weights[name])  # type: ignore[no-untyped-call]
        return weights

    def kl(self) -> Tensor:
        """Return KL(q‖p), (), in nats; differentiable."""
        layout = self.coordinates.layout
        std = layout.among(self.mean).flatten(self.std)
        return self.divergence.value(layout.flatten(self._params()), std).to(self.rho.dtype)

    def extended(
        self,
        where: Where,
        prior: Prior | Mapping[str, Prior] | None,
        estimator: EstimatorName | Mapping[str, EstimatorName],
        init: InitialStd,
    ) -> "Bayesian":
        """Return a copy in which further parameters are random; those that are stay as they are. See `bayesianize`."""
        chosen = _not_yet_random(self.network, where) - frozenset(self.random_names)
        if not chosen:
            raise InvalidInput(f"where={where!r} selects only what is random already.")
        further = Bayesian(self.at_mean(), chosen, prior, estimator, init)
        shapes = {**self.coordinates.shapes(), **further.coordinates.shapes()}
        joined = Joined.of([(self.prior, self.random_names), (further.prior, chosen)], shapes)
        estimators = {**self.estimators, **further.estimators}
        whole = Bayesian(deepcopy(self.network), chosen | set(self.random_names), joined, estimators, 0.02)
        whole._take(self)
        whole._take(further)
        whole._still = self._still
        whole.training = self.training
        return whole

    @torch.no_grad()
    def _take(self, other: "Bayesian") -> None:
        """Copy mean and ρ of all that is random in another one."""
        means, rhos = self.mean, Layout.of(self.mean).views(self.rho)
        for (name, mean), rho in zip(other.mean.items(), Layout.of(other.mean).views(other.rho).values(), strict=True):
            means[name].copy_(mean)
            rhos[name].copy_(rho)

    def at_mean(self) -> nn.Module:
        """Return a plain copy of the network at the mean."""
        network = deterministic(self.network)
        weights = self.coordinates.computed(self.mean)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        return network

    def extra_repr(self) -> str:
        count = self.coordinates.network - self.coordinates.start
        estimator = repr(self.estimator) if len(str(self.estimator)) <= 80 else "{…}"
        return f"random={count:,}, prior={_brief(self.prior)}, estimator={estimator}"

    def _params(self) -> dict[str, nn.Parameter]:
        """Every mean and point, in the order of the coordinates; looked up anew, since conversions may replace them."""
        latents = dict(zip(self.coordinates.latents, self.latents, strict=True))
        own = {**dict(self.network.named_parameters()), **latents}
        return {n: own[n] for n in self.coordinates.layout.names}

    def _random_weights(self) -> dict[str, RandomWeight]:
        """Mean and spread of each weight as the network uses it, given one draw of the prior's latents."""
        means, stds, where = self._held_means(), self.std, self.coordinates
        draws = {n: means[n] + stds[n] * torch.randn_like(stds[n]) for n in means if n.startswith(PRIOR)}
        centers = where.of_network(where.computed({**means, **draws}))
        spreads = where.computed({**stds, **draws})
        drawings = {n: self._drawings[kind] for n, kind in self.estimators.items()}
        return {n: RandomWeight(centers[n], d.spread(spreads[n]), d) for n, d in drawings.items()}

    def _held_means(self) -> dict[str, Tensor]:
        """μ by name, with constant rows that no gradient reaches."""
        means: dict[str, Tensor] = dict(self.mean)
        for name, rows in self.coordinates.layout.constants.items():
            if name in means:
                means[name] = rows.among(rows.left_out_of(means[name]), means[name])
        return means

    def _beside_constants(self, stds: Tensor) -> Tensor:
        """Give constant rows a number, too, that nothing reads: `rho` has the shapes of the network's parameters."""
        own = self.coordinates.layout.among(self.mean)
        return torch.cat([v.masked_fill(v == 0, 1).reshape(-1) for v in own.changes(stds).values()])

    def train(self, mode: bool = True) -> Self:
        """Set the mode, as torch does; what kept still in the network that was converted does so here, see `still`."""
        super().train(mode)
        if mode:
            keep_still(self.network, self._still | frozen(self.network))
        return self

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
        found = self.coordinates.of_network(self.coordinates.computed(ones))
        scales = {n: s for n, s in found.items() if n in weights and weights[n].shape == s.shape}
        return {**weights, **{n: weights[n] / scale for n, scale in scales.items()}}


def _not_yet_random(network: nn.Module, where: Where) -> frozenset[str]:
    """Name the parameters that a selection takes, but those of Bayesian modules inside."""
    taken = {id(p) for m in network.modules() if isinstance(m, Bayesian) for p in m.parameters()}
    known = {n for n, p in network.named_parameters() if id(p) in taken}
    chosen = select(network, where) - known
    if not chosen:
        raise InvalidInput(f"where={where!r} selects only what is random already.")
    return chosen


def _assigned(estimator: str | Mapping[str, str], shapes: Mapping[str, Size]) -> dict[str, EstimatorName]:
    """Give every random parameter its estimator."""
    named = dict(estimator) if isinstance(estimator, Mapping) else {"*": estimator}
    if strange := [kind for kind in named.values() if kind not in list(RULES)]:
        raise unknown("estimator", strange[0], RULES)
    exact = shapes.keys() <= named.keys()
    chosen = {n: named[n] for n in shapes} if exact else match(named, shapes, "estimator", "conversion")
    return cast(dict[str, EstimatorName], chosen)


def _brief(prior: Prior) -> str:
    """A prior's repr, but for what a reader knows already (its kind), and for long ones."""
    text = re.sub(r"(, )?kind='\w+'", "", repr(prior))
    return text if len(text) <= 80 and "\n" not in text else f"{type(prior).__name__}(…)"


def deterministic(module: nn.Module) -> nn.Module:
    """Return a plain copy: each Bayesian module, also one in several places, becomes its network at its weights' mean."""
    copied = plain(module)
    if isinstance(copied, Bayesian):
        return copied.at_mean()
    means = {m: m.at_mean() for m in copied.modules() if isinstance(m, Bayesian)}
    for parent in list(copied.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, Bayesian):
                setattr(parent, name, means[child])
    return copied


def bayesian_modules(module: nn.Module) -> dict[str, "Bayesian"]:
    """Return the Bayesian modules of a tree, each by the name that its network has in `deterministic(module)`."""
    found: dict[str, Bayesian] = {}

    def look(part: nn.Module, name: str) -> None:
        if isinstance(part, Bayesian):
            if part in found.values():
                return
            found[name] = part
            part = part.network
        for own, child in part.named_children():
            look(child, f"{name}.{own}" if name else own)

    look(module, "")
    return found
