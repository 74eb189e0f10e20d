"""Rows of published files, Parquet or JSON Lines; whatever is wrong with one is said with its file and number."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

from trainer.suites.items import SuiteItem
from world2vlm.errors import InvalidInputError

Row = Mapping[str, Any]
_BATCH = 64


def read_items(path: Path, parse: Callable[[Row, int], SuiteItem]) -> list[SuiteItem]:
    """Read all questions of a file.

    Args:
        path: a `.parquet` file, or else JSON Lines.
        parse: takes a row and its number, from 0.

    Raises:
        InvalidInputError: the file cannot be read or has no rows, or a row is broken; the text names file and row,
            counted from 1, or for JSON Lines the line.
    """
    items = []
    for number, row in _rows(path):
        try:
            items.append(parse(row, number))
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}, row {number + 1}: {error}") from error
    if not items:
        raise InvalidInputError(f"{path}: no questions in it")
    return items


def text(row: Row, key: str) -> str:
    """A text that must be there and not be empty."""
    value = _value(row, key)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f"{key!r} must be a text, not {_describe(value)}")
    return value.strip()


def texts(row: Row, key: str) -> tuple[str, ...]:
    """A list of texts that must be there."""
    value = _value(row, key)
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise InvalidInputError(f"{key!r} must be a list of texts, not {_describe(value)}")
    return tuple(item.strip() for item in value)


def _value(row: Row, key: str) -> Any:
    if key not in row:
        raise InvalidInputError(f"no {key!r}; it has {', '.join(sorted(row))}")
    return row[key]


def _describe(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        yield from enumerate(_parquet_rows(path)) if path.suffix == ".parquet" else _json_rows(path)
    except (OSError, UnicodeDecodeError, arrow.ArrowException) as error:
        raise InvalidInputError(f"{path}: cannot be read: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            yield from batch.to_pylist()


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidInputError(f"{path}, row {number + 1}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise InvalidInputError(f"{path}, row {number + 1}: not a JSON object")
            yield number, row
