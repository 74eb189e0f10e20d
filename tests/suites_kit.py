"""What the tests of published suites share: tiny files in their very schemas, and subjects with known habits."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
from PIL import Image

from trainer.suites import Order, Query, SuiteItem, ask
from trainer.suites.asking import Answered
from trainer.suites.pictures import EncodedPictures

WAYS = ["A. front-left", "B. front-right", "C. back-left", "D. back-right"]
VIEWS = ["other_all_image/among/bag_002/front_039.jpg", "other_all_image/among/bag_002/left_123.jpg"]
MOVED = "Based on these two views: in which direction did I move? A. Directly left B. Diagonally forward and right"


def encoded(colour: tuple[int, int, int] = (200, 30, 30), form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, form)
    return buffer.getvalue()


def choice(number: int = 0, answer: int = 0, choices: Sequence[str] = ("left", "right"), **changes: Any) -> SuiteItem:
    item = SuiteItem(
        str(number), "way", f"Which way {number}?", tuple(choices), answer, EncodedPictures((encoded(),)), f"g{number}"
    )
    return replace(item, **changes)


def number(truth: float, index: int = 0, **changes: Any) -> SuiteItem:
    item = SuiteItem(str(index), "size", "How long?", (), truth, EncodedPictures((encoded(),)), f"g{index}")
    return replace(item, **changes)


class Says:
    """Always gives the same response; keeps what it was asked."""

    max_images = 2

    def __init__(self, text: str) -> None:
        self._text = text
        self.asked: list[Query] = []

    def answer(self, queries: Sequence[Query], max_new_tokens: int) -> list[str]:
        self.asked += queries
        return [self._text] * len(queries)


class Knows:
    """Knows the right text to each question, and finds it among the choices, wherever they are; else says `default`."""

    max_images = 2

    def __init__(self, known: Mapping[str, str], default: str = "who knows") -> None:
        self._known = known
        self._default = default

    def answer(self, queries: Sequence[Query], max_new_tokens: int) -> list[str]:
        return [self._find(query.text) for query in queries]

    def _find(self, text: str) -> str:
        truth = next((truth for question, truth in self._known.items() if question in text), None)
        if truth is None:
            return self._default
        shown = re.search(rf"^([A-Z])\. {re.escape(truth)}$", text, re.MULTILINE)
        return shown[1] if shown else truth


def said(item: SuiteItem, text: str) -> Answered:
    """The item with one response, its choices in the file's order."""
    return ask(Says(text), [item], Order.PUBLISHED)[0]


def sat_row(question: str, answers: Sequence[str], correct: str, **changes: Any) -> dict[str, Any]:
    row = {
        "image_bytes": [encoded(), encoded((30, 200, 30), "JPEG")],
        "question": question,
        "answers": list(answers),
        "question_type": "action_conseq",
        "correct_answer": correct,
    }
    return {**row, **changes}


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_video(path: Path, frames: int = 20, size: int = 64, rate: int = 10) -> Path:
    """A video that grows brighter evenly: frame i has the grey value 10 * i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            pixels = np.full((size, size, 3), 10 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def vsi_row(
    index: int, kind: str, truth: str, options: Sequence[str] | None = None, scene: str = "s0"
) -> dict[str, Any]:
    return {
        "id": index,
        "dataset": "scannet",
        "scene_name": scene,
        "question_type": kind,
        "question": f"Question {index}?",
        "ground_truth": truth,
        "options": None if options is None else list(options),
    }


def cube_row(name: str, question: str, truth: str, images: Sequence[str]) -> dict[str, Any]:
    return {
        "id": name,
        "category": ["perpendicular", "P-P", "meanwhile", "self"],
        "type": "0_frame",
        "meta_info": [["bag", "sofa"], [None, "face"]],
        "question": question,
        "images": list(images),
        "gt_answer": truth,
    }


def vsi_files(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_video(folder / "scannet/s0.mp4")
    write_jsonl(folder / "test.jsonl", rows)
    return folder


def cube_files(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for image in VIEWS:
        path = folder / "data" / image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(form="JPEG"))
    write_jsonl(folder / "data/raw/MindCube_tinybench.jsonl", rows)
    return folder
