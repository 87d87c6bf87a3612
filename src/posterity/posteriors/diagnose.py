"""How to diagnose each family of posteriors: chains by their agreement, Gaussians by importance ratios and gradients."""

from dataclasses import replace
from functools import singledispatch
from typing import Any

import torch
from torch import Generator, Tensor

from posterity.core import diagnostics, pareto
from posterity.posteriors.base import FunctionPosterior
from posterity.posteriors.chains import Chains
from posterity.posteriors.contraction import contraction
from posterity.posteriors.density import has_density
from posterity.posteriors.diagnosis import (
    ChainDiagnosis,
    Convergence,
    Diagnosis,
    GaussianDiagnosis,
    MixtureDiagnosis,
    Trace,
)
from posterity.posteriors.gaussian import DiagonalGaussian
from posterity.posteriors.gradients import GradientSignal, gradient_signal
from posterity.posteriors.importance import log_ratios
from posterity.posteriors.linearised import Linearised
from posterity.posteriors.mixture import Mixture
from posterity.posteriors.point import Point
from posterity.posteriors.samples import Samples
from posterity.train.batches import as_data

SHOWN = 500  # draws of a trace


@singledispatch
def diagnose(posterior: FunctionPosterior, inputs: Tensor | None, data: Any, draws: int) -> Diagnosis:
    """Diagnose any posterior; see `FunctionPosterior.diagnose`."""
    found = contraction(posterior.problem, posterior.sample)
    if not has_density(posterior):
        return Diagnosis(family=posterior.kind, contraction=found)
    if data is None:
        return GaussianDiagnosis(family=posterior.kind, contraction=found)
    source = as_data(data).known_to(posterior.problem.likelihood).seen_by(posterior.problem.likelihood)
    generator = Generator(device=posterior.device).manual_seed(0)
    ratios = log_ratios(posterior, source, draws, generator)
    return GaussianDiagnosis(
        family=posterior.kind,
        contraction=found,
        khat=pareto.smooth(ratios).khat,
        log_ratios=tuple((ratios - ratios.max()).sort().values.tolist()),
        gradients=_gradients(posterior, source, generator),
    )


def _gradients(posterior: FunctionPosterior, source: Any, generator: Generator) -> tuple[GradientSignal, ...]:
    """Ask the gradients where independent normals are the end of a descent, at its own temperature."""
    if posterior.descent is None or not isinstance(posterior, DiagonalGaussian):
        return ()
    alone = posterior.problem.snapshot()  # its own network is that of predictions
    weighed = replace(posterior, problem=replace(alone, mean_batch_size=source.mean_batch_size))
    return gradient_signal(weighed, source, temperature=posterior.descent.temperature, generator=generator)


@diagnose.register
def _(posterior: Point, inputs: Tensor | None, data: Any, draws: int) -> Diagnosis:
    return Diagnosis(family=posterior.kind)  # its variances are 0 by construction


@diagnose.register
def _(posterior: Linearised, inputs: Tensor | None, data: Any, draws: int) -> Diagnosis:
    """Diagnose its Gaussian over θ, as one of the network itself; no gradient descent ended there."""
    found = diagnose(posterior.weights, inputs, data, draws)
    return replace(found, gradients=()) if isinstance(found, GaussianDiagnosis) else found


@diagnose.register
def _(posterior: Samples, inputs: Tensor | None, data: Any, draws: int) -> Diagnosis:
    return _chains(posterior, (posterior,), inputs)


@diagnose.register
def _(posterior: Chains, inputs: Tensor | None, data: Any, draws: int) -> Diagnosis:
    return _chains(posterior, (posterior,), inputs)


@diagnose.register
def _(posterior: Mixture, inputs: Tensor | None, data: Any, draws: int) -> Diagnosis:
    parts = posterior.components
    samples = tuple(p for p in parts if type(p) is Samples)
    if posterior.alike and len(samples) == len(parts) and len({len(p.thetas) for p in samples}) == 1:
        return _chains(posterior, samples, inputs)  # each component is a chain of its own
    return MixtureDiagnosis(family=posterior.kind, parts=tuple(p.diagnose(inputs, data, draws) for p in parts))


def _chains(posterior: FunctionPosterior, parts: tuple[Samples, ...], inputs: Tensor | None) -> ChainDiagnosis:
    """Diagnose chains that are components, or the several chains of one posterior."""
    first, where = parts[0], posterior.problem.coordinates
    hamiltonian = first if isinstance(first, Chains) else None
    thetas = hamiltonian.by_chain if hamiltonian else torch.stack([p.thetas for p in parts])
    values = {"weights": thetas[..., : where.network], "latents": thetas[..., where.network :]}
    if inputs is not None:
        outputs = torch.stack([part.evaluated(inputs) for part in parts])
        values["functions"] = outputs.reshape(*thetas.shape[:2], *outputs.shape[2:])
    found = {name: own for name, own in values.items() if own[0, 0].numel()}
    return ChainDiagnosis(
        family=posterior.kind,
        contraction=contraction(posterior.problem, posterior.sample),
        chains=len(thetas),
        draws=thetas.shape[1],
        **{name: Convergence.of(own) for name, own in found.items()},  # type: ignore[arg-type]
        divergences=int(hamiltonian.divergent.sum()) if hamiltonian else None,
        e_bfmi=float(diagnostics.e_bfmi(hamiltonian.energies).min()) if hamiltonian else None,
        traces=tuple(_worst(posterior, name, own) for name, own in found.items()),
    )


def _worst(posterior: FunctionPosterior, name: str, values: Tensor) -> Trace:
    """Pick the quantity with the largest R-hat, and every so many of its draws."""
    rhat = diagnostics.rhat(values).flatten().nan_to_num(0)
    index = int(rhat.argmax())
    path = values.flatten(2)[..., index]
    rows = path[:, :: -(-path.shape[1] // SHOWN)].double().tolist()
    shown = tuple(tuple(float(f"{v:.5g}") for v in row) for row in rows)
    return Trace(_called(posterior, name, index, values), float(rhat[index]), shown)


def _called(posterior: FunctionPosterior, name: str, index: int, values: Tensor) -> str:
    """Name one coordinate: `fc.weight[3, 2]`, `likelihood.std`, `output 1 at input 7`."""
    if name == "functions":
        width = values[0, 0, 0].numel()
        which = f"output {index % width} at" if width > 1 else "function at"
        return f"{which} input {index // width}"
    layout, where = posterior.problem.layout, posterior.problem.coordinates
    at = index + (where.network if name == "latents" else 0)
    row = max(i for i, offset in enumerate(layout.offsets) if offset <= at)
    shape, name = layout.part_shapes[row], layout.names[row]
    place = torch.unravel_index(torch.tensor(at - layout.offsets[row]), shape) if shape else ()
    if name in layout.constants:
        place = (layout.constants[name].others[place[0]], *place[1:])
    return layout.names[row] + (f"[{', '.join(str(int(p)) for p in place)}]" if place else "")
