"""What every table of a job file is: a frozen record that refuses unknown keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1, le=10**12)]


class Table(BaseModel):
    """A TOML table."""

    model_config = ConfigDict(frozen=True, extra="forbid")
