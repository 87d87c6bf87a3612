"""What a library must offer to be judged: a way to infer, and whatever else the laws may ask it for.

Only `infer` is required. What else a subject can do is a field that may be None: a law that needs it is then not asked,
and is never taken for kept. An adapter to a library is a module with `SUBJECTS`, a sequence of these.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

Decomposition = tuple[Tensor, Tensor]  # aleatoric, epistemic


@dataclass(frozen=True)
class Task:
    """A network to infer, y ~ N(f(θ, x), noise_std²) or y ~ Categorical(softmax f(θ, x)), θ ~ N(0, prior_std²).

    Args:
        network: its weights are where the inference starts; it must not be changed.
        x: inputs (N, ...), of the network's dtype. All of them are one batch.
        y: targets (N,): numbers, or integer labels where `noise_std` is None.
        noise_std: of the observations; None for classification.
        prior_std: of every weight and bias.
        seed: what the inference's random numbers depend on, and nothing else.
        brief: any posterior will do: a few steps are enough.
        autocast: compute under bfloat16 autocast.
    """

    network: nn.Module
    x: Tensor
    y: Tensor
    noise_std: float | None = 0.5
    prior_std: float = 0.7
    seed: int = 0
    brief: bool = False
    autocast: bool = False


class Inferred(ABC):
    """An approximate posterior of a task. It must hold its state in attributes, for `deepcopy` and `pickle`."""

    @abstractmethod
    def draw(self, inputs: Tensor, n: int, seed: int) -> Tensor:
        """Evaluate n functions on a batch, (n, B, outputs): as the library predicts, seeded by `seed` alone."""

    def log_evidence(self) -> float | None:
        """Return log p(y | x), in nats, where the library claims to know it."""
        return None

    def decompositions(self, inputs: Tensor, n: int, seed: int) -> Mapping[str, Decomposition]:
        """Return aleatoric and epistemic parts over the n functions of `draw(inputs, n, seed)`, by name.

        The names known: 'variance' (B,), of regression; 'entropy' (B,), of classification, and its class-wise variances,
        'softmax' and 'normalized' (B, C). Empty where the library has none.
        """
        return {}

    def restored(self, folder: Path) -> "Inferred | None":
        """Write to a file and read it again; None where the library has no files."""
        return None


@dataclass(frozen=True)
class Subject:
    """One method of one library.

    Args:
        name: `mean_field-flipout`: a method, and what tells it from its kind.
        infer: runs it.
        batched: runs it on batches of so many data, in the order in which they are given; the last may be smaller.
        covariance: the covariance that q must have on conjugate regression, given the exact posterior's precision (P, P) and
            N: `full`, `independent`, `point`, or the exact law of a discretised chain.
        kl: KL(N(mean, std²) ‖ N(0, prior_std²)) in nats, of vectors (P,), as its objective has it.
        layer: n outputs (n, B, 1) of its linear layer without bias, of the weight's mean and std (D,), inputs (B, D), a seed.
        module: turns a network into one whose forward passes are random.
        resumed: a brief task run to its end at once, and the same one interrupted and resumed: the draws of both.
        log_joint: log p(y, θ), in nats, of a task and θ (P,).
        refuses: `infer`, where the library owns the training and so can check what it is given.
        sample: draws (C, S, D) from exp(log_density) by C chains, begun at the rows of `start`, (≥ C, D), or near the first.
        stationary: the covariance that `sample` has under N(0, precision⁻¹) with its steps as they are; None: the exact one.
        densities: the names of those that it is asked to sample.
        replicates: how many seeds law 1 takes. draws: of each.
        not_applicable: laws that say nothing about this method, with the reason in words.
    """

    name: str
    infer: Callable[[Task], Inferred]
    batched: Callable[[Task, int], Inferred] | None = None
    covariance: Callable[[Tensor, int], Tensor] | None = None
    kl: Callable[[Tensor, Tensor, float], float] | None = None
    layer: Callable[[tuple[Tensor, Tensor], Tensor, int, int], Tensor] | None = None
    module: Callable[[nn.Module], nn.Module] | None = None
    resumed: Callable[[Task], tuple[Tensor, Tensor]] | None = None
    log_joint: Callable[[Task, Tensor], float] | None = None
    refuses: Callable[[Task], Any] | None = None
    sample: Callable[[Callable[[Tensor], Tensor], Tensor, int], Tensor] | None = None
    stationary: Callable[[Tensor], Tensor] | None = None
    densities: tuple[str, ...] = ("normal", "funnel", "banana")
    replicates: int = 4
    draws: int = 400
    not_applicable: Mapping[int, str] = field(default_factory=dict)


def full(precision: Tensor, num_data: int) -> Tensor:
    """Return the exact covariance, precision⁻¹."""
    return precision.inverse()


def independent(precision: Tensor, num_data: int) -> Tensor:
    """Return the covariance of the best independent q in KL(q‖p): 1/diag(precision), narrower than the marginals."""
    return precision.diagonal().reciprocal().diag()


def point(precision: Tensor, num_data: int) -> Tensor:
    """Return the covariance of a point: 0."""
    return 0 * precision
