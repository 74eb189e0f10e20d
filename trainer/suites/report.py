"""A suite's result as JSON, as a Markdown table and as a chart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.evaluation.tables import Row, markdown
from trainer.suites.asking import Answered, Order
from trainer.suites.chart import draw
from trainer.suites.guessing import LISTED_FIRST
from trainer.suites.scoring import score_item
from trainer.suites.summary import BASELINES, Change, Figures
from world2vlm.files import write_atomically

_HEADER = ("type", "n", "score", "95% interval", "skill", "unparsed", *BASELINES, "listed first")


def table(figures: Figures, order: Order) -> list[Row]:
    """One row for each type and the overall score, the header first.

    Under circular evaluation a column more: the mean over all orders, which is what a coin or a constant lives on.
    """
    extra = ("mean over orders",) if order is Order.CIRCULAR else ()
    header = (*_HEADER[:4], *extra, *_HEADER[4:])
    return [header, *(_row(name, row, order) for name, row in figures.items())]


def change_table(changes: Mapping[str, Change]) -> list[Row]:
    """What changed from one checkpoint to another, one row for each type and the overall score, the header first."""
    return [
        ("type", "change", "95% interval", "p"),
        *(
            (row, f"{change.value:+.3f}", f"{change.low:+.3f} to {change.high:+.3f}", f"{change.p:.4f}")
            for row, change in changes.items()
        ),
    ]


def pictures_used(answered: Sequence[Answered], most: int) -> dict[str, int]:
    """How many pictures were shown at most, and to how many questions fewer than they have (a video counts)."""
    cut = sum(one.item.pictures.count is None or one.images_used < one.item.pictures.count for one in answered)
    return {"most": most, "questions_cut": cut}


def answers(answered: Sequence[Answered]) -> list[dict[str, Any]]:
    """Every question with what was shown, what was said and its score, for whoever wants to check."""
    return [
        {
            "id": one.item.id,
            "type": one.item.category,
            "group": one.item.group,
            "truth": one.item.truth,
            "images_used": one.images_used,
            **asdict(score_item(one)),
            "replies": [
                {"shown": [one.item.choices[index] for index in reply.order], "text": reply.text}
                for reply in one.replies
            ],
        }
        for one in answered
    ]


def write(out: Path, result: Mapping[str, Any], tables: Sequence[Sequence[Row]]) -> None:
    """Write the result as JSON to `out`, and beside it the tables (`.md`) and the chart (`.svg`)."""
    title = f"{result['suite']}, version {result['version']}, choices {result['order']}"
    source = f"Questions: {result['repository']} at {result['revision']}\n\n" if result["revision"] else ""
    text = f"# {title}\n\n{source}" + "\n".join(map(markdown, tables))
    write_atomically(out.with_suffix(".md"), text.encode())
    write_atomically(out.with_suffix(".svg"), draw(result["rows"], title).encode())
    write_atomically(out, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())


def _row(name: str, row: Mapping[str, float], order: Order) -> Row:
    return (
        name,
        f"{row['n']:.0f}",
        f"{row['score']:.3f}",
        f"{row['low']:.3f} to {row['high']:.3f}",
        *((f"{row['mean']:.3f}",) if order is Order.CIRCULAR else ()),
        f"{row['skill']:.2f}",
        f"{row['unparsed']:.3f}",
        *(f"{row[baseline]:.3f}" for baseline in (*BASELINES, LISTED_FIRST)),
    )
