"""Likelihoods p(y | outputs): one target is one event, so a distribution's batch shape is (..., B).

`outputs` is what the network returns, (..., B, D), where leading dimensions count draws; a network that returns (B,) is
read as (B, 1). What a likelihood itself does not
know (a noise level) is a latent: a further coordinate of θ, inferred by whichever method runs. Log-densities are in nats.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import hypot
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch import distributions as dist

from posterity.core.gaussian import inverse_softplus, softplus
from posterity.errors import InvalidInput
from posterity.model.advice import VALUES, advice
from posterity.model.classes import IGNORED as IGNORED
from posterity.model.classes import Bernoulli as Bernoulli
from posterity.model.classes import Categorical as Categorical
from posterity.model.classes import SiteBernoulli as SiteBernoulli
from posterity.model.classes import SiteCategorical as SiteCategorical
from posterity.model.classes import refuse_count
from posterity.model.noise import UNSCALED, beside_outputs, half_cauchy_of_rho, starting_std
from posterity.options import STRICT, dataclass
from posterity.types import Batch, Latent, Likelihood, Params
from posterity.weighing import each_weight

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Several = Annotated[tuple[Positive, ...], Field(min_length=1)]  # a number for each target


@dataclass(frozen=True, config=STRICT)
class Gaussian(Likelihood):
    """Real targets with a noise level each: y_d ~ N(f_d, std_d²), outputs f (..., B, D), targets (B,) where D = 1, else (B, D).

    `std` is one number for all targets, or one for each; `std=None` learns it: the coordinate `likelihood.std`, std =
    softplus of it, has the half-Cauchy(0, 1) prior on std (Gelman 2006), in unconstrained space with its Jacobian:
    log p(rho) = log 2 − log π − log(1 + std²) + log sigmoid(rho). The 1 is in the targets' units: standardise targets, or
    the prior means little.

    Args:
        std: in units of the targets.
        initial_std: of a learnt one, one number for all targets or one for each. None: `fit` takes the std
            of the targets, see `starting_std`; 0.3 where nobody has seen the data.
        shared: whether all targets have the same learnt noise level. Otherwise `fit` gives each target its own,
            `likelihood.std` of shape (D,), and shape () for one target.

    >>> Gaussian(std=1.0)(torch.zeros(2, 1), {}).log_prob(torch.tensor([0.0, 1.0]))
    tensor([-0.9189, -1.4189])
    >>> Gaussian(std=(1.0, 10.0))(torch.zeros(1, 2), {}).stddev
    tensor([[ 1., 10.]])
    """

    std: Positive | Several | None = None
    initial_std: Positive | Several | None = None
    shared: bool = False
    kind: Literal["gaussian"] = "gaussian"

    def started(self, inputs: Tensor, targets: Tensor) -> "Gaussian":
        """Return the likelihood with `initial_std` for these data, a number for each target unless `shared`."""
        if self.std is not None or isinstance(self.initial_std, tuple):
            return self
        width = targets[:1].numel()
        stds = starting_std(targets).tolist() if self.initial_std is None else [self.initial_std] * width
        one = self.shared or width == 1
        return replace(self, initial_std=hypot(*stds) / width**0.5 if one else tuple(stds))

    def latents(self) -> Mapping[str, Latent]:
        if self.std is not None:
            return {}
        start = torch.tensor(UNSCALED if self.initial_std is None else self.initial_std)
        return {"std": Latent(inverse_softplus(start), half_cauchy_of_rho, softplus)}

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        return _normal(outputs, self.noise(outputs, latents))

    def noise(self, outputs: Tensor, latents: Params) -> Tensor:
        """Return the std, in a shape that goes with that of the outputs, (..., B, D)."""
        if self.std is not None:
            return torch.as_tensor(self.std, dtype=outputs.dtype, device=outputs.device)
        return beside_outputs(softplus(latents["std"]), outputs, each=isinstance(self.initial_std, tuple))

    def error_size(self, latents: Params) -> Tensor | None:
        return softplus(latents["std"]).min() if self.std is None else None

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Tensor:
        """1/std²."""
        return self.noise(outputs, latents).to(outputs).square().reciprocal().expand_as(outputs)

    def latent_curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Params:
        """2 B (std′/std)² of each target's noise level; where D targets share one it is 2 D B (std′/std)²."""
        rho = latents["std"]
        relative = rho.sigmoid() / softplus(rho)
        return {"std": 2 * targets.numel() / rho.numel() * relative.square()}

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        _check_real(outputs, targets)
        levels = next((len(v) for v in (self.std, self.initial_std) if isinstance(v, tuple)), None)
        if levels not in (None, outputs.shape[1]):
            raise InvalidInput(f"{levels} noise levels were given for {outputs.shape[1]} targets; give one for each.")


@dataclass(frozen=True, config=STRICT)
class HeteroscedasticGaussian(Likelihood):
    """Real targets whose noise the network says itself: outputs (..., B, 2D) = means (D), then raw r (D) of

    std = min_std + softplus(r) (Nix & Weigend 1994). `min_std`, in units of the targets, keeps a density finite where a
    network fits an example exactly.

    >>> HeteroscedasticGaussian(min_std=0.0)(torch.zeros(3, 2), {}).stddev
    tensor([0.6931, 0.6931, 0.6931])
    """

    min_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-3
    kind: Literal["heteroscedastic"] = "heteroscedastic"

    def width(self, targets: int) -> int:
        return 2 * targets

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        mean, raw = outputs.chunk(2, dim=-1)
        return _normal(mean, softplus(raw) + self.min_std)

    def curvature(self, outputs: Tensor, targets: Tensor, latents: Params) -> Tensor:
        """1/std² of the mean, 2 (sigmoid(raw)/std)² of raw."""
        raw = outputs.chunk(2, dim=-1)[1]
        std = softplus(raw) + self.min_std
        return torch.cat([std.square().reciprocal(), 2 * (raw.sigmoid() / std).square()], -1)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.dim() != 2 or outputs.shape[1] % 2:
            raise InvalidInput(
                f"The network's outputs have shape {tuple(outputs.shape)}; HeteroscedasticGaussian needs (B, 2 * targets): "
                "a mean and a raw std for each target."
            )
        _check_real(outputs.chunk(2, dim=-1)[0], targets, each=2)


def training_score(distribution: dist.Distribution, batch: Batch) -> tuple[str, Tensor]:
    """Return the name of what people watch beside a loss, accuracy or RMSE, and its sum over the batch and number, (2,).

    The accuracy is that over labels that are known; the sum of the RMSE is one of squares; each counts as its datum does. The
    number is 0 where no label is known, and where the distribution has no mean.
    """
    targets, counts = batch[1], each_weight(batch)
    base = distribution.base_dist if isinstance(distribution, dist.Independent) else distribution
    if isinstance(base, dist.Categorical | dist.Bernoulli):
        soft = isinstance(base, SiteCategorical) and base.soft(targets)
        labels, counts = (targets.argmax(-1), counts[..., 0]) if soft else (targets, counts)
        known = counts * (labels.to(torch.int64) != IGNORED)
        return "accuracy", torch.stack([((base.mode == labels) * known).sum(), known.sum()])
    try:
        squares = (distribution.mean.detach() - targets).square()
    except NotImplementedError:
        return "rmse", torch.zeros(2, dtype=torch.float64)
    counts = (counts * squares.isfinite()).expand_as(squares).double()  # a Cauchy's mean is none
    return "rmse", torch.stack([(squares.double().nan_to_num(0.0, 0.0, 0.0) * counts).sum(), counts.sum()])


def _normal(mean: Tensor, std: Tensor) -> dist.Distribution:
    """Make N(mean, std²) over targets: (..., B, 1) is read as (..., B), so that it never meets (B,) as a (B, B) table."""
    std = std.expand_as(mean)
    if mean.shape[-1] == 1:
        return dist.Normal(mean.squeeze(-1), std.squeeze(-1), validate_args=False)
    return dist.Independent(dist.Normal(mean, std, validate_args=False), 1, validate_args=False)


def _check_real(means: Tensor, targets: Tensor, each: int = 1) -> None:
    refuse_count(means, targets)
    if means.dim() != 2:
        raise InvalidInput(
            f"The network's outputs have shape {tuple(means.shape)}; a Gaussian likelihood needs (B, targets): flatten both "
            "outputs and targets, as fit(nn.Sequential(network, nn.Flatten()), (inputs, targets.flatten(1)), …) does."
        )
    shape = means.shape[:1] if means.shape[1:] == (1,) else means.shape
    if not targets.is_floating_point() or targets.shape != shape:
        raise InvalidInput(
            f"Targets of shape {tuple(targets.shape)} and dtype {targets.dtype} were given; this network and likelihood "
            f"need floating-point targets of shape {tuple(shape)}. {advice(VALUES, targets, means.shape, each=each)}"
        )
    if not targets.isfinite().all():
        row = int((~targets.isfinite().reshape(len(targets), -1).all(1)).nonzero()[0, 0])
        known = "targets.isfinite()" if targets.dim() == 1 else "targets.isfinite().all(1)"
        raise InvalidInput(
            f"Target {row} is NaN or infinite; remove or mend that row: keep = {known}, then inputs[keep], targets[keep]."
        )
