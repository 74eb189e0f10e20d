"""What a worker process prints, as its supervisor has it."""

import os
import threading
from collections.abc import Iterator
from typing import IO

import pytest

from teacher_service.remote.output import Output


@pytest.fixture
def pipe() -> Iterator[tuple[IO[bytes], int]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as file:
        yield file, writing


def test_the_tail_has_all_that_was_printed_before_it_was_asked_for(pipe: tuple[IO[bytes], int]) -> None:
    reading, writing = pipe
    output = Output(reading, lambda line: None)
    reader = threading.Thread(target=output.follow)
    reader.start()
    for number in range(500):
        os.write(writing, f"line {number}\n".encode())
        assert output.tail().endswith(f"line {number}")
    os.close(writing)
    reader.join(10)
    assert not reader.is_alive()


def test_lines_are_told_whole_whatever_pieces_they_come_in(pipe: tuple[IO[bytes], int]) -> None:
    reading, writing = pipe
    heard: list[str] = []
    output = Output(reading, heard.append)
    for piece in (b"one\ntw", b"o\n", b"\xc3", b"\xa9t\xc3\xa9\nthe rest"):
        os.write(writing, piece)
        output.tail()
    os.close(writing)
    output.follow()
    assert heard == ["one", "two", "\u00e9t\u00e9", "the rest"]
    assert output.tail() == "one\ntwo\n\u00e9t\u00e9\nthe rest"


def test_a_line_without_an_end_and_many_lines_take_little_memory(pipe: tuple[IO[bytes], int]) -> None:
    reading, writing = pipe
    output = Output(reading, lambda line: None)
    writer = threading.Thread(target=lambda: (os.write(writing, b"x" * 1_000_000 + b"\n" * 1_000), os.close(writing)))
    writer.start()
    output.follow()
    writer.join()
    assert len(output.tail()) < 50_000
