"""What is given in place of a number, a name, a tensor or an object is refused in one line, whatever it is.

Tests check types at every call, which users do not: so this file is run as a program, too, in a process without that.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from posterity import (
    Engine,
    Gaussian,
    HeteroscedasticGaussian,
    Informative,
    InvalidInput,
    LoaderData,
    Mixture,
    Normal,
    Problem,
    Relative,
    TensorData,
    abstain,
    average,
    bayesianize,
    calibrate,
    compare_posteriors,
    deterministic,
    draw_functions,
    explain,
    fit,
    kl,
    load,
    out_of_distribution,
    posterior,
    prior_predictive,
    prune,
    smaller,
    under_shift,
    with_statistics,
)
from posterity.core.layout import Layout
from posterity.options import convert
from posterity.posteriors.average import Averaging
from posterity.posteriors.gaussian import DiagonalGaussian
from tests.processes import Forked

WRONG = ("x", "a\nb\x1b[31m", b"x", [], [1], {}, (1, 2), object(), int, torch.ones(2), float("nan"), float("inf"), 1j)
X, Y = torch.ones(4, 1), torch.ones(4)
PROBLEM = Problem(nn.Linear(1, 1), Normal(0, 1), Gaussian(std=0.1), 4)
POSTERIOR = DiagonalGaussian(PROBLEM, torch.zeros(2), torch.ones(2))
PREDICTIVE = POSTERIOR.predict(X, 2)
LAYOUT = Layout.of({"w": torch.zeros(2)})

DOORS: dict[str, Callable[[Any], object]] = {
    "Engine.seed": lambda v: Engine(seed=v),
    "Engine.device": lambda v: Engine(device=v),
    "Engine.precision": lambda v: Engine(precision=v),
    "Engine.resume": lambda v: Engine(resume=v),
    "Engine.validation_draws": lambda v: Engine(validation_draws=v),
    "TensorData.batch_size": lambda v: TensorData(X, Y, v),
    "TensorData.held_out": lambda v: TensorData(X, Y, held_out=v),
    "LoaderData.num_data": lambda v: LoaderData([(X, Y)], num_data=v),
    "LoaderData.epoch_steps": lambda v: LoaderData([(X, Y)], num_data=4, epoch_steps=v),
    "Relative": Relative,
    "HeteroscedasticGaussian": lambda v: HeteroscedasticGaussian(min_std=v),
    "Problem.network": lambda v: Problem(v, Normal(0, 1), Gaussian(), 4),
    "Problem.prior": lambda v: Problem(nn.Linear(1, 1), v, Gaussian(), 4),
    "Problem.likelihood": lambda v: Problem(nn.Linear(1, 1), Normal(0, 1), v, 4),
    "Problem.num_data": lambda v: Problem(nn.Linear(1, 1), Normal(0, 1), Gaussian(), v),
    "Mixture": lambda v: Mixture(PROBLEM, v),
    "Informative.mean": lambda v: Informative([v], torch.ones(2), LAYOUT),
    "Informative.layout": lambda v: Informative(torch.ones(2), torch.ones(2), v),
    "draw.n": lambda v: POSTERIOR.draw(X, v),
    "predict.n": lambda v: POSTERIOR.predict(X, v),
    "predict.generator": lambda v: POSTERIOR.predict(X, 2, generator=v),
    "predict.max_bytes": lambda v: POSTERIOR.predict(X, 2, max_bytes=v),
    "average.n": lambda v: average(POSTERIOR, X, v),
    "draw_functions.n": lambda v: draw_functions(POSTERIOR, v),
    "fit.prior": lambda v: fit(nn.Linear(1, 1), (X, Y), likelihood=Gaussian(std=0.1), prior=v),
    "fit.where": lambda v: fit(nn.Linear(1, 1), (X, Y), likelihood=Gaussian(std=0.1), where=v),
    "bayesianize.prior": lambda v: bayesianize(nn.Linear(1, 1), prior=v),
    "bayesianize.network": bayesianize,
    "bayesianize.estimator": lambda v: bayesianize(nn.Linear(1, 1), estimator=v),
    "bayesianize.init": lambda v: bayesianize(nn.Linear(1, 1), init=v),
    "kl": kl,
    "deterministic": deterministic,
    "posterior.module": posterior,
    "posterior.likelihood": lambda v: posterior(bayesianize(nn.Linear(1, 1)), v),
    "average.posterior": lambda v: average(v, X),
    "average.tolerance": lambda v: average(POSTERIOR, X, tolerance=v),
    "draw_functions.posterior": lambda v: draw_functions(v, 2),
    "with_statistics": lambda v: with_statistics(v, (X, Y)),
    "compare_posteriors": lambda v: compare_posteriors(POSTERIOR, v, X),
    "prior_predictive": lambda v: prior_predictive(v, X),
    "smaller": lambda v: smaller(v, X),
    "explain": lambda v: explain(v, X),
    "prune.posterior": lambda v: prune(v, 0.5),
    "prune.sparsity": lambda v: prune(POSTERIOR, v),
    "prune.by": lambda v: prune(POSTERIOR, 0.5, v),
    "calibrate.predictive": lambda v: calibrate(v, Y, 0.5),
    "calibrate.targets": lambda v: calibrate(PREDICTIVE, v, 0.5),
    "calibrate.level": lambda v: calibrate(PREDICTIVE, Y, v),
    "calibrate.score": lambda v: calibrate(PREDICTIVE, Y, 0.5, v),
    "abstain.predictive": lambda v: abstain(v, Y, losses=Y),
    "abstain.risk": lambda v: abstain(PREDICTIVE, Y, v, losses=Y),
    "abstain.confidence": lambda v: abstain(PREDICTIVE, Y, 0.5, v, losses=Y),
    "abstain.measure": lambda v: abstain(PREDICTIVE, Y, 0.5, 0.5, v, losses=Y),
    "abstain.losses": lambda v: abstain(PREDICTIVE, Y, 0.5, 0.5, losses=v),
    "ood.posterior": lambda v: out_of_distribution(v, X, {"a": X}),
    "ood.inside": lambda v: out_of_distribution(POSTERIOR, v, {"a": X}),
    "ood.outside": lambda v: out_of_distribution(POSTERIOR, X, v),
    "ood.training": lambda v: out_of_distribution(POSTERIOR, X, {"a": X}, v),
    "ood.twin": lambda v: out_of_distribution(POSTERIOR, X, {"a": X}, twin=v),
    "under_shift.posterior": lambda v: under_shift(v, X, Y, {"a": torch.mul}),
    "under_shift.corruptions": lambda v: under_shift(POSTERIOR, X, Y, v),
    "under_shift.averaging": lambda v: under_shift(POSTERIOR, X, Y, {"a": torch.mul}, v),
    "Averaging.draws": lambda v: Averaging(v),
    "diagnose.draws": lambda v: POSTERIOR.diagnose(data=(X, Y), draws=v),
    "load.path": lambda v: load(v, nn.Linear(1, 1)),
    "load.network": lambda v: load(__file__, v),
}


FILES = ("", b"x", None, 3, "a\0b", Path())
DOORS |= {
    "save.path": POSTERIOR.save,
    "inputs of no axis": lambda _: POSTERIOR.draw(torch.tensor(1.0), 2),
    "inputs without numbers": lambda _: POSTERIOR.draw(X.to("meta"), 2),
    "sparse inputs": lambda _: POSTERIOR.draw(X.to_sparse(), 2),
}
VALUES = {"save.path": FILES, "predict.max_bytes": (*WRONG, 0, -1), "draw.n": (*WRONG, 2**70, 2**31, 10**5000, 0, -1)}


def failures() -> list[str]:
    """Knock at every door with every value."""
    found = []
    for door, knock in DOORS.items():
        for value in VALUES.get(door, WRONG):
            try:
                knock(value)
                found.append(f"{door} accepted a {type(value).__name__}")
            except InvalidInput as error:
                found += [f"{door} repeats escapes"] * ("\x1b" in str(error))
            except Exception as error:  # whatever it is, it is none of ours
                found.append(f"{door}, a {type(value).__name__}: {type(error).__name__}: {error}"[:200])
    return found


def print_failures() -> None:
    warnings.simplefilter("ignore")
    print(*failures(), sep="\n", end="")


def test_what_is_of_another_type_is_refused_in_our_words() -> None:
    done = Forked(print_failures).done()
    assert (done.stdout, done.stderr) == ("", "")


def test_numbers_of_other_libraries_are_numbers() -> None:
    import numpy as np

    given = SimpleNamespace(seed=np.int64(3), share=np.float32(0.5))
    convert(given, seed=int, share=float)
    assert (type(given.seed), given.seed, given.share) == (int, 3, 0.5)
