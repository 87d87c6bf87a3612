"""Predictions from many functions of which none is kept, and functions that are drawn once and kept."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Generator, Tensor

from posterity.errors import InvalidInput
from posterity.model.problem import check_inputs
from posterity.options import require
from posterity.posteriors.asked import check_averaging, check_posterior, check_request
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.dropout import Dropout
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.memory import predicted, served
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.samples import Samples
from posterity.predict.moments import Moments, beside, joined, moments
from posterity.predict.predictive import AnyPredictive
from posterity.train.random import derived_seed

FIRST_ROUND = 16


@dataclass(frozen=True)
class Averaging:
    """How many functions are averaged, and from which seed they are drawn: so predictions compared are of the same ones."""

    draws: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        check_averaging(self.draws, self.seed)

    def predict(self, posterior: FunctionPosterior, inputs: Tensor) -> AnyPredictive:
        """Predict inputs (B, ...) by these functions; a point has one."""
        generator = Generator(device=posterior.device).manual_seed(derived_seed(self.seed, "predict"))
        return posterior.predict(inputs, 1 if posterior.single else self.draws, generator=generator)

    def functions(self, posterior: FunctionPosterior, inputs: Tensor) -> AnyPredictive:
        """Predict as `predict` does, by drawn functions also where predictions have a closed form, which has none."""
        if not isinstance(posterior, Linearised):
            return self.predict(posterior, inputs)
        generator = Generator(device=posterior.device).manual_seed(derived_seed(self.seed, "predict"))
        return predicted(posterior.problem.likelihood, posterior.draws(inputs, self.draws, generator), None)


USUAL = Averaging()


@torch.no_grad()
def average(
    posterior: FunctionPosterior,
    inputs: Tensor,
    n: int = 1000,
    *,
    tolerance: float | None = None,
    generator: Generator | None = None,
    max_bytes: int | None = None,
) -> Moments:
    """Average up to n functions, p(y | x, D) ≈ 1/n Σ_s p(y | f(θ_s, x)), and keep none: memory does not grow with n.

    Every function is one and the same for all inputs. With a `tolerance` the number of functions doubles, from 16 on, until
    the largest Monte-Carlo standard error of the predictive mean, √(epistemic variance / (n − 1)), is no larger; a draw more
    or less changes no decision then. The error of a mixture or a chain is taken as if its draws were independent.

    Args:
        posterior: any; one in closed form (`Linearised`) is taken as it is. Of K samples there are at most K functions.
        inputs: (B, ...).
        n: number of functions, at most.
        tolerance: > 0, a probability for classes, in units of the target for regression.
        generator: source of the draws; torch's global one where None.
        max_bytes: for weights, activations and outputs at any one time, beside the inputs and a few copies of the result;
            None takes 16 MiB on a CPU and 1 GiB elsewhere. One function and one input are the least.

    Raises:
        InvalidInput: for inputs that are not finite or do not fit the network, n < 1, and a tolerance that is not > 0.

    >>> from posterity import Gaussian, Normal
    >>> from posterity.model.problem import Problem
    >>> problem = Problem(torch.nn.Linear(1, 1, bias=False), Normal(0, 1), Gaussian(std=0.1), num_data=3)
    >>> found = average(Samples(problem, torch.tensor([[1.0], [2.0], [3.0]])), torch.ones(1, 1))
    >>> found.count, found.mean, found.epistemic
    (3, tensor([2.]), tensor([0.6667]))
    """
    check_posterior(posterior)
    check_request(n, "functions", generator, max_bytes)
    require(tolerance=(0.0 if tolerance is None else tolerance, float))
    if tolerance is not None and not 0 < tolerance < inf:
        raise InvalidInput(f"tolerance={tolerance}: must be larger than 0, the error of the mean that is small enough.")
    check_inputs(inputs)
    if isinstance(posterior, Linearised):
        return moments(posterior.predict(inputs, n, generator=generator, max_bytes=max_bytes))
    found = None
    with served(posterior.problem, inputs, n, max_bytes):
        inputs = inputs.to(posterior.device)
        for count in _rounds(posterior, n, tolerance):
            found = joined(found, _round(posterior, inputs, count, generator, max_bytes))
            if tolerance is not None and float(found.error.max()) <= tolerance:
                break
    assert found is not None  # n ≥ 1
    return found


def _round(
    posterior: FunctionPosterior, inputs: Tensor, n: int, generator: Generator | None, max_bytes: int | None
) -> Moments:
    """Average n functions, a few at a time, and each few batch by batch of the inputs."""
    found = None
    for functions in posterior.predictives(inputs, n, generator, max_bytes):
        found = joined(found, beside([moments(predicted) for predicted in functions]))
    assert found is not None
    return found


def _rounds(posterior: FunctionPosterior, n: int, tolerance: float | None) -> list[int]:
    """Return how many functions each round adds: a mixture's in multiples of its components, samples' all at once."""
    chain = posterior if posterior.functions is None else posterior.functions
    if isinstance(chain, Samples):
        return [min(n, len(chain.thetas))]
    step = len(posterior.components) if isinstance(posterior, Mixture) else 1
    most = -(-n // step) * step
    if tolerance is None:
        return [most]
    rounds, done = [], 0
    while done < most:
        rounds.append(min(max(FIRST_ROUND, done), most - done) // step * step or step)
        done += rounds[-1]
    return rounds


@torch.no_grad()
def draw_functions(posterior: FunctionPosterior, n: int, generator: Generator | None = None) -> FunctionPosterior:
    """Draw n functions once and keep their weights: a posterior whose predictions always average these same functions.

    So requests of a few inputs cost no random numbers, and predictions of one batch after the other are of the same
    functions: differences between inputs are not noise of the draws. It holds n·P numbers; `posterior.predict(x, n)` of the
    result uses each function once.

    Args:
        posterior: one that is a distribution over θ; of a mixture, each component gives its share, at least 1.
        n: number of functions.

    Raises:
        InvalidInput: for n < 1, and for posteriors whose functions are no network at some θ (`Linearised`, `Dropout`).

    >>> from posterity import Gaussian, Normal
    >>> from posterity.model.problem import Problem
    >>> from posterity.posteriors.gaussian import DiagonalGaussian
    >>> problem = Problem(torch.nn.Linear(1, 1, bias=False), Normal(0, 1), Gaussian(std=0.1), num_data=3)
    >>> kept = draw_functions(DiagonalGaussian(problem, torch.zeros(1), torch.ones(1)), 8)
    >>> first, second = kept.predict(torch.ones(1, 1), 8), kept.predict(torch.ones(1, 1), 8)
    >>> bool(first.mean == second.mean)
    True
    """
    check_posterior(posterior)
    check_request(n, "functions", generator)
    if isinstance(posterior, Linearised | Dropout):
        raise InvalidInput(
            f"A function of a {type(posterior).__name__} posterior is no network at some θ, which could be kept. Give "
            "`predict` a generator with the same seed instead: it then averages the same functions."
        )
    if isinstance(posterior, Mixture):
        share = -(-n // len(posterior.components))
        kept = tuple(draw_functions(component, share, generator) for component in posterior.components)
        return Mixture.of(kept)
    if posterior.functions is not None:
        return draw_functions(posterior.functions, n, generator)
    if isinstance(posterior, Samples) and posterior.statistics:
        return posterior.some(n, generator)
    thetas = torch.stack([posterior.sample(generator) for _ in range(n)])
    return Samples(posterior.problem, thetas, provenance=posterior.provenance)
