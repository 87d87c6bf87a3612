"""How much the KL weighs at each step, and how the learning rate moves: plain functions of the step, or of a score.

The loss of a step is `mean nll of the batch + weight(step) · KL / N` (nats per datum, N data in M batches per epoch).
A schedule is right if its weights average to the temperature over an epoch (or, for a warm-up, over the epochs after it):
then a full epoch costs Σ nll + temperature · KL, whatever the number of batches.
"""

from functools import lru_cache
from math import inf, ldexp

import torch
from torch import Tensor

from posterity.errors import unknown

KL_SCHEDULES = ("constant", "warmup", "blundell")


def kl_weight(schedule: str, step: int, steps_per_epoch: int, warmup_epochs: int = 5) -> float:
    """Return the weight of KL/N at a step counted from 0.

    - `constant`: 1. The same as spreading the KL evenly, KL/M on each of M batches' summed nll (Graves 2011): divided by
      the batch size B, (KL/M)/B = KL/N.
    - `warmup`: (step + 1) / (warmup_epochs · M), then 1 (Sønderby et al. 2016). It moves with every step, so a run shorter
      than the warm-up is defined too.
    - `blundell`: M · 2^(M−i) / (2^M − 1) for batch i = 1 … M of the epoch (Blundell et al. 2015, §3.4). Their weights sum to
      1 beside *summed* nlls; beside mean nlls they must be multiplied by M, which is what other code forgets.

    >>> round(sum(kl_weight("blundell", i, 7) for i in range(7)) / 7, 12)
    1.0
    >>> [kl_weight("warmup", s, 10, warmup_epochs=1) for s in (0, 4, 9, 50)]
    [0.1, 0.5, 1.0, 1.0]

    Raises:
        InvalidInput: for an unknown schedule.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "warmup":
        return min(1.0, (step + 1) / max(1, warmup_epochs * steps_per_epoch))
    if schedule == "blundell":
        position = step % steps_per_epoch + 1
        return steps_per_epoch * ldexp(1.0, -position) / (1.0 - ldexp(1.0, -steps_per_epoch))
    raise unknown("KL schedule", schedule, KL_SCHEDULES)


LEARNING_RATES = ("constant", "cosine", "linear", "one_cycle")


def learning_rates(schedule: str, rate: float, steps: int) -> list[float]:
    """Roll one of torch's own learning-rate schedules out over all steps, so that resuming needs the step number alone.

    `constant`; `cosine` (CosineAnnealingLR to 0); `linear` (LinearLR to 0); `one_cycle` (OneCycleLR, momentum fixed).

    >>> [round(r, 3) for r in learning_rates("linear", 1.0, 4)]
    [1.0, 0.75, 0.5, 0.25]

    Raises:
        InvalidInput: for an unknown schedule.
    """
    return [rate] * steps if schedule == "constant" else list(_rolled_out(schedule, rate, steps))


@lru_cache(maxsize=64)
def _rolled_out(schedule: str, rate: float, steps: int) -> tuple[float, ...]:
    """Step a scheduler of torch's through a whole run, once for all fits of it: members of an ensemble, say."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    schedulers = torch.optim.lr_scheduler
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if schedule == "cosine":
        scheduler = schedulers.CosineAnnealingLR(optimizer, steps)
    elif schedule == "linear":
        scheduler = schedulers.LinearLR(optimizer, 1.0, 0.0, steps)
    elif schedule == "one_cycle":
        scheduler = schedulers.OneCycleLR(optimizer, rate, max(2, steps), cycle_momentum=False)
    else:
        raise unknown("learning-rate schedule", schedule, LEARNING_RATES)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return tuple(rates)


THRESHOLD = 1e-4  # a relative improvement that is smaller is none


class Plateau:
    """A rate that falls by a factor once a score has not improved for more than `patience` epochs (ReduceLROnPlateau);
    with validation data, epochs that look at them, see `Budget.validates`.

    `memory` is all that it remembers, live: factors so far, the best score, epochs without a better one. Copying saved
    numbers into it restores it, so that a resumed run goes on bit for bit.

    >>> plateau = Plateau(0.1, patience=1)
    >>> for score in (3.0, 2.0, 2.0, 2.0, 1.0):
    ...     plateau.observe(score)
    >>> plateau.rate, plateau.memory.tolist()
    (0.1, [1.0, 1.0, 0.0])
    """

    def __init__(self, factor: float, patience: int) -> None:
        self.factor, self.patience = factor, patience
        self.memory: Tensor = torch.tensor([0.0, inf, 0.0], dtype=torch.float64)

    @property
    def rate(self) -> float:
        """What the learning rate is multiplied by."""
        return float(self.factor ** int(self.memory[0]))

    def observe(self, score: float) -> None:
        """Hear an epoch's score, the lower the better."""
        falls, best, waited = self.memory.tolist()
        # Of scores below 0, a log density in small units, a better one is farther from 0.
        better = best == inf or score < best - THRESHOLD * abs(best)
        best, waited = (score, 0.0) if better else (best, waited + 1)
        if waited > self.patience:
            falls, waited = falls + 1, 0.0
        self.memory.copy_(torch.tensor([falls, best, waited], dtype=torch.float64))
