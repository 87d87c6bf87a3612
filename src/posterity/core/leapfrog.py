"""One leapfrog step, the gradient in it and the numbers that are read from it, as one compiled kernel.

A step of a small network is bound by the calls of its operations, not by their arithmetic. So the step is recorded once,
backward pass included, and its graph goes to torch's compiler directly: neither autograd nor the guards that `torch.compile`
puts around a function are there at run time. One graph serves trajectories of any length; nothing is compiled twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from posterity.core.hamiltonian import Metric, Point, Position, System, energy
from posterity.errors import InvalidInput
from posterity.types import Batch

Step: TypeAlias = tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor
]  # θ, p, ∇ log π, velocity (P,); log π and p·velocity (2,)
Kernel: TypeAlias = Callable[..., Step]  # of θ, p, ∇ log π, step size (), M⁻¹, inputs and targets


@dataclass(frozen=True, eq=False)
class CompiledSystem(System):
    """A system whose leapfrog steps are a kernel's; `kernel` belongs to `log_density` and to the metric's shape.

    Args:
        kernel: made by `compiled_leapfrog`.
        batch: the data that the density depends on, given to the kernel at each step.
    """

    kernel: Kernel
    batch: Batch

    def leapfrog(self, point: Point, step_size: float) -> Point:
        here = point.position
        size = torch.full((), step_size, dtype=here.theta.dtype, device=here.theta.device)
        with torch.no_grad():
            theta, momentum, gradient, velocity, numbers = self.kernel(
                here.theta, point.momentum, here.gradient, size, self.metric.inverse_mass, *self.batch
            )
        log_density, square = numbers.tolist()
        return Point(Position(theta, log_density, gradient), momentum, velocity, energy(log_density, square))


def compiled_leapfrog(
    log_density: Callable[[Tensor, Batch], Tensor], theta: Tensor, inverse_mass: Tensor, batch: Batch
) -> Kernel:
    """Compile p ← p + ½ε ∇log π(θ), θ ← θ + ε M⁻¹ p, p ← p + ½ε ∇log π(θ), for tensors like these.

    Args:
        log_density: of θ (P,) and a batch, (), in nats; made of torch's operations alone, the same ones at every θ.
        theta, inverse_mass, batch: tensors whose shapes, dtypes and devices the kernel is made for.

    Raises:
        InvalidInput: where the density's operations depend on values, or where there is no working compiler.

    >>> from posterity.core.hamiltonian import Metric
    >>> def normal(theta, batch):
    ...     return -0.5 * (batch[0] * theta - batch[1]).square().sum()
    >>> theta, batch = torch.zeros(2), (torch.ones(2), torch.ones(2))
    >>> kernel = compiled_leapfrog(normal, theta, torch.ones(2), batch)
    >>> system = CompiledSystem(lambda t: normal(t, batch), Metric(torch.ones(2)), kernel, batch)
    >>> start = system.at(system.position(theta), torch.zeros(2))
    >>> system.leapfrog(start, 0.5).position.theta
    tensor([0.1250, 0.1250])
    """

    def step(theta: Tensor, momentum: Tensor, gradient: Tensor, size: Tensor, *given: Tensor) -> Step:
        inverse_mass, *batch = given
        metric = Metric(inverse_mass)
        half = momentum + 0.5 * size * gradient
        leaf = (theta + size * metric.velocity(half)).detach().requires_grad_()
        with torch.enable_grad():
            value = log_density(leaf, tuple(batch))  # type: ignore[arg-type]  # as many parts as it has
            (gradient,) = torch.autograd.grad(value, [leaf])
        finite = value.isfinite() & gradient.sum().isfinite()  # as in `differentiated`
        gradient = torch.where(finite, gradient, 0.0)
        momentum = half + 0.5 * size * gradient
        velocity = metric.velocity(momentum)
        numbers = torch.stack([torch.where(finite, value, -torch.inf), momentum @ velocity])
        return leaf.detach(), momentum, gradient, velocity, numbers.detach()

    given = (theta, theta, theta, theta.new_ones(()), inverse_mass, *batch)
    with torch.no_grad():
        return _compiled(step, tuple(tensor.clone() for tensor in given))  # they are told apart by identity


def _compiled(step: Kernel, example: tuple[Tensor, ...]) -> Kernel:
    import torch._inductor  # the compiler takes seconds to import, which no other fit should wait for
    from torch._inductor.exc import InductorError

    try:
        kernel: Kernel = torch._inductor.compile(make_fx(step)(*example), list(example))
        kernel(*example)  # what is compiled late is compiled here
    except InductorError as error:
        raise InvalidInput(
            "compiled=True needs a working compiler (g++ or clang, or Triton on an accelerator), and none was found or it "
            f"failed: {_first_line(error)}. Install one, or leave compiled=False."
        ) from error
    except RuntimeError as error:
        raise InvalidInput(
            "compiled=True needs a network, prior and likelihood whose operations and shapes are the same at every value "
            f"of the weights, and these could not be recorded: {_first_line(error)} Leave compiled=False."
        ) from error
    return kernel


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
