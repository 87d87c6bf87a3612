"""The likelihood of several real targets whose noises are correlated."""

from collections.abc import Mapping
from dataclasses import replace
from math import sqrt
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch import distributions as dist
from torch.distributions import LKJCholesky, biject_to, constraints

from posterity.core.gaussian import inverse_softplus, softplus
from posterity.errors import InvalidInput
from posterity.model.advice import VALUES, advice
from posterity.model.classes import refuse_count
from posterity.model.columns import Levels
from posterity.model.noise import UNSCALED, half_cauchy_of_rho, starting_std
from posterity.options import STRICT, dataclass
from posterity.types import Latent, Likelihood, Params

ROOT: Any = biject_to(constraints.corr_cholesky)  # from numbers (..., D (D − 1)/2) to Cholesky factors of correlations


def _lkj(u: Tensor) -> Tensor:
    """Return log p(u) of correlations, all matrices of which are equally probable, LKJ(1) (Lewandowski et al. 2009)."""
    root = ROOT(u)
    density: Tensor = LKJCholesky(root.shape[-1], 1.0, validate_args=False).log_prob(root)
    change: Tensor = ROOT.log_abs_det_jacobian(u, root)
    return density.sum() + change.sum()


def correlations(u: Tensor) -> Tensor:
    """Return the correlations below the diagonal, row by row, (..., D (D − 1)/2)."""
    root: Tensor = ROOT(u)
    rows, columns = torch.tril_indices(root.shape[-1], root.shape[-1], -1)
    return (root @ root.mT)[..., rows, columns]


@dataclass(frozen=True, config=STRICT)
class MultivariateGaussian(Likelihood):
    """Several real targets with a noise of any covariance: y ~ N(f, S C S), S = diag(std), outputs and targets (B, D), D > 1.

    The stds and the correlations C are learnt: `likelihood.std`, (D,), a softplus, each with the half-Cauchy(0, 1) prior, which
    takes standardised targets for granted; and `likelihood.correlation`, (D (D − 1)/2,), with the prior LKJ(1) that holds all
    correlation matrices for equally probable. Read from a posterior they are the correlations below the diagonal, row by row:
    (2, 1), (3, 1), (3, 2), ….

    A prediction's quantiles, intervals and CRPS are those of each target by itself; `log_prob` and `sample` are of all of them
    together.

    Args:
        targets: D.
        initial_std: of each target, or of all; None: `fit` takes the targets' own, see `starting_std`.
        initial_correlation: below the diagonal; None: uncorrelated.

    >>> of = MultivariateGaussian(2, initial_std=(1.0, 2.0))
    >>> of(torch.zeros(1, 2), {name: latent.initial for name, latent in of.latents().items()}).covariance_matrix
    tensor([[[1., 0.],
             [0., 4.]]])
    """

    targets: Annotated[int, Field(ge=2)]
    initial_std: Levels | None = None
    initial_correlation: tuple[float, ...] | None = None
    kind: Literal["multivariate_gaussian"] = "multivariate_gaussian"

    def __post_init__(self) -> None:
        stds, own, count = self.initial_std, self.initial_correlation, self.targets
        if isinstance(stds, tuple) and len(stds) != count:
            raise InvalidInput(
                f"initial_std has {len(stds)} numbers for {count} targets; give one for each, or one for all."
            )
        if own is not None and len(own) != count * (count - 1) // 2:
            raise InvalidInput(
                f"initial_correlation has {len(own)} numbers; {count} targets have {count * (count - 1) // 2} correlations."
            )
        if own is not None and int(torch.linalg.cholesky_ex(_matrix(own))[1]):
            raise InvalidInput(f"initial_correlation is {own}; these are those of no correlation matrix.")

    def started(self, inputs: Tensor, targets: Tensor) -> Self:
        if self.initial_std is not None:
            return self
        return replace(self, initial_std=tuple(starting_std(targets).tolist()))

    def latents(self) -> Mapping[str, Latent]:
        own = self.initial_correlation or (0.0,) * (self.targets * (self.targets - 1) // 2)
        start = ROOT.inv(torch.linalg.cholesky(_matrix(own))).float()
        given = UNSCALED if self.initial_std is None else self.initial_std
        stds = inverse_softplus(torch.tensor(given).expand(self.targets).clone())
        return {
            "std": Latent(stds, half_cauchy_of_rho, softplus),
            "correlation": Latent(start, _lkj, correlations),
        }

    def error_size(self, latents: Params) -> Tensor:
        return softplus(latents["std"]).min()

    def _root(self, latents: Params) -> Tensor:
        """Return L of the covariance L Lᵀ, (..., 1, D, D): beside the batch."""
        root: Tensor = softplus(latents["std"]).unsqueeze(-1) * ROOT(latents["correlation"])
        return root.unsqueeze(-3)

    def __call__(self, outputs: Tensor, latents: Params) -> dist.MultivariateNormal:
        return dist.MultivariateNormal(outputs, scale_tril=self._root(latents), validate_args=False)

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Tensor:
        """The inverse of the covariance, (B, D, D)."""
        inverse = torch.cholesky_inverse(self._root(latents))
        return inverse.expand(len(outputs), *inverse.shape[1:])

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        refuse_count(outputs, targets)
        fits = outputs.shape[1:] == (self.targets,) and targets.shape == outputs.shape
        if not fits or not targets.is_floating_point() or not bool(targets.isfinite().all()):
            raise InvalidInput(
                f"Targets of shape {tuple(targets.shape)} and outputs of shape {tuple(outputs.shape)} were given; "
                f"MultivariateGaussian({self.targets}) needs outputs (B, {self.targets}) and finite targets of that shape. "
                f"{advice(VALUES, targets, outputs.shape)}"
            )


def _matrix(below: tuple[float, ...]) -> Tensor:
    """Return the correlation matrix of the numbers below its diagonal, float64."""
    size = round((1 + sqrt(1 + 8 * len(below))) / 2)
    matrix = torch.eye(size, dtype=torch.float64)
    rows, columns = torch.tril_indices(size, size, -1)
    matrix[rows, columns] = matrix[columns, rows] = torch.tensor(below, dtype=torch.float64)
    return matrix
