"""Fields that several methods share, with their ranges."""

from typing import Annotated

from pydantic import Field

Epochs = Annotated[int, Field(ge=1)]
Patience = Annotated[int, Field(ge=1)] | None
