"""`posterity demo`: the main job, whole, in a minute."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from posterity.cli.config import DataConfig, ModelConfig, RunConfig
from posterity.cli.console import Voice
from posterity.cli.directory import RunDirectory
from posterity.cli.flags import Output
from posterity.cli.train import start
from posterity.core.optimizer import Optimizer
from posterity.methods import MeanField

EPOCHS = 60
CONFIG = RunConfig(
    seed=0,
    twin=True,
    data=DataConfig(name="digits", image_size=32),
    model=ModelConfig(name="lenet"),
    method=MeanField(epochs=EPOCHS, optimizer=Optimizer(lr=3e-3)),
)


def demo(
    *,
    out: Annotated[Path | None, Parameter(metavar="DIR", help="Run directory. [runs/…]")] = None,
    force: Annotated[bool, Parameter(negative="", help="Replace the run in --out.")] = False,
    output: Output = Output(),
) -> None:
    """Teach a Bayesian LeNet handwritten digits, beside its ordinary twin."""
    voice = Voice(output)
    directory, _ = start(CONFIG, out and RunDirectory(out), voice, force=force)
    voice.say(
        f"\nOpen the report in a browser; then predict images of your own: posterity predict {directory.path} digit.png, "
        "or train on your own data: posterity train table.csv"
    )
