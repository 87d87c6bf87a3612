"""Posterity turns any PyTorch network into a Bayesian one, infers its posterior, and says how far to trust each prediction."""

from posterity.core.optimizer import Optimizer as Optimizer
from posterity.errors import CorruptFile as CorruptFile
from posterity.errors import DataNotFound as DataNotFound
from posterity.errors import Diverged as Diverged
from posterity.errors import Interrupted as Interrupted
from posterity.errors import InvalidInput as InvalidInput
from posterity.errors import Mismatch as Mismatch
from posterity.errors import PosterityError as PosterityError
from posterity.fit import fit as fit
from posterity.methods import MAP as MAP
from posterity.methods import MLE as MLE
from posterity.methods import Ensemble as Ensemble
from posterity.methods import MeanField as MeanField
from posterity.model.likelihoods import Bernoulli as Bernoulli
from posterity.model.likelihoods import Categorical as Categorical
from posterity.model.likelihoods import Gaussian as Gaussian
from posterity.model.likelihoods import HeteroscedasticGaussian as HeteroscedasticGaussian
from posterity.model.priors import Flat as Flat
from posterity.model.priors import Normal as Normal
from posterity.model.priors import ScaleMixture as ScaleMixture
from posterity.model.problem import Problem as Problem
from posterity.posteriors.files import load as load
from posterity.train.batches import LoaderData as LoaderData
from posterity.train.batches import TensorData as TensorData
from posterity.train.engine import Engine as Engine
from posterity.types import Likelihood as Likelihood

__version__ = "0.1.0"
