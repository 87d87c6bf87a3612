"""Empirical Bayes: the std of a normal prior, fitted to the data with the weights."""

from typing import Literal

import torch
from torch import Tensor

from posterity.errors import InvalidInput
from posterity.model.coordinates import Coordinates
from posterity.model.divergence import Divergence
from posterity.model.priors import Normal
from posterity.types import Info, State

Per = Literal["tensor", "layer", "network"]


class LearntPrior:
    """Type-II maximum likelihood for the prior's std s_g of each group g of weights, with q = N(μ, diag σ²).

    s_g² = mean over i in g of (μ_i − m_i)² + σ_i²

    maximises the ELBO over s_g for the q at hand: of all its terms, only Σ_i log s_g + (σ_i² + (μ_i − m_i)²)/(2 s_g²) holds
    s_g (MacKay 1992; Wu et al. 2019 in this form). σ is 0 for point coordinates. There is no prior of s_g, so it can go to
    zero for a group that the data do not need; `Hierarchical` is the proper alternative.

    The std of each coordinate is one live vector: the divergence reads it, `state` saves it, `fit` overwrites it.

    Args:
        coordinates: under one `Normal` prior, whose mean is kept and whose std is the start.
        per: what shares one std: a tensor, the tensors of a module, or all.
    """

    def __init__(self, coordinates: Coordinates, per: Per) -> None:
        if not isinstance(coordinates.prior, Normal) or coordinates.normal is None:
            raise InvalidInput(
                f"learn_prior='{per}' fits the std of a Normal prior; this problem has {coordinates.prior!r}. Use "
                "Normal(0, 0.1), or a Hierarchical prior, whose scales are inferred by themselves."
            )
        self.coordinates, self.per = coordinates, per
        self._mean, std = coordinates.normal
        self._std = std.clone()
        self.divergence = Divergence(coordinates, self._mean, self._std)
        self._layout = coordinates.layout.among(coordinates.shapes())

    def state(self) -> State:
        return {"prior_std": self._std}

    @torch.no_grad()
    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Set each group's std to its optimum for q; `mean` (P,), `std` (P − start,)."""
        where = self.coordinates
        squares = (mean[where.free : where.network] - self._mean).square()
        squares[where.start - where.free :] += std[: where.network - where.start].square()
        parts, stds = self._layout.parts(squares), self._layout.parts(self._std)
        for names in self._groups().values():
            total = torch.stack([parts[n].sum(dtype=torch.float64) for n in names]).sum()
            fitted = (total / sum(parts[n].numel() for n in names)).sqrt()
            for n in names:
                stds[n].copy_(fitted)

    def info(self) -> Info:
        """Return the std of each group, for the log."""
        stds = self._layout.parts(self._std)
        return {f"prior_std.{g}".rstrip("."): stds[names[0]].reshape(-1)[0] for g, names in self._groups().items()}

    def prior(self, state: State) -> Normal:
        """Return the prior as fitted."""
        stds = self._layout.parts(state["prior_std"])
        own = self.coordinates.prior
        assert isinstance(own, Normal)  # checked at the start
        return Normal(own.mean, {n: float(v.reshape(-1)[0]) for n, v in stds.items()})

    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for name in self._layout.names:
            group = {"tensor": name, "layer": name.rpartition(".")[0], "network": ""}[self.per]
            groups.setdefault(group, []).append(name)
        return groups
