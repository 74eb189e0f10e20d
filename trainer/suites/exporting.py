"""Held-out questions as one Parquet file, for other people's harnesses (`integrations/lmms_eval`)."""

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet

from world2vlm.errors import InvalidInputError
from world2vlm.files import write_atomically
from world2vlm.images import encode_picture
from world2vlm.records import TaskRecord

SCHEMA = arrow.schema(
    [
        ("id", arrow.string()),
        ("task", arrow.string()),
        ("scene", arrow.string()),
        ("question", arrow.string()),
        ("answer", arrow.string()),
        ("images", arrow.list_(arrow.binary())),
    ]
)
"""The columns; `images` are encoded as they lie in the store, the earlier view first."""


def export_records(records: Sequence[TaskRecord], bundles: Path, out: Path) -> None:
    """Write records with their pictures to `out`, whole or not at all.

    Args:
        records: what to export, in this order.
        bundles: the folder that their picture paths are relative to.
        out: the file.

    Raises:
        InvalidInputError: no records, or a picture cannot be read.
    """
    if not records:
        raise InvalidInputError("no held-out questions to export")
    rows = [
        {
            "id": str(number),
            "task": record.task_type,
            "scene": str(record.meta.get("scene", "")),
            "question": record.question,
            "answer": record.assistant,
            "images": [encode_picture(bundles / path) for path in record.images],
        }
        for number, record in enumerate(records)
    ]
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows, schema=SCHEMA), buffer)
    write_atomically(out, buffer.getvalue())
