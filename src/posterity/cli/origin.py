"""What a posterior file says of the data that it was made of, and new inputs are held against."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posterity.data import Dataset
from posterity.data.form import TableForm
from posterity.errors import CorruptFile

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[Finite, Field(gt=0)]


class _Scaling(BaseModel):
    model_config = ConfigDict(strict=True)
    input_mean: Any  # numbers, or lists of them
    input_std: Any
    target_mean: Finite
    target_std: Positive

    def check(self, shape: Sequence[int]) -> None:
        """Refuse what does not scale inputs of this shape."""
        mean, std = (torch.tensor(one, dtype=torch.float32) for one in (self.input_mean, self.input_std))
        fits = torch.broadcast_shapes(mean.shape, std.shape, tuple(shape)) == tuple(shape)
        if not fits or not mean.isfinite().all() or not ((std > 0) & std.isfinite()).all():
            raise ValueError("it scales no inputs of this shape")


class _Data(BaseModel):
    """What a header says of the data; later versions may say more."""

    model_config = ConfigDict(strict=True)
    name: str
    task: Literal["classification", "regression"]
    input_shape: list[Annotated[int, Field(ge=1)]]
    classes: list[str]
    features: list[str]
    source: dict[str, str]
    digests: dict[str, str] = {}
    scaling: _Scaling | None
    form: dict[str, Any] | None = None


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Return what new inputs are held against."""
    scaling = dataset.scaling
    return {
        "name": dataset.name,
        "task": dataset.task,
        "input_shape": list(dataset.input_shape),
        "classes": list(dataset.classes),
        "features": list(dataset.features),
        "source": dict(dataset.source),
        "digests": dict(dataset.digests),
        "form": None if dataset.form is None else dataset.form.to_dict(),
        "scaling": None
        if scaling is None
        else {
            "input_mean": scaling.input_mean.tolist(),
            "input_std": scaling.input_std.tolist(),
            "target_mean": scaling.target_mean,
            "target_std": scaling.target_std,
        },
    }


def data_of(specification: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return what a header says of the data, after a look at its types."""
    try:
        found = _Data.model_validate(part(specification, "data", file))
    except ValidationError as error:
        place = ".".join(str(part)[:40] for part in error.errors()[0]["loc"])
        raise CorruptFile(
            f"{file} has a header whose data.{place} is not what a run writes. Save or copy it again."
        ) from error
    try:
        if found.scaling is not None:
            found.scaling.check(found.input_shape)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # torch's, of what are no numbers in rows
        raise CorruptFile(
            f"{file} has a header whose data.scaling does not scale its inputs. Save or copy it again."
        ) from error
    try:
        if found.form is not None and TableForm.from_dict(found.form).features != tuple(found.features):
            raise ValueError("its columns are not those of the network")
    except ValueError as error:
        raise CorruptFile(
            f"{file} has a header whose data.form does not read its table. Save or copy it again."
        ) from error
    return part(specification, "data", file)


def part(specification: Mapping[str, Any], key: str, file: Path) -> dict[str, Any]:
    if not isinstance(specification.get(key), dict):
        raise CorruptFile(f"{file} has a header whose '{key}' is no table. Save or copy it again.")
    return dict(specification[key])
