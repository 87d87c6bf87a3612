"""All likelihoods, by the name of what their targets are: see `docs/likelihoods.md` for which to take.

>>> from posterity.likelihoods import NegativeBinomial
>>> NegativeBinomial(dispersion=0.5).kind
'negative_binomial'
"""

from posterity.model.censored import Censored, survival
from posterity.model.counts import Binomial, NegativeBinomial, Poisson
from posterity.model.inflated import ZeroInflated
from posterity.model.likelihoods import Bernoulli, Categorical, Gaussian, HeteroscedasticGaussian
from posterity.model.mixed import MixtureDensity
from posterity.model.multivariate import MultivariateGaussian
from posterity.model.ordinal import Ordinal
from posterity.model.positive import Gamma, LogNormal, Weibull
from posterity.model.quantile import Quantile
from posterity.model.robust import StudentT
from posterity.model.shares import Beta
from posterity.model.suited import suited
from posterity.types import Likelihood

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Censored",
    "Gamma",
    "Gaussian",
    "HeteroscedasticGaussian",
    "Likelihood",
    "LogNormal",
    "MixtureDensity",
    "MultivariateGaussian",
    "NegativeBinomial",
    "Ordinal",
    "Poisson",
    "Quantile",
    "StudentT",
    "Weibull",
    "ZeroInflated",
    "suited",
    "survival",
]
