"""Inference methods: each a frozen dataclass with one `infer(problem, data, engine)`."""

from typing import Annotated

from pydantic import Field

from posterity.methods.ensemble import Ensemble as Ensemble
from posterity.methods.map import MAP as MAP
from posterity.methods.map import MLE as MLE
from posterity.methods.mean_field import MeanField as MeanField

AnyMethod = Annotated[MAP | MLE | MeanField | Ensemble, Field(discriminator="kind")]
