"""What a Hamiltonian sampler learns while it warms up: its step size, and the metric, from windows of growing length.

Each keeps its memory in tensors that it updates in place, so that whoever runs it can save them and go on from there.
"""

from math import exp, log, sqrt

import torch
from torch import Tensor

FIRST, LAST, WINDOW = 75, 50, 25  # Stan's lengths of the first and last intervals and of the first window
SHORTEST = 20  # a warm-up that is shorter learns the step size alone
SHRINK, TOWARDS = 5.0, 1e-3  # the metric is shrunk as if it had also seen 5 draws of variance 0.001


def window_ends(warmup: int) -> tuple[int, ...]:
    """Return the transitions after which the metric is learnt anew; the first of them follows an interval that is left out.

    Stan's schedule: a fast first interval, windows that double in length, and a last interval, in which (as in the first)
    only the step size is learnt. The last window takes what would not make a whole further one. A short warm-up has 15 %,
    75 % and 10 % of each.

    >>> window_ends(1000), window_ends(100), window_ends(10)
    ((75, 100, 150, 250, 450, 950), (15, 90), ())
    """
    if warmup < SHORTEST:
        return ()
    first, last, window = FIRST, LAST, WINDOW
    if first + window + last > warmup:
        first, last = int(0.15 * warmup), int(0.1 * warmup)
        window = warmup - first - last
    ends = [first]
    while ends[-1] < warmup - last:
        end = ends[-1] + window
        window *= 2
        ends.append(end if end + window <= warmup - last else warmup - last)
    return tuple(ends)


class StepSize:
    """Dual averaging of log ε towards an acceptance (Nesterov 2009; Hoffman & Gelman 2014, §3.2).

    log ε_t = a − √t/γ · h_t,      h_t = (1 − 1/(t + t₀)) h_(t−1) + (δ − α_t)/(t + t₀)
    average_t = t^(−κ) log ε_t + (1 − t^(−κ)) average_(t−1)

    α_t is the acceptance of transition t, δ its target, a = log(10 ε₀) an anchor, γ = 0.05, t₀ = 10, κ = 0.75.

    Args:
        memory: (5,) in float64: log ε, its average, h, a, t; updated in place.

    >>> step = StepSize(torch.zeros(5, dtype=torch.float64))
    >>> step.restart(0.5)
    >>> for _ in range(10000):
    ...     step.learn(exp(-step.current), 0.8)  # acceptance falls with the step size
    >>> round(step.average, 2), round(-log(0.8), 2)
    (0.22, 0.22)
    """

    def __init__(self, memory: Tensor) -> None:
        self._memory = memory

    @property
    def current(self) -> float:
        return exp(float(self._memory[0]))

    @property
    def average(self) -> float:
        """The step size to keep when warm-up is over."""
        return exp(float(self._memory[1]))

    def restart(self, step_size: float) -> None:
        self._remember(log(step_size), log(step_size), 0.0, log(10 * step_size), 0.0)

    def learn(self, acceptance: float, target: float) -> None:
        _, average, gap, anchor, count = self._memory.tolist()
        count += 1
        gap += (target - acceptance - gap) / (count + 10)
        current = anchor - sqrt(count) / 0.05 * gap
        self._remember(current, average + count**-0.75 * (current - average), gap, anchor, count)

    def _remember(self, *values: float) -> None:
        self._memory.copy_(torch.tensor(values, dtype=torch.float64))


class Scatter:
    """The running covariance of a window's draws (Welford 1962), shrunk towards a small multiple of the identity.

    Σ̂ = n/(n + 5) · S + 5/(n + 5) · 10⁻³ I,      S the sample covariance of n draws (Stan's regularisation)

    Args:
        count: (), mean: (P,), sums: (P,) for a diagonal, (P, P) for a dense covariance; updated in place.

    >>> scatter = Scatter(torch.zeros(()), torch.zeros(2), torch.zeros(2))
    >>> for draw in torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]]):
    ...     scatter.add(draw)
    >>> scatter.covariance()
    tensor([1.5006, 1.1256])
    """

    def __init__(self, count: Tensor, mean: Tensor, sums: Tensor) -> None:
        self._count, self._mean, self._sums = count, mean, sums

    def add(self, draw: Tensor) -> None:
        self._count += 1
        before = draw - self._mean
        self._mean += before / self._count
        after = draw - self._mean
        self._sums += before * after if self._sums.dim() == 1 else torch.outer(before, after)

    def covariance(self) -> Tensor:
        """Return Σ̂: its diagonal (P,), or (P, P); needs two draws."""
        count = float(self._count)
        shrunk = self._sums / (count - 1) * (count / (count + SHRINK))
        diagonal = shrunk if shrunk.dim() == 1 else shrunk.diagonal()
        diagonal += TOWARDS * SHRINK / (count + SHRINK)
        return shrunk

    def clear(self) -> None:
        for tensor in (self._count, self._mean, self._sums):
            tensor.zero_()
