"""`posterity demo`: the main job, whole, in a minute."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from posterity.cli.config import DataConfig, EngineConfig, ModelConfig, RunConfig
from posterity.cli.console import Voice
from posterity.cli.directory import RunDirectory
from posterity.cli.flags import PLAIN, Output
from posterity.cli.merge import merge
from posterity.cli.train import start
from posterity.core.optimizer import Optimizer
from posterity.methods import MeanField
from posterity.model.priors import Normal

# Chosen on the validation split alone, by its nelbo at temperature 1: 1.48 nats (other priors and rates: 1.51 to 1.79).
# 1,293 images are few for 61,706 weights: without a warm-up of the KL, the posterior never leaves its prior.
CONFIG = RunConfig(
    seed=0,
    twin=True,
    data=DataConfig(name="digits", image_size=32, batch_size=32),
    model=ModelConfig(name="lenet"),
    prior=Normal(0, 2, fan_in=True),
    method=MeanField(
        epochs=60,
        optimizer=Optimizer(lr=1e-2),
        initial_std=0.05,
        std_lr=3,
        kl_schedule="warmup",
        warmup_epochs=20,
        monitor="nelbo",
    ),
    engine=EngineConfig(threads=1),  # batches are small: a second thread gains little, and loses much on a busy machine
)


def demo(
    *,
    temperature: Annotated[
        str | None, Parameter(metavar="T", help="Weight of the KL; 1 is the posterior, 0.1 a sharper one. [1]")
    ] = None,
    out: Annotated[Path | None, Parameter(metavar="DIR", help="Run directory. [runs/…]")] = None,
    force: Annotated[bool, Parameter(negative="", help="Replace the run in --out.")] = False,
    output: Output = PLAIN,
) -> None:
    """Teach a Bayesian LeNet handwritten digits, beside its ordinary twin."""
    voice = Voice(output)
    flags = {} if temperature is None else {"method.temperature": ("--temperature", temperature)}
    config = merge(CONFIG.model_dump(mode="json", exclude_none=True), flags)
    directory, (bayesian, twin) = start(config, None if out is None else RunDirectory(out), voice, force=force)
    if temperature is None and bayesian.scores["nll"] > twin.scores["nll"]:
        voice.say(
            "\nWith so few images the posterior stays cautious: its probabilities are too low rather than too high."
            "\nA cold posterior is sharper; compare: posterity demo --temperature 0.1"
        )
    voice.say(
        "\nOpen the report in a browser. Then try images of your own, or a table:"
        f"\n  posterity predict {directory.path} digit.png\n  posterity train table.csv"
    )
