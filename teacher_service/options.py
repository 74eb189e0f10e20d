"""What settings leave to whoever knows it: a world's own options, the gates' limits."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from world2vlm.errors import InvalidInputError

Options = TypeVar("Options")


def read_table(given: Mapping[str, Any], kind: type[Options], table: str) -> Options:
    """Read a table of settings as a dataclass.

    Args:
        given: values by name.
        kind: the dataclass; its `__pydantic_config__` says whether unknown names are an error.
        table: what the settings call it, for the message.

    Raises:
        InvalidInputError: a bad value, named.
    """
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidInputError(f"{table}: {found}") from error
