"""Distribution functions with slopes that torch does not have, made by their Taylor series about the values as they are.

The value of the series is that of the function, and so are its slopes: once in a shape, by differences, and twice in the
number itself, whose slope is the density.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributions as dist

from posterity.core.families import by_scipy

STEP = 1e-5  # of a shape, relative: central differences are then right to 1e-9
UNDERFLOW = 1e-290
TERMS = 24  # of a continued fraction and of a series, where the function itself is below the smallest number


def log_gammas(shape: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the regularised incomplete Gamma functions P(shape, x) and Q(shape, x), of float64.

    >>> log_gammas(torch.tensor(1.0).double(), torch.tensor(1000.0).double())  # 1 − exp(−x), exp(−x)
    (tensor(0., dtype=torch.float64), tensor(-1000., dtype=torch.float64))
    """
    return _in_shape(_log_lower, shape, x), _in_shape(_log_upper, shape, x)


def student_below(z: Tensor, df: Tensor) -> Tensor:
    """Return the distribution function of Student's t, SciPy's, of float64.

    >>> student_below(torch.tensor(1.0).double(), torch.tensor(1.0).double())
    tensor(0.7500, dtype=torch.float64)
    """
    from scipy.special import stdtr

    fixed, shape = z.detach(), df.detach()
    away = z - fixed
    density = dist.StudentT(shape, validate_args=False).log_prob(fixed).exp()
    bend = -density * (shape + 1) * fixed / (shape + fixed.square())
    own = by_scipy(stdtr, shape, fixed) + away * density + 0.5 * away.square() * bend
    step = STEP * shape
    change: Tensor = (by_scipy(stdtr, shape + step, fixed) - by_scipy(stdtr, shape - step, fixed)) / (2 * step)
    below: Tensor = own + change * (df - shape)
    return below


def _in_shape(function: Callable[[Tensor, Tensor], Tensor], shape: Tensor, x: Tensor) -> Tensor:
    """Return the function with its slope in the shape, by central differences."""
    fixed, place = shape.detach(), x.detach()
    step = STEP * fixed
    change = (function(fixed + step, place) - function(fixed - step, place)) / (2 * step)
    value: Tensor = function(fixed, x) + change * (shape - fixed)
    return value


def _log_lower(shape: Tensor, x: Tensor) -> Tensor:
    """Σ_k x^(a+k) e^(−x)/Γ(a + k + 1) where P is below all numbers."""
    lower: Tensor = torch.special.gammainc(shape, x)
    lost = lower < UNDERFLOW
    term = total = torch.ones_like(x * shape)
    for k in range(1, TERMS):
        term = term * (x / (shape + k)).clamp(max=1.0)
        total = total + term
    far = shape * x.log() - x - torch.lgamma(shape + 1) + total.log()
    return torch.where(lost, far, torch.where(lost, 1.0, lower).log())


def _log_upper(shape: Tensor, x: Tensor) -> Tensor:
    """x^a e^(−x)/Γ(a) · 1/(x + 1 − a − 1 (1 − a)/(x + 3 − a − 2 (2 − a)/(x + 5 − a − …))) where Q is below all numbers."""
    upper = torch.special.gammaincc(shape, x)
    lost = upper < UNDERFLOW
    place = torch.where(lost, x, shape + 100)  # where the fraction has no pole
    fraction = place + 2 * TERMS + 1 - shape
    for k in range(TERMS, 0, -1):
        fraction = place + 2 * k - 1 - shape - k * (k - shape) / fraction
    far = shape * place.log() - place - torch.lgamma(shape) - fraction.log()
    return torch.where(lost, far, torch.where(lost, 1.0, upper).log())
