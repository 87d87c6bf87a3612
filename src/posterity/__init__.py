"""Posterity turns any PyTorch network into a Bayesian one, infers its posterior, and says how far to trust each prediction.

Public names are imported when they are first used, so that `posterity --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posterity.compress.prune import prune as prune
    from posterity.compress.structured import smaller as smaller
    from posterity.contracts import Data as Data
    from posterity.contracts import Inference as Inference
    from posterity.contracts import Method as Method
    from posterity.contracts import Posterior as Posterior
    from posterity.core.compiled import compiled_normals as compiled_normals
    from posterity.core.optimizer import Optimizer as Optimizer
    from posterity.core.schedules import kl_weight as kl_weight
    from posterity.decide.abstain import abstain as abstain
    from posterity.decide.conformal import calibrate as calibrate
    from posterity.decide.temperature import Temperature as Temperature
    from posterity.errors import CorruptFile as CorruptFile
    from posterity.errors import DataNotFound as DataNotFound
    from posterity.errors import Diverged as Diverged
    from posterity.errors import Interrupted as Interrupted
    from posterity.errors import InvalidInput as InvalidInput
    from posterity.errors import Mismatch as Mismatch
    from posterity.errors import PosterityError as PosterityError
    from posterity.errors import PosterityWarning as PosterityWarning
    from posterity.errors import ScaleWarning as ScaleWarning
    from posterity.fitting import fit as fit
    from posterity.methods import HMC as HMC
    from posterity.methods import IVON as IVON
    from posterity.methods import MAP as MAP
    from posterity.methods import MLE as MLE
    from posterity.methods import NUTS as NUTS
    from posterity.methods import SGHMC as SGHMC
    from posterity.methods import SGLD as SGLD
    from posterity.methods import SWAG as SWAG
    from posterity.methods import Cyclical as Cyclical
    from posterity.methods import Ensemble as Ensemble
    from posterity.methods import FullRank as FullRank
    from posterity.methods import Laplace as Laplace
    from posterity.methods import LowRank as LowRank
    from posterity.methods import MCDropout as MCDropout
    from posterity.methods import MeanField as MeanField
    from posterity.methods import Microcanonical as Microcanonical
    from posterity.methods import Refine as Refine
    from posterity.methods import SampledEnsemble as SampledEnsemble
    from posterity.model.bayesianize import bayesianize as bayesianize
    from posterity.model.bayesianize import deterministic as deterministic
    from posterity.model.bayesianize import kl as kl
    from posterity.model.explain import explain as explain
    from posterity.model.hyperpriors import HalfCauchy as HalfCauchy
    from posterity.model.hyperpriors import HalfNormal as HalfNormal
    from posterity.model.hyperpriors import InverseGamma as InverseGamma
    from posterity.model.hyperpriors import LogNormal as LogNormal
    from posterity.model.informative import Informative as Informative
    from posterity.model.initial import Relative as Relative
    from posterity.model.initial import curvature_std as curvature_std
    from posterity.model.likelihoods import Bernoulli as Bernoulli
    from posterity.model.likelihoods import Categorical as Categorical
    from posterity.model.likelihoods import Gaussian as Gaussian
    from posterity.model.likelihoods import HeteroscedasticGaussian as HeteroscedasticGaussian
    from posterity.model.priors import Cauchy as Cauchy
    from posterity.model.priors import Flat as Flat
    from posterity.model.priors import Hierarchical as Hierarchical
    from posterity.model.priors import Horseshoe as Horseshoe
    from posterity.model.priors import LaplacePrior as LaplacePrior
    from posterity.model.priors import MixturePrior as MixturePrior
    from posterity.model.priors import Normal as Normal
    from posterity.model.priors import Product as Product
    from posterity.model.priors import ScaleMixture as ScaleMixture
    from posterity.model.priors import StudentT as StudentT
    from posterity.model.problem import Problem as Problem
    from posterity.model.selection import Not as Not
    from posterity.posteriors.average import average as average
    from posterity.posteriors.average import draw_functions as draw_functions
    from posterity.posteriors.compare import compare_posteriors as compare_posteriors
    from posterity.posteriors.files import load as load
    from posterity.posteriors.mixture import Mixture as Mixture
    from posterity.posteriors.modules import posterior as posterior
    from posterity.posteriors.ood import out_of_distribution as out_of_distribution
    from posterity.posteriors.prior import prior_predictive as prior_predictive
    from posterity.posteriors.shift import under_shift as under_shift
    from posterity.posteriors.statistics import with_statistics as with_statistics
    from posterity.predict.decomposition import chi_square as chi_square
    from posterity.predict.decomposition import drawn_labels as drawn_labels
    from posterity.train.batches import LoaderData as LoaderData
    from posterity.train.batches import TensorData as TensorData
    from posterity.train.engine import Engine as Engine
    from posterity.types import Likelihood as Likelihood
    from posterity.types import Prior as Prior

__version__ = "0.1.0"

_HOMES = {
    "posterity.compress.prune": ("prune",),
    "posterity.compress.structured": ("smaller",),
    "posterity.contracts": ("Data", "Inference", "Method", "Posterior"),
    "posterity.core.compiled": ("compiled_normals",),
    "posterity.core.optimizer": ("Optimizer",),
    "posterity.core.schedules": ("kl_weight",),
    "posterity.decide.abstain": ("abstain",),
    "posterity.decide.conformal": ("calibrate",),
    "posterity.decide.temperature": ("Temperature",),
    "posterity.errors": (
        "CorruptFile",
        "DataNotFound",
        "Diverged",
        "Interrupted",
        "InvalidInput",
        "Mismatch",
        "PosterityError",
        "PosterityWarning",
        "ScaleWarning",
    ),
    "posterity.fitting": ("fit",),
    "posterity.methods": (
        "HMC",
        "IVON",
        "MAP",
        "MLE",
        "NUTS",
        "SGHMC",
        "SGLD",
        "SWAG",
        "Cyclical",
        "Ensemble",
        "FullRank",
        "Laplace",
        "LowRank",
        "MCDropout",
        "MeanField",
        "Microcanonical",
        "Refine",
        "SampledEnsemble",
    ),
    "posterity.model.bayesianize": (
        "bayesianize",
        "deterministic",
        "kl",
    ),
    "posterity.model.explain": ("explain",),
    "posterity.model.hyperpriors": (
        "HalfCauchy",
        "HalfNormal",
        "InverseGamma",
        "LogNormal",
    ),
    "posterity.model.informative": ("Informative",),
    "posterity.model.initial": (
        "Relative",
        "curvature_std",
    ),
    "posterity.model.likelihoods": (
        "Bernoulli",
        "Categorical",
        "Gaussian",
        "HeteroscedasticGaussian",
    ),
    "posterity.model.priors": (
        "Cauchy",
        "Flat",
        "Hierarchical",
        "Horseshoe",
        "LaplacePrior",
        "MixturePrior",
        "Normal",
        "Product",
        "ScaleMixture",
        "StudentT",
    ),
    "posterity.model.problem": ("Problem",),
    "posterity.model.selection": ("Not",),
    "posterity.posteriors.average": ("average", "draw_functions"),
    "posterity.posteriors.statistics": ("with_statistics",),
    "posterity.posteriors.compare": ("compare_posteriors",),
    "posterity.posteriors.files": ("load",),
    "posterity.posteriors.mixture": ("Mixture",),
    "posterity.posteriors.modules": ("posterior",),
    "posterity.posteriors.ood": ("out_of_distribution",),
    "posterity.posteriors.prior": ("prior_predictive",),
    "posterity.posteriors.shift": ("under_shift",),
    "posterity.predict.decomposition": ("chi_square", "drawn_labels"),
    "posterity.train.batches": (
        "LoaderData",
        "TensorData",
    ),
    "posterity.train.engine": ("Engine",),
    "posterity.types": (
        "Likelihood",
        "Prior",
    ),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(home), name)
            return value
    methods = import_module("posterity.methods") if name[:1].isupper() else None  # one that is in none of these lists
    if hasattr(methods, name):
        return getattr(methods, name)
    raise AttributeError(f"module 'posterity' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
