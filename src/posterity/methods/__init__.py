"""Inference methods: each a frozen dataclass with one `infer(problem, data, engine)`, in a file of this folder.

A new file is found by itself: its class is `posterity.NAME`, its kind a choice of `--method`, of files and of `Ensemble`.
"""

from importlib import import_module
from pkgutil import iter_modules

from posterity.methods.base import KINDS as KINDS
from posterity.methods.base import Method as Method
from posterity.methods.base import as_method as as_method
from posterity.methods.cyclical import Cyclical as Cyclical
from posterity.methods.ensemble import Ensemble as Ensemble
from posterity.methods.full_rank import FullRank as FullRank
from posterity.methods.hmc import HMC as HMC
from posterity.methods.ivon import IVON as IVON
from posterity.methods.laplace import Laplace as Laplace
from posterity.methods.low_rank import LowRank as LowRank
from posterity.methods.map import MAP as MAP
from posterity.methods.map import MLE as MLE
from posterity.methods.mc_dropout import MCDropout as MCDropout
from posterity.methods.mean_field import MeanField as MeanField
from posterity.methods.microcanonical import Microcanonical as Microcanonical
from posterity.methods.nuts import NUTS as NUTS
from posterity.methods.records import AnyMethod as AnyMethod
from posterity.methods.refine import Refine as Refine
from posterity.methods.sampled_ensemble import SampledEnsemble as SampledEnsemble
from posterity.methods.sghmc import SGHMC as SGHMC
from posterity.methods.sgld import SGLD as SGLD
from posterity.methods.swag import SWAG as SWAG

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
globals().update({_cls.__name__: _cls for _cls in KINDS.values() if _cls.__module__.startswith(f"{__name__}.")})
