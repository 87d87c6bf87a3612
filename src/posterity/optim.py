"""IVON for anyone's own training loop: an optimiser of torch whose steps are mean-field variational inference.

The algorithm is that of `posterity.methods.ivon` (Shen et al. 2024, Algorithm 1). Each weight has q = N(μ, σ²) with
σ² = 1/(N (h + δ)) and δ = 1/(N s²) for the prior N(0, s²); outside the blocks the parameters are μ. With θ_k = μ + σ·ε_k for
draw k = 1 … K, g_k the loss's gradient at θ_k, ĝ their mean and ĥ the mean of g_k·ε_k/σ, step t = 1, 2, … is

    g ← β₁ g + (1 − β₁) ĝ
    h ← h + (1 − β₂)(ĥ − h) + ½ (1 − β₂)² (h − ĥ)² / (h + δ)
    μ ← μ − lr (h₀ + δ) (g / (1 − β₁ᵗ) + δ μ) / (h + δ)

The loss is the mean negative log-likelihood of a batch, in nats per datum, without weight decay: that is the prior's part.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any, overload

import torch
from torch import Generator, Tensor

from posterity.core.gaussian import noise_like
from posterity.errors import InvalidInput
from posterity.model.padding import parameter_groups as parameter_groups


class IVON(torch.optim.Optimizer):
    """Mean-field inference in a loop of your own:

        optimizer = IVON(network.parameters(), num_data=len(data))
        for x, y in loader:
            with optimizer.sampled():
                loss = F.cross_entropy(network(x), y)
                loss.backward()
            optimizer.step()
        with torch.no_grad(), optimizer.draw():  # one function of the posterior
            network(x)

    Inside a block the parameters are a draw, outside they are the mean, whatever happens in between. A parameter without a
    gradient counts as one of gradient 0, and goes back to its prior; one that is frozen is neither drawn nor moved. Sparse
    gradients become dense. Parameters may be on several devices; they are float32 or float64, since half precision has no
    room for small steps: use autocast. Its gradient scaler is understood, `scaler.scale(loss).backward()` in the block and
    `scaler.step(optimizer)` after it, without `unscale_`: gradients and curvature are unscaled together, and a step that
    overflowed is left out. Where gradients are averaged over ranks, give `sampled` the same generator on all of them.

    K, the number of draws of a step, is that of the blocks before it. State of each parameter: step, gradient (g), hessian
    (h), and curvature (the sum of g_k·ε_k/σ so far). Save it after a step.

    Args:
        params: as for any optimiser, also in groups, as `parameter_groups(network)` makes them.
        num_data: N of the training set; N/T gives the posterior of temperature T.
        lr: the first step of a weight is this times its gradient, since h = h₀ then.
        prior_std: s.
        betas: β₁ of the gradient, and β₂ of the Hessian, whose memory is 1/(1 − β₂) steps. The paper has 0.99999 for long runs.
        initial_hessian: h₀, which sets σ at the start.

    Raises:
        InvalidInput: for settings out of their range, and parameters that are not float32 or float64.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = IVON([weight], num_data=1, lr=0.1, betas=(0.9, 0.98), initial_hessian=1.0)
    >>> generator = torch.Generator().manual_seed(0)
    >>> for _ in range(2000):  # one datum y = 2 with noise 1, prior std 1: the posterior is N(1, ½)
    ...     with optimizer.sampled(generator):
    ...         (0.5 * (weight - 2).square().sum()).backward()
    ...     _ = optimizer.step()
    >>> abs(weight.item() - 1) < 0.3, abs(optimizer.std(weight).item() - 0.5**0.5) < 0.1
    (True, True)
    """

    # torch's gradient scaler then hands over its scale, in place of unscaling the gradients alone.
    _step_supports_amp_scaling = True
    _blocks = 0  # since the last step
    _inside = False

    def __init__(
        self,
        params: Iterable[Any],
        num_data: int | float,
        lr: float = 0.1,
        prior_std: float = 1.0,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        initial_hessian: float = 0.1,
    ) -> None:
        settings = {"num_data": num_data, "lr": lr, "prior_std": prior_std, "initial_hessian": initial_hessian}
        super().__init__(params, {**settings, "betas": betas, "constant_rows": ()})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; see torch."""
        super().add_param_group(param_group)
        try:
            _refuse(self.param_groups[-1])
        except InvalidInput:
            self.param_groups.pop()
            raise

    @contextmanager
    def sampled(self, generator: Generator | None = None) -> Iterator[None]:
        """Compute with a draw of the weights inside the block, and take its gradients for the next step.

        Gradients in one block add up, as for micro-batches; those of several are averaged. One left by an error counts nothing.

        Args:
            generator: of the noise; torch's global ones where None. It must be on the parameters' device.

        Raises:
            InvalidInput: inside another block, and for a generator on another device than the parameters'.
        """
        parameters = self._trainable()
        kept = {p: p.grad if self._blocks else None for p, _ in parameters}
        left = [(p, p.grad) for p, _ in parameters]
        for p, _ in parameters:
            p.grad = None
        try:
            with self.draw(generator) as deviations:
                yield
        except BaseException:
            for p, grad in left:
                p.grad = grad
            raise
        self._collect(deviations, kept)
        self._blocks += 1

    @contextmanager
    def draw(self, generator: Generator | None = None) -> Iterator[dict[Tensor, Tensor]]:
        """Compute with a draw of the weights inside the block, for predictions; yields θ − μ of each parameter.

        Raises:
            InvalidInput: inside another block, and for a generator on another device than the parameters'.
        """
        if self._inside:
            raise InvalidInput("A draw inside a block of sampled() or draw(): leave the first one before.")
        parameters = self._trainable()
        self._refuse_generator(generator, parameters)
        means = [(p, p.detach().clone()) for p, _ in parameters]
        self._inside = True
        try:
            with torch.no_grad():
                deviations = {p: noise_like(p, generator).mul_(self._std(p, group)) for p, group in parameters}
                for p, deviation in deviations.items():
                    p.add_(deviation)
            torch.clear_autocast_cache()  # it knows a parameter by identity, and would go on with its old values
            yield deviations
        finally:
            with torch.no_grad():
                for p, mean in means:
                    p.copy_(mean)
            torch.clear_autocast_cache()
            self._inside = False

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], Any]) -> Any: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with the gradients of the blocks since the last one.

        Args:
            closure: computes the loss and its gradients; it is called inside a block, which the step makes itself.

        Returns:
            the loss of the closure, if there is one.

        Raises:
            InvalidInput: inside a block, without a block before it, and for gradients that a scaler has unscaled without the
                curvature.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad(), self.sampled():
                loss = closure()
        scale = self._scale()
        if scale is not None:
            for p, group in self._trainable():
                self._move(p, group, scale * self._blocks)
        self._restart()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients since the last step; inside a block, those of this block."""
        super().zero_grad(set_to_none)
        if not self._inside:
            self._restart()

    def std(self, parameter: Tensor) -> Tensor:
        """Return σ of a parameter, of its shape.

        Raises:
            InvalidInput: for a tensor that is none of the parameters.
        """
        for group in self.param_groups:
            if any(p is parameter for p in group["params"]):
                return self._std(parameter, group)
        raise InvalidInput(f"A tensor of shape {tuple(parameter.shape)} is none of the optimiser's parameters.")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._restart()

    def _trainable(self) -> list[tuple[Tensor, dict[str, Any]]]:
        return [(p, group) for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[p]
        if not state:
            values = p.detach()
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["gradient"], state["curvature"] = torch.zeros_like(values), torch.zeros_like(values)
            state["hessian"] = torch.full_like(values, group["initial_hessian"])
        return state

    def _std(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        precision: Tensor = (self._state(p, group)["hessian"] + _decay(group)) * group["num_data"]
        return _held(precision.rsqrt(), group)

    @torch.no_grad()
    def _collect(self, deviations: dict[Tensor, Tensor], kept: dict[Tensor, Tensor | None]) -> None:
        """Add a block's gradients to those of the blocks before it, and g·ε/σ = g·(θ − μ)/σ² to the curvature."""
        for p, group in self._trainable():
            if p.grad is None or p not in deviations:
                p.grad = kept.get(p)
                continue
            gradient = p.grad.to_dense() if p.grad.is_sparse else p.grad
            state = self._state(p, group)
            precision = (state["hessian"] + _decay(group)) * group["num_data"]
            state["curvature"].add_(gradient * deviations[p] * precision)
            before = kept[p]
            p.grad = gradient if before is None else before.add_(gradient)

    def _move(self, p: Tensor, group: dict[str, Any], divisor: float) -> None:
        state, decay, (beta1, beta2) = self._state(p, group), _decay(group), group["betas"]
        state["step"] += 1
        g, h = state["gradient"], state["hessian"]
        g.lerp_(torch.zeros_like(g) if p.grad is None else p.grad / divisor, 1 - beta1)
        change = (state["curvature"] / divisor - h).mul_(1 - beta2)
        h.add_(change + 0.5 * change.square() / (h + decay))
        direction = _held(g / (1 - beta1 ** int(state["step"])) + decay * p, group)
        p.addcmul_((group["initial_hessian"] + decay) / (h + decay), direction, value=-group["lr"])

    def _restart(self) -> None:
        self._blocks = 0
        for state in self.state.values():
            state["curvature"].zero_()

    def _scale(self) -> float | None:
        """Return what the gradients were multiplied by; None where they overflowed."""
        own = vars(self)  # a gradient scaler puts `grad_scale` and `found_inf` here for the length of a step
        problem = ""
        if self._inside:
            problem = "step() inside a block: leave the block first, so that the parameters are the mean."
        elif not self._blocks:
            problem = (
                "step() without a draw: run forward and backward passes inside `with optimizer.sampled():` before it."
            )
        elif "found_inf" in own and own["grad_scale"] is None:
            problem = (
                "scaler.unscale_(optimizer) unscaled the gradients but not their curvature; leave it out: "
                "scaler.step(optimizer) unscales both."
            )
        if problem:
            own.pop("found_inf", None), own.pop("grad_scale", None)  # the scaler does not when a step fails
            raise InvalidInput(problem)
        return None if float(own.get("found_inf", 0)) else float(own.get("grad_scale", 1))

    def _refuse_generator(self, generator: Generator | None, parameters: list[tuple[Tensor, dict[str, Any]]]) -> None:
        devices = sorted({str(p.device) for p, _ in parameters})
        if generator is not None and devices != [str(generator.device)]:
            raise InvalidInput(
                f"A generator on {generator.device} was given for parameters on {', '.join(devices)}; it must be on theirs. "
                "Leave it out for parameters on several devices."
            )


def _held(change: Tensor, group: dict[str, Any]) -> Tensor:
    rows = list(group.get("constant_rows", ()))  # a state of before does not know them
    return change.index_fill_(0, torch.tensor(rows, device=change.device), 0) if rows else change


def _decay(group: dict[str, Any]) -> float:
    """Return δ = 1/(N s²)."""
    return 1 / float(group["num_data"] * group["prior_std"] ** 2)


def _refuse(group: dict[str, Any]) -> None:
    for name in ("num_data", "lr", "prior_std", "initial_hessian"):
        low = group[name] >= 0 if name == "lr" else group[name] > 0
        if not (low and isfinite(group[name])):
            raise InvalidInput(f"IVON({name}={group[name]}): it must be positive and finite.")
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise InvalidInput(f"IVON(betas={group['betas']}): both must be at least 0 and below 1, e.g. (0.9, 0.999).")
    for p in group["params"]:
        if group["constant_rows"] and not 0 <= min(group["constant_rows"]) <= max(group["constant_rows"]) < len(p):
            raise InvalidInput(f"IVON(constant_rows={group['constant_rows']}): there are {len(p)} rows.")
        if p.dtype not in (torch.float32, torch.float64):
            raise InvalidInput(
                f"IVON was given a parameter of {p.dtype}, which has no room for its small steps; keep parameters in "
                "torch.float32, and compute under torch.autocast."
            )
