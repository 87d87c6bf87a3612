"""Any network, all or part of it random, as a module for anyone's own training loop."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from posterity.errors import InvalidInput
from posterity.model.bayesian import Bayesian as Bayesian
from posterity.model.bayesian import EstimatorName as EstimatorName
from posterity.model.bayesian import bayesian_modules as bayesian_modules
from posterity.model.bayesian import deterministic as deterministic
from posterity.model.initial import InitialStd
from posterity.model.plain import plain
from posterity.model.selection import Where
from posterity.options import require


def bayesianize(
    network: nn.Module,
    where: Where = None,
    *,
    prior: Any = None,
    estimator: EstimatorName | Mapping[str, EstimatorName] = "weight",
    init: InitialStd = 0.02,
) -> "Bayesian":
    """Make all or part of a network Bayesian: q(w) = N(μ, σ²) for each selected weight, drawn anew at each forward pass.

    The result is a module for any training loop: its `forward` takes and returns what the network's does, and the loss in
    nats per datum is `mean nll + kl(bnn) / num_data`. The network is copied, not changed; μ starts at its weights, so what
    it has learnt is kept, and with σ → 0 it computes what it did.

    A network that is Bayesian in part is made so further: what is random already stays as it is, and `where` selects among
    the rest. Modules that were placed in eval mode, and normalisation layers of frozen parts, keep still in training (see
    `posterity.model.modes`); rows of padding are constants (see `padding_rows`).

    Args:
        network: any module.
        where: which parameters are random; see `select`. The others stay ordinary parameters.
        prior: of the random parameters, or one for each name pattern; `Normal(0, 0.3)` unless given.
        estimator: how gradients are drawn: `weight`, `local_reparam` or `flipout`, see `MeanField`; or one for each pattern
            of names, `{"conv*": "flipout", "*": "local_reparam"}`.
        init: σ at the start: a number; `Relative(0.1)`, that fraction of |w|; or a tensor for each random parameter's name
            (`curvature_std` makes one).

    Raises:
        InvalidInput: where selection, prior, estimator or initialisation do not fit the network; it is left as it was.

    >>> from posterity import Normal
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> bnn = bayesianize(net, "last_layer", prior=Normal(0, 1))
    >>> x = torch.ones(3, 4)
    >>> bool((bnn(x) == bnn(x)).all()), bnn.random_names
    (False, ('2.weight', '2.bias'))
    >>> torch.equal(deterministic(bnn)(x), net(x))
    True
    """
    network = plain(network)
    if isinstance(network, Bayesian):
        return network.extended(where, prior, estimator, init)
    if where is None and bayesian_modules(network):
        raise InvalidInput(
            "The network holds Bayesian modules already: say by where= which of the others are to be random, or take "
            "`deterministic(network)` first."
        )
    return Bayesian(network, where, prior, estimator, init)


def kl(module: nn.Module) -> Tensor:
    """Sum KL(q‖p) over all Bayesian modules in a tree, (), in nats; differentiable. Divide by num_data in a loss.

    Closed form under Normal priors; else an unbiased estimate from one draw (see `Divergence`).
    """
    require(module=(module, nn.Module))
    parts = [m.kl() for m in module.modules() if isinstance(m, Bayesian)]
    if not parts:
        raise InvalidInput(f"{type(module).__name__} holds no Bayesian module; make one with bayesianize(…).")
    return torch.stack(parts).sum()
