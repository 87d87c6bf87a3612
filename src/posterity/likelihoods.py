"""All likelihoods, by the name of what their targets are: see `docs/likelihoods.md` for which to take.

>>> from posterity.likelihoods import NegativeBinomial
>>> NegativeBinomial(dispersion=0.5).kind
'negative_binomial'
"""

from posterity.model.likelihoods import (
    Bernoulli,
    Beta,
    Categorical,
    Gamma,
    Gaussian,
    HeteroscedasticGaussian,
    LogNormal,
    NegativeBinomial,
    Ordinal,
    Poisson,
    StudentT,
)
from posterity.model.suited import suited
from posterity.types import Likelihood

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "Gamma",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Likelihood",
    "LogNormal",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "StudentT",
    "suited",
]
