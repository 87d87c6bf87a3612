"""Every likelihood of ours, told apart by its kind: what a configuration and a file may name."""

from typing import Annotated

from pydantic import Field

from posterity.model.censored import Censored
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

AnyLikelihood = Annotated[
    Categorical
    | Bernoulli
    | Gaussian
    | HeteroscedasticGaussian
    | MultivariateGaussian
    | StudentT
    | MixtureDensity
    | Quantile
    | Poisson
    | NegativeBinomial
    | Binomial
    | ZeroInflated
    | LogNormal
    | Gamma
    | Weibull
    | Censored
    | Beta
    | Ordinal,
    Field(discriminator="kind"),
]
