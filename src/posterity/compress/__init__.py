"""Posteriors without the weights that do not matter, and networks that are smaller for it."""

from posterity.compress.prune import SparsityCurve as SparsityCurve
from posterity.compress.prune import SparsityPoint as SparsityPoint
from posterity.compress.prune import prune as prune
from posterity.compress.prune import sparsity as sparsity
from posterity.compress.prune import sparsity_curve as sparsity_curve
from posterity.compress.ranking import importance as importance
from posterity.compress.refit import refit as refit
from posterity.compress.structured import smaller as smaller
from posterity.compress.unit_pruning import prune_units as prune_units
