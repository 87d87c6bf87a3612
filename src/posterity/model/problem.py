"""A problem: network + prior + likelihood + number of data. It says what is to be inferred and knows no algorithm."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from posterity.core.layout import Layout, substituted
from posterity.core.threads import Spares
from posterity.errors import Diverged, InvalidInput, PosterityError, is_out_of_memory
from posterity.model.adopted import as_likelihood, as_own_prior
from posterity.model.coordinates import Coordinates
from posterity.model.modes import in_place, moving, still, train
from posterity.model.selection import Where
from posterity.model.support import check_support, refuse_parts
from posterity.options import convert, shown
from posterity.types import LIKELIHOOD, Batch, Likelihood, Params, Prior
from posterity.weighing import known, log_probs, size

SMALLEST = 1e-30  # of a sum of weights that is divided by


@dataclass(frozen=True)
class Problem:
    """What is to be inferred, p(θ | D) ∝ p(θ) Π_n p(y_n | f(θ, x_n)).

    θ is one vector: the network's trainable parameters, then the latents of prior and likelihood; see `Coordinates`.
    The network is used as it is; whoever trains it makes a copy first (`posterity.fit` does).

    Args:
        network: any module that maps inputs (B, ...) to outputs (B, ...) or (B,).
        prior: over the network's parameters.
        likelihood: of the targets given the outputs.
        num_data: N, the size of the training set that a batch stands for: of weighted data the sum of their weights.
        where: which parameters are random; see `select`. The others are points, by MAP.
        mean_batch_size: B̄, the mean number of data in a batch, so that each datum weighs the same in batches of any size;
            None takes each batch for one of mean size.
        still: names of the modules that stay in eval mode while the others are trained; None: those that stand so in the
            network, and frozen normalisation, see `posterity.model.modes`.
        movers: names of modules of other classes than torch's normalisation that hold running statistics, see
            `posterity.model.running.moved`.
        padding: whether rows of padding are constants, see `padding_rows`; False for posteriors of versions that drew them.
    """

    network: nn.Module
    prior: Prior
    likelihood: Likelihood
    num_data: int | float
    where: Where = None
    mean_batch_size: float | None = None
    still: frozenset[str] | None = None
    movers: frozenset[str] = frozenset()
    padding: bool = True
    coordinates: Coordinates = field(init=False, repr=False)
    spares: Spares | None = field(init=False, repr=False, compare=False, default_factory=Spares)  # see `lending`

    def __post_init__(self) -> None:
        for name, adopt in (("prior", as_own_prior), ("likelihood", as_likelihood)):
            object.__setattr__(self, name, adopt(getattr(self, name)))
        prior = hasattr(self.prior, "log_prob") and hasattr(self.prior, "latents")
        likelihood = callable(self.likelihood) and hasattr(self.likelihood, "latents")
        fits = {"network": isinstance(self.network, nn.Module), "prior": prior, "likelihood": likelihood}
        for name, found in fits.items():
            if not found or isinstance(getattr(self, name), type):
                raise InvalidInput(f"Problem({name}={shown(getattr(self, name))}): must be a {name}, made.")
        convert(self, num_data=int | float)
        if not 0 < self.num_data < inf:
            raise InvalidInput(f"num_data is {self.num_data}; a posterior needs at least one training example.")
        if self.num_data == int(self.num_data):
            object.__setattr__(self, "num_data", int(self.num_data))
        if self.still is None:
            object.__setattr__(self, "still", still(self.network))
        latents = {LIKELIHOOD + n: latent for n, latent in self.likelihood.latents().items()}
        coordinates = Coordinates.of(self.network, self.prior, latents, self.where, padding=self.padding)
        object.__setattr__(self, "coordinates", coordinates)

    @property
    def params(self) -> dict[str, nn.Parameter]:
        """The parameters by name, in θ's order, latents included."""
        return self.coordinates.params

    @property
    def layout(self) -> Layout:
        return self.coordinates.layout

    def theta(self) -> Tensor:
        """Copy the parameters' present values into a new flat vector (P,)."""
        return self.coordinates.theta()

    def latents(self, params: Params) -> dict[str, Tensor]:
        """Return the likelihood's own coordinates, by the likelihood's names."""
        return self.coordinates.of_likelihood(params)

    def log_prior(self, theta: Tensor) -> Tensor:
        """Return log p(θ), shape (), in nats: the network's prior and that of each latent."""
        return self.coordinates.log_prior(theta)

    def bound(self, theta: Tensor) -> AbstractContextManager[None]:
        """Make the network (and the latents) compute with θ inside a `with` block."""
        return self.coordinates.bound(theta)

    def train(self) -> None:
        """Put the network in train mode, but for what keeps still."""
        train(self.network, self.still or frozenset())

    def normalisations(self) -> list[nn.Module]:
        """Return the layers whose running statistics are those of one θ; none of a network that does not have such."""
        return moving(self.network, self.still or frozenset(), self.movers)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Run the network with the parameters that it is bound to: (B, *out), never (B,)."""
        with in_place([self.network.get_submodule(name) for name in self.movers]):
            outputs = read(self.network(inputs))
        outputs = outputs.to(next(iter(self.params.values())).dtype)  # autocast may have lowered it
        return outputs.unsqueeze(-1) if outputs.dim() == 1 else outputs

    def predict(self, inputs: Tensor) -> Distribution:
        """Return p(y | x, θ) with the parameters that the network is bound to; batch shape (B,)."""
        return self.likelihood(self.outputs(inputs), self.latents(self.params))

    def nll(self, batch: Batch) -> tuple[Tensor, Distribution]:
        """Return what a batch adds to the mean nll of an epoch's data, and the distribution that it came from.

        1/B̄ Σ_b −w_b log p(y_b | x_b, θ), (), in nats per datum: over the batches of an epoch its mean is the mean over all
        data, however they are cut. Divide by `weight` for the mean over the batch.
        """
        with _said(self.likelihood):
            distribution = self.predict(batch[0])
            values = log_probs(distribution, batch)
        if len(batch) == 2:
            return -values.mean() * self.weight(batch), distribution
        mean = size(batch) if self.mean_batch_size is None else self.mean_batch_size
        return -values.sum() / mean, distribution

    def weight(self, batch: Batch) -> float | Tensor:
        """Return B / B̄: a batch of B data counts for B data, and one of weighted data for the sum of their weights."""
        mean, own = self.mean_batch_size, size(batch)
        if isinstance(own, Tensor):
            return _positive(own) / mean if mean else torch.ones_like(own)
        return 1.0 if mean is None else own / mean

    def log_joint(self, theta: Tensor, batch: Batch) -> Tensor:
        """Return N/B Σ_b log p(y_b | x_b, θ) + log p(θ), shape (), in nats for the whole data set; differentiable in θ."""
        params = self.layout.views(self.coordinates.weights(theta))
        with substituted(self.network, self.coordinates.of_network(params)):
            outputs = read(self.network(batch[0]))
        outputs = outputs.unsqueeze(-1) if outputs.dim() == 1 else outputs
        with _said(self.likelihood):
            log_likelihood = log_probs(self.likelihood(outputs, self.latents(params)), batch).sum()
        share = self.num_data / _positive(size(batch))
        return log_likelihood * torch.as_tensor(share, dtype=log_likelihood.dtype) + self.log_prior(theta)

    def check(self, batch: Batch) -> None:
        """Try a batch before anything is changed.

        Raises:
            InvalidInput: where inputs are not finite, the network cannot take them, or the targets do not fit.
        """
        inputs, targets = batch[:2]
        check_inputs(inputs)
        training = {m: m.training for m in self.network.modules()}
        try:
            self.network.eval()
            with torch.no_grad():
                outputs = call(self, inputs[:2])
            if not outputs.isfinite().all():
                raise InvalidInput(
                    "The network returns NaN or infinite outputs for finite inputs, before any training."
                )
            self.likelihood.check(outputs[:1].expand(len(targets), *outputs.shape[1:]), targets)
            if type(self.likelihood).check is Likelihood.check or known(batch) is not None:
                self._try(outputs[:1], batch)
        finally:
            for module, mode in training.items():
                module.training = mode

    @torch.no_grad()
    def _try(self, outputs: Tensor, batch: Batch) -> None:
        """Try what the likelihood does not check itself; where it cannot even be made, a rehearsal says so."""
        try:
            distribution = self.likelihood(outputs, self.latents(self.params))
        except Exception:  # what is not ours may raise anything
            return
        refuse_parts(type(self.likelihood).__name__, distribution, batch[1], known(batch))
        if type(self.likelihood).check is Likelihood.check:
            check_support(distribution, batch[1])

    def snapshot(self, buffers: Mapping[str, Tensor] | None = None) -> "Problem":
        """Copy the problem with a network of its own in eval mode, with these buffers (running statistics) if given."""
        network = deepcopy(self.network).eval()
        own = dict(network.named_buffers())
        for name, value in (buffers or {}).items():
            own[name].copy_(value)
        random = frozenset(self.coordinates.random_names)
        return replace(self, network=network, where=random)


@contextmanager
def _said(likelihood: Likelihood) -> Iterator[None]:
    """Say in one line at which parameters a distribution of torch refuses to be made, or to give a target a density."""
    try:
        yield
    except PosterityError:
        raise
    except ValueError as error:
        reason = str(error).split("tensor(")[0].split("\n")[0].rstrip(":. ")
        raise Diverged(
            f"{type(likelihood).__name__} cannot be computed at the present parameters: {reason}. If they became NaN, lower "
            "the learning rate or scale the data; if a target left what the distribution can give, bound its parameters."
        ) from error


def _positive(size: int | Tensor) -> int | Tensor:
    return size.clamp(min=SMALLEST) if isinstance(size, Tensor) else size  # a batch may count for nothing


def read(outputs: Any) -> Tensor:
    """Return the tensor of what a network returned: itself, or its `logits`, as those of transformers have them.

    Raises:
        InvalidInput: for anything else, with the part that a module around the network picks.
    """
    tensor = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None)
    if not isinstance(tensor, Tensor):
        raise InvalidInput(
            f"The network returned a {type(outputs).__name__}; it must return one tensor, or what holds it as .logits. Wrap it "
            f"in a module that picks the tensor of outputs: {_picking(outputs)}."
        )
    if tensor.requires_grad and not torch.is_grad_enabled():  # of a network that differentiates in its inputs
        return tensor.detach()
    return tensor


def check_inputs(inputs: Tensor) -> None:
    """Refuse what is no tensor, and inputs with NaN or infinite values, naming the first row that has one."""
    if not isinstance(inputs, Tensor):
        raise InvalidInput(f"Inputs are a torch tensor, got {type(inputs).__name__}: torch.as_tensor(inputs).")
    if not inputs.dim() or inputs.layout != torch.strided or inputs.is_meta:
        raise InvalidInput(
            "Inputs are one dense tensor (B, …), with values; of a single one, inputs[None]; of sparse ones, inputs.to_dense()."
        )
    if not inputs.is_floating_point() or not inputs.numel():
        return
    if not all(
        isfinite(float(end)) for end in inputs.aminmax()
    ):  # NaN is both; and nothing of the inputs' size is made
        row = int((~inputs.isfinite().reshape(len(inputs), -1).all(1)).nonzero()[0, 0])
        raise InvalidInput(f"Input {row} holds NaN or infinite values; remove or mend that example.")


def call(problem: Problem, inputs: Tensor) -> Tensor:
    """Run the network, and say in one line what it did not like about the inputs' shape or type."""
    try:
        return problem.outputs(inputs)
    except PosterityError:
        raise
    except Exception as error:  # a network of anyone's may raise anything
        if is_out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        advice = _advice(inputs, next(iter(problem.params.values())).dtype, problem.network)
        raise InvalidInput(
            f"{type(problem.network).__name__} cannot take inputs of shape {tuple(inputs.shape)} and dtype {inputs.dtype}: "
            f"{reason}{advice}"
        ) from error


def _advice(inputs: Tensor, dtype: torch.dtype, network: nn.Module) -> str:
    """Say what may be the matter with inputs that a network cannot take."""
    tables = [m for m in network.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    if tables and inputs.is_floating_point() and bool((inputs == inputs.round()).all()):
        return ". Indices of an embedding are whole numbers: give inputs.long()"
    if tables and not inputs.is_floating_point() and int(inputs.max()) >= min(m.num_embeddings for m in tables):
        rows = ", ".join(str(m.num_embeddings) for m in tables[:4])
        return f". Its embeddings have {rows} rows, numbered from 0; inputs go up to {int(inputs.max())}"
    if inputs.dtype != dtype and not (tables and inputs.dtype == torch.int64):
        scaled = ", and / 255 for pixels" if inputs.dtype == torch.uint8 else ""
        return f". Its weights are {dtype}: give torch.as_tensor(inputs).to({dtype}){scaled}"
    first = next((m for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    if first is None or inputs.dim() < 3:
        return ""
    if inputs.shape[-1] == first.in_channels != inputs.shape[1]:
        return ". The channels stand last: give inputs.movedim(-1, 1)"
    if inputs.dim() == len(first.kernel_size) + 1 and first.in_channels == 1:
        return ". The axis of channels is missing: give inputs.unsqueeze(1)"
    return ""


def _picking(outputs: Any) -> str:
    """Say how a module picks the tensor out of what a network returns."""
    part = ".last_hidden_state" if hasattr(outputs, "last_hidden_state") else None
    if part is None and isinstance(outputs, Mapping):
        part = f"[{next(iter(outputs), 0)!r}]"
    return f"its forward(self, x) returns self.network(x){part or '[0]'}"
