"""What a setting of a recipe may be; checked where a recipe is read."""

from typing import Annotated

from pydantic import AfterValidator, Field

from world2vlm.tasks import TASKS


def _known(task: str) -> str:
    if task not in TASKS:
        raise ValueError(f"no such task: {task}")
    return task


AtLeastOne = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
TaskCode = Annotated[str, AfterValidator(_known)]
