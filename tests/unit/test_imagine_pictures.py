"""The pictures of imagined trajectories: what is on them, that nothing is cut off, and what rejected ones look like."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image, ImageFont
from typer.testing import CliRunner

from teacher_service.cli import register
from teacher_service.paths import from_actions
from teacher_service.pictures import draw_sheet, draw_strip, encode_animation
from teacher_service.pictures.figures import describe_frames
from teacher_service.pictures.grid import BLACK, MIN_WIDTH, RED, Line, Row, draw_grid, wrap
from world2vlm.actions import parse_actions
from world2vlm.bundles import REJECTED, Bundle, Frame, GateVerdict, write_bundle
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.errors import DataCorruptedError, InvalidInputError
from world2vlm.images import encode_png

ACTIONS = "move forward 0.4 meters; turn left 10 degrees"
FAILED = GateVerdict("yaw", 17.5, False, "the view turns 17.5 degrees, but 10 degrees were asked for")
RED_RGB = (0xC6, 0x28, 0x28)


def make_frames(key_frames_only: bool = True, width: int = 96) -> list[Frame]:
    frames = []
    for index, waypoint in enumerate(from_actions(parse_actions(ACTIONS), key_frames_only)):
        pixels = np.full((64, width, 3), (40, 80 + 20 * index, 160), np.uint8)
        frames.append(
            Frame(
                png=encode_png(pixels),
                c2w=waypoint.c2w,
                intrinsics=intrinsics_from_fov(60, width, 64),
                size=(width, 64),
                actions_step=waypoint.actions_step,
                key_frame=waypoint.key_frame,
                scores={"observed_share": 0.8125},
                gates=(GateVerdict("sharpness", 0.93, True),),
            )
        )
    return frames


def make_bundle(trajectory: str, frames: list[Frame], **params: object) -> Bundle:
    return Bundle("hall", trajectory, tuple(frames), {"world": "geometric", "actions": ACTIONS, **params})


def has_colour(picture: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(picture) == colour).all(axis=-1).any())


@pytest.fixture
def rejected(tmp_path: Path) -> Path:
    """A folder with one bundle that passed, one with a frame that failed, and one of which nothing is left."""
    frames = make_frames()
    reason = {"gate": "yaw", "figure": 17.5, "message": FAILED.reason}
    write_bundle(tmp_path, make_bundle("a", frames))
    write_bundle(tmp_path, make_bundle("b", [*frames[:2], replace(frames[2], gates=(FAILED,))], **{REJECTED: reason}))
    write_bundle(tmp_path, make_bundle("c", [], **{REJECTED: {**reason, "gate": "collision"}}))
    return tmp_path


def test_the_strip_has_every_frame_and_red_around_those_that_failed() -> None:
    frames = make_frames(width=240)
    strip = draw_strip(frames)
    assert strip.width == 3 * 240
    assert [strip.getpixel((240 * index + 120, 32)) for index in range(3)] == [(40, 80 + 20 * i, 160) for i in range(3)]
    assert not has_colour(strip, RED_RGB)
    failed = draw_strip([*frames[:2], replace(frames[2], gates=(FAILED,))])
    assert failed.getpixel((2 * 240, 0)) == failed.getpixel((3 * 240 - 1, 63)) == RED_RGB
    assert failed.getpixel((2 * 240 - 1, 0)) != RED_RGB


def test_small_frames_are_enlarged_and_many_are_shown_small() -> None:
    frames = make_frames()
    assert draw_strip(frames).width == 3 * MIN_WIDTH
    many = draw_strip([replace(frame, size=(640, 64)) for frame in frames * 6])
    assert many.width == 8 * MIN_WIDTH


def test_captions_wrap_within_their_cell() -> None:
    font = ImageFont.load_default(12)
    text = "rejected by a_gate_with_a_very_long_name_that_does_not_fit_into_one_line (0.1): " + "why " * 30
    lines = wrap(text, 120, font)
    assert max(map(font.getlength, lines)) <= 120
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    drawn = np.asarray(draw_grid([Row((Line(text, BLACK),), ())], 128, 1))
    # Nothing is drawn at the borders, so nothing is cut off there.
    assert drawn[:, -2:].min() == drawn[:, :2].min() == drawn[-2:].min() == 255


def test_the_animation_rests_at_key_frames() -> None:
    frames = make_frames(key_frames_only=False)
    animation = Image.open(io.BytesIO(encode_animation(frames)))
    assert (animation.format, animation.n_frames, animation.info["loop"]) == ("WEBP", 5, 0)
    durations = []
    for index in range(animation.n_frames):
        animation.seek(index)
        animation.load()
        durations.append(animation.info["duration"])
    assert durations == [700, 120, 700, 120, 700]


def test_frames_are_described_in_a_line_each() -> None:
    frames = make_frames()
    lines = list(describe_frames([*frames[:2], replace(frames[2], gates=(FAILED,))]))
    assert lines[0] == f"000  {'the anchor':<24}  observed share 0.812  passed sharpness 0.93"
    assert lines[1].startswith("001  move forward 0.4 meters ")
    assert lines[2].endswith(f"FAILED yaw 17.5: {FAILED.reason}")


def test_the_sheet_has_a_row_for_each_bundle_and_says_why_one_was_rejected(rejected: Path) -> None:
    sheet = draw_sheet([rejected])
    assert sheet.width == 3 * MIN_WIDTH
    assert has_colour(sheet, RED_RGB)
    passed = draw_sheet([rejected / "scenes" / "hall"], rows=1)
    assert not has_colour(passed, RED_RGB)
    assert passed.height < sheet.height / 2
    assert RED == "#c62828"


def test_a_bundle_s_own_folder_gives_a_sheet_of_it(rejected: Path) -> None:
    folder = rejected / "scenes" / "hall" / "traj_b"
    assert has_colour(draw_sheet([folder]), RED_RGB)


def test_a_sheet_of_nothing_and_a_broken_bundle_are_named(rejected: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no bundles in .*empty"):
        draw_sheet([tmp_path / "empty"])
    (rejected / "scenes" / "hall" / "traj_a" / "frames" / "001.png").write_bytes(b"no picture")
    with pytest.raises(DataCorruptedError, match=r"traj_a/frames/001\.png"):
        draw_sheet([rejected])


def test_the_command_writes_the_sheet(rejected: Path) -> None:
    app, serve = typer.Typer(), typer.Typer()
    register(app, serve)
    out = rejected / "sheets" / "sheet.png"
    result = CliRunner().invoke(app, ["worlds", "sheet", str(rejected), "--out", str(out)], catch_exceptions=False)
    assert (result.exit_code, result.stdout.strip()) == (0, str(out))
    assert Image.open(out).size == draw_sheet([rejected]).size
