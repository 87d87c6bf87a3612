"""Likelihoods p(y | outputs): one target is one event, so a distribution's batch shape is (..., B).

`outputs` is what the network returns, (..., B, D), where leading dimensions count draws; a network that returns (B,) is
read as (B, 1). What a likelihood itself does not
know (a noise level) is a latent: a further coordinate of θ, inferred by whichever method runs. Log-densities are in nats.
"""

from collections.abc import Mapping
from math import log, pi
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch import distributions as dist
from torch.nn import functional

from posterity.core.gaussian import inverse_softplus, softplus
from posterity.errors import InvalidInput
from posterity.options import STRICT
from posterity.types import Latent, Likelihood, Params

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
IGNORED = -100  # the label of a site whose label is not known


@dataclass(frozen=True, config=STRICT)
class Categorical(Likelihood):
    """Classes: p(y | f) = softmax(f)_y, with outputs f (..., B, C) and integer targets (B,) in 0 … C − 1.

    Where each example has many labels, of tokens or of pixels, `axes` names those of the network's outputs: B the batch,
    C the classes, right after B or last, any other letters the sites. "BTC" is a tagger's (B, T, C), "BCHW" a segmentation
    network's (B, C, H, W); targets are the outputs without C. One target is a whole label map, and its sites are
    independent given the function: log p(y | f) = Σ_site log softmax(f_site)_{y_site}. A label of −100 (torch's
    `ignore_index`), such as padding, is not known and adds nothing.

    Raises:
        ValueError: for axes that do not start with B, or have no C or several.

    >>> Categorical()(torch.zeros(2, 10), {}).log_prob(torch.tensor([3, 7]))
    tensor([-2.3026, -2.3026])
    >>> Categorical("BTC")(torch.zeros(2, 3, 10), {}).log_prob(torch.tensor([[3, 7, 1], [0, -100, -100]]))
    tensor([-6.9078, -2.3026])
    """

    axes: str | None = None
    kind: Literal["categorical"] = "categorical"

    def __post_init__(self) -> None:
        if self.axes is not None and (not self.axes.startswith("B") or not _one_class_axis(self.axes)):
            raise InvalidInput(
                f"The axes '{self.axes}' were given to Categorical; they start with B, the batch, and have one C, the "
                "classes, next to it or last: such as BTC for tokens, BCHW for pixels."
            )

    @classmethod
    def of(cls, outputs: Tensor, targets: Tensor) -> "Categorical":
        """Name the axes of a network's outputs by the shape of its targets.

        Raises:
            InvalidInput: where the classes could as well be the second axis as the last.

        >>> Categorical.of(torch.zeros(2, 5, 8, 8), torch.zeros(2, 8, 8)).axes
        'BCHW'
        """
        sites = {2: "T", 3: "HW", 4: "DHW"}.get(targets.dim(), "")
        if not sites or outputs.dim() != targets.dim() + 1:
            return cls()
        last, first = outputs.shape[:-1] == targets.shape, outputs.shape[:1] + outputs.shape[2:] == targets.shape
        if last and first:
            raise InvalidInput(
                f"The network's outputs have shape {tuple(outputs.shape)}, whose classes could be the second axis or the "
                f"last: give likelihood=Categorical('BC{sites}') or Categorical('B{sites}C')."
            )
        return cls(f"B{sites}C" if last else f"BC{sites}" if first else None)

    @property
    def sites(self) -> int:
        """The number of axes between batch and classes: 0 for one label per example."""
        return len(self.axes or "BC") - 2

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        if not self.sites:
            return dist.Categorical(logits=outputs, validate_args=False)
        return dist.Independent(SiteCategorical(self._classes_last(outputs)), self.sites, validate_args=False)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.dim() != 2 + self.sites:
            raise InvalidInput(self._of_other_axes(outputs, targets))
        _check_count(outputs, targets)
        logits = self._classes_last(outputs)
        if targets.shape != logits.shape[:-1] or targets.is_floating_point():
            one_hot = " Use targets.argmax(-1) for one-hot rows, .long() for whole floats." if not self.sites else ""
            wanted = f"({', '.join((self.axes or 'BC').replace('C', ''))}{'' if self.sites else ','})"
            raise InvalidInput(
                f"Targets of shape {tuple(targets.shape)} and dtype {targets.dtype} were given; Categorical needs integer "
                f"class labels of shape {wanted}.{one_hot}"
            )
        known = targets[targets != IGNORED] if self.sites else targets
        if not known.numel():
            raise InvalidInput(f"All labels are {IGNORED}, not known: there is nothing to learn from.")
        low, high = int(known.min()), int(known.max())
        classes = logits.shape[-1]
        if low < 0 or high >= classes:
            bad = low if low < 0 else high
            raise InvalidInput(
                f"Label {bad} is out of range: the network has {classes} outputs, so labels go from 0 to "
                f"{classes - 1}. Give the network more outputs, or number the classes from 0."
            )

    def _classes_last(self, outputs: Tensor) -> Tensor:
        first = self.axes is not None and self.axes[1] == "C"
        return outputs.movedim(-1 - self.sites, -1) if first else outputs

    def _of_other_axes(self, outputs: Tensor, targets: Tensor) -> str:
        said = f"The network's outputs have shape {tuple(outputs.shape)}; "
        if self.sites:
            return f"{said}the axes {self.axes} are {2 + self.sites}."
        found = Categorical.of(outputs, targets).axes
        advice = f" For one label per token or pixel, give likelihood=Categorical('{found}')." if found else ""
        return f"{said}Categorical needs (B, classes): one row of logits per example.{advice}"


class SiteCategorical(dist.Categorical):
    """torch's, one for each site, which keeps the outputs (..., C) that it was made of; labels of −100 have log p = 0."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__(logits=outputs, validate_args=False)
        self.outputs = outputs

    def log_prob(self, value: Tensor) -> Tensor:
        each: Tensor = super().log_prob(value.clamp(min=0))  # type: ignore[no-untyped-call]
        return each.masked_fill(value == IGNORED, 0)


@dataclass(frozen=True, config=STRICT)
class Bernoulli(Likelihood):
    """Two classes: p(y = 1 | f) = sigmoid(f), with outputs f (..., B, 1) and targets (B,) of 0 and 1.

    >>> Bernoulli()(torch.zeros(2, 1), {}).log_prob(torch.tensor([0.0, 1.0]))
    tensor([-0.6931, -0.6931])
    """

    kind: Literal["bernoulli"] = "bernoulli"

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        return _Bernoulli(logits=outputs.squeeze(-1), validate_args=False)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        _check_count(outputs, targets)
        if outputs.dim() != 2 or outputs.shape[1] != 1:
            raise InvalidInput(
                f"The network's outputs have shape {tuple(outputs.shape)}; Bernoulli needs (B,) or (B, 1)."
            )
        if targets.dim() != 1 or not ((targets == 0) | (targets == 1)).all():
            raise InvalidInput(
                f"Bernoulli needs targets of shape (B,) that are 0 or 1; {tuple(targets.shape)} was given."
            )


class _Bernoulli(dist.Bernoulli):
    """torch's, for targets of integer dtype too."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.to(self.logits.dtype))  # type: ignore[no-untyped-call, no-any-return]


@dataclass(frozen=True, config=STRICT)
class Gaussian(Likelihood):
    """Real targets with one noise level: y ~ N(f, std²), with outputs f (..., B, D): targets (B,) where D = 1, else (B, D).

    `std=None` learns it: the coordinate `likelihood.std`, std = softplus of it, starts at `initial_std` and has the
    half-Cauchy(0, 1) prior on std (Gelman 2006), in unconstrained space with its Jacobian:
    log p(rho) = log 2 − log π − log(1 + std²) + log sigmoid(rho). Targets and std are in the same units: standardise
    targets, or the prior means little.

    >>> Gaussian(std=1.0)(torch.zeros(2, 1), {}).log_prob(torch.tensor([0.0, 1.0]))
    tensor([-0.9189, -1.4189])
    """

    std: Positive | None = None
    initial_std: Positive = 0.3
    kind: Literal["gaussian"] = "gaussian"

    def latents(self) -> Mapping[str, Latent]:
        if self.std is not None:
            return {}
        return {"std": Latent(inverse_softplus(torch.tensor(self.initial_std)), _half_cauchy_of_rho, softplus)}

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        if self.std is not None:
            return _normal(outputs, torch.as_tensor(self.std, dtype=outputs.dtype, device=outputs.device))
        std = softplus(latents["std"])
        return _normal(outputs, std.reshape(std.shape + (1,) * (outputs.dim() - std.dim())))

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        _check_real(outputs, targets)


@dataclass(frozen=True, config=STRICT)
class HeteroscedasticGaussian(Likelihood):
    """Real targets whose noise the network says itself: outputs (..., B, 2D) = means (D), then raw r (D) of

    std = min_std + softplus(r) (Nix & Weigend 1994). `min_std`, in units of the targets, keeps a density finite where a
    network fits an example exactly.

    >>> HeteroscedasticGaussian(min_std=0.0)(torch.zeros(3, 2), {}).stddev
    tensor([0.6931, 0.6931, 0.6931])
    """

    min_std: Annotated[float, Field(ge=0)] = 1e-3
    kind: Literal["heteroscedastic"] = "heteroscedastic"

    def __call__(self, outputs: Tensor, latents: Params) -> dist.Distribution:
        mean, raw = outputs.chunk(2, dim=-1)
        return _normal(mean, softplus(raw) + self.min_std)

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.dim() != 2 or outputs.shape[1] % 2:
            raise InvalidInput(
                f"The network's outputs have shape {tuple(outputs.shape)}; HeteroscedasticGaussian needs (B, 2 * targets): "
                "a mean and a raw std for each target."
            )
        _check_real(outputs.chunk(2, dim=-1)[0], targets)


def training_score(distribution: dist.Distribution, targets: Tensor) -> tuple[str, Tensor]:
    """Return the name of what people watch beside a loss, accuracy or RMSE, and its sum over the batch and number, (2,).

    The accuracy is that over labels that are known; the sum of the RMSE is one of squares.
    """
    if isinstance(distribution, dist.Independent) and isinstance(distribution.base_dist, SiteCategorical):
        right, count = distribution.base_dist.mode == targets, (targets != IGNORED).sum()
        return "accuracy", torch.stack([(right & (targets != IGNORED)).sum(), count]).double()
    if isinstance(distribution, dist.Categorical | dist.Bernoulli):
        right = distribution.mode == targets
        return "accuracy", torch.stack([right.sum(), torch.tensor(right.numel(), device=right.device)]).double()
    error = distribution.mean.detach() - targets
    return "rmse", torch.stack([error.square().sum(), error.new_full((), error.numel())]).double()


AnyLikelihood = Annotated[Categorical | Bernoulli | Gaussian | HeteroscedasticGaussian, Field(discriminator="kind")]


def _normal(mean: Tensor, std: Tensor) -> dist.Distribution:
    """Make N(mean, std²) over targets: (..., B, 1) is read as (..., B), so that it never meets (B,) as a (B, B) table."""
    std = std.expand_as(mean)
    if mean.shape[-1] == 1:
        return dist.Normal(mean.squeeze(-1), std.squeeze(-1), validate_args=False)
    return dist.Independent(dist.Normal(mean, std, validate_args=False), 1, validate_args=False)


def _half_cauchy_of_rho(rho: Tensor) -> Tensor:
    std = softplus(rho)
    return (log(2 / pi) - torch.log1p(std.square()) + functional.logsigmoid(rho)).sum()


def _check_count(outputs: Tensor, targets: Tensor) -> None:
    if len(outputs) != len(targets):
        raise InvalidInput(
            f"The network returned {len(outputs)} outputs for {len(targets)} targets; it needs one row each."
        )


def _one_class_axis(axes: str) -> bool:
    return axes.isalpha() and axes.count("C") == 1 and "C" in (axes[1], axes[-1])


def _check_real(means: Tensor, targets: Tensor) -> None:
    _check_count(means, targets)
    if means.dim() != 2:
        raise InvalidInput(
            f"The network's outputs have shape {tuple(means.shape)}; a Gaussian likelihood needs (B, targets): flatten both "
            "outputs and targets, as nn.Sequential(network, nn.Flatten()) does."
        )
    shape = means.shape[:1] if means.shape[1:] == (1,) else means.shape
    if not targets.is_floating_point() or targets.shape != shape:
        raise InvalidInput(
            f"Targets of shape {tuple(targets.shape)} and dtype {targets.dtype} were given; this network and likelihood "
            f"need floating-point targets of shape {tuple(shape)}."
        )
    if not targets.isfinite().all():
        row = int((~targets.isfinite().reshape(len(targets), -1).all(1)).nonzero()[0, 0])
        raise InvalidInput(f"Target {row} is NaN or infinite; remove or mend that row.")
