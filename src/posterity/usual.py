"""What is inferred with where nothing else is asked, by estimators and command line: method, prior and widths, and why.

The rule, of N rows:

- numbers, N ≤ 4,000 a minute: a sampled ensemble of 8 networks 16-16-16-16 and a linear map beside, weights
  N(0, 1.5²/fan-in). Each step of its chains is a gradient of all rows; so many that 1,000 rows take about a minute;
- numbers, N ≤ 50,000: of 5 networks 32-32-32 and the map beside, trained for longer, and with chains that are shorter the more
  rows there are: the more of them, the nearer to the trained networks is what the chains would find;
- numbers, more rows: a chain of stochastic gradients of one hidden layer of 50 units, weights N(0, 1/fan-in);
- classes: mean field by local reparameterisation, of one hidden layer of 50 units, weights N(0, 1).

Steps go with the minutes that are given; those of classes have arrived. No clock is asked, so that the same words give the
same posterior on any machine.

The first was chosen by benchmarks/defaults.py, on tables apart from those that docs/results/tables.md scores it on; the second
on validation rows of one of power's splits, and on Friedman's function.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from posterity.core.optimizer import Optimizer
from posterity.methods import SGLD, MeanField, SampledEnsemble
from posterity.model.priors import Normal
from posterity.types import Prior

BATCH = 256  # rows per step, of what goes in steps
SAMPLED, IN_MEMORY = 4000, 50_000  # rows at most, a minute; and that fit into memory beside five networks' units
WARMUP, KEPT, LEAST_STEPS = 120, 80, 20  # transitions of a chain in a minute, and steps of one
MOST = 4  # times as many transitions, of more minutes; then their steps become more
CHAIN_STEPS, VARIATIONAL_STEPS = 7500, 2000
HIDDEN = (50,)  # widths, but for sampled ensembles


@dataclass(frozen=True)
class Usual:
    """A choice, and the reason in a sentence."""

    method: Any
    prior: Prior
    hidden: tuple[int, ...]
    why: str
    shortcut: bool = False  # of the network, see `MLP`


def for_numbers(rows: int, steps_per_epoch: int, minutes: float = 1.0) -> Usual:
    """Choose for real targets.

    >>> for_numbers(500, 2).hidden, for_numbers(80_000, 313).method.epochs
    ((16, 16, 16, 16), 25)
    >>> for_numbers(500, 2, minutes=2.0).method.sampler.draws
    160
    """
    prior = Normal(0, 1.5, fan_in=True)
    if rows <= SAMPLED * minutes:
        why = f"{rows:,} rows are few enough for chains whose steps see all of them: an ensemble of sampled networks."
        return Usual(_sampled(minutes), prior, (16, 16, 16, 16), why, shortcut=True)
    if rows <= IN_MEMORY:
        why = f"{rows:,} rows are many for chains whose steps see all of them: five larger networks, and short chains of these."
        return Usual(_trained(rows, minutes), prior, (32, 32, 32), why, shortcut=True)
    epochs = ceil(minutes * CHAIN_STEPS / steps_per_epoch)
    chain = SGLD(epochs=epochs, lr=3e-3, draws=100, preconditioner="rmsprop")
    why = f"{rows:,} rows are too many for chains whose steps see all of them: one of stochastic gradients."
    return Usual(chain, Normal(0, 1, fan_in=True), HIDDEN, why)


def _sampled(minutes: float) -> SampledEnsemble:
    usual = SampledEnsemble()
    times = min(minutes, MOST)
    sampler = replace(
        usual.sampler,
        warmup=max(3, round(WARMUP * times)),
        draws=max(4, round(KEPT * times)),
        steps=round(LEAST_STEPS * minutes / times),
    )
    return replace(usual, sampler=sampler)


def _trained(rows: int, minutes: float) -> SampledEnsemble:
    usual = SampledEnsemble()
    steps = max(2, round(10 * minutes * 2 * SAMPLED / rows))
    sampler = replace(usual.sampler, warmup=60, draws=40, steps=steps)
    return replace(usual, members=5, training=ceil(8000 * minutes), sampler=sampler)


def for_streams(prior: Prior, steps: int, steps_per_epoch: int) -> Usual:
    """Choose for rows that come in parts: a Gaussian, which the prior of the next part can be."""
    method = MeanField("local_reparam", epochs=ceil(steps / steps_per_epoch), optimizer=Optimizer(lr=0.01))
    return Usual(method, prior, HIDDEN, "Rows in parts: mean field, whose posterior is the prior of the next.")


def for_classes(rows: int, steps_per_epoch: int) -> Usual:
    """Choose for classes, which do not hang on the number of rows."""
    epochs = ceil(VARIATIONAL_STEPS / steps_per_epoch)
    method = MeanField("local_reparam", epochs=epochs, optimizer=Optimizer(lr=0.01), monitor="nelbo")
    return Usual(
        method, Normal(0, 1), (50,), "Classes: mean field with the noise of each row's own, as cheap as a point."
    )
