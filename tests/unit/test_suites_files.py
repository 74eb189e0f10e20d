"""The published files' schemas, in tiny files that have them, and what a broken one is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.suites_kit import (
    MOVED,
    VIEWS,
    WAYS,
    choice,
    cube_files,
    cube_row,
    encoded,
    sat_row,
    vsi_files,
    vsi_row,
    write_parquet,
    write_video,
)
from trainer.suites import SUITES, Kind, SuiteItem
from trainer.suites.mindcube import split_choices
from trainer.suites.pictures import PictureFiles, Video, spread
from world2vlm.errors import InvalidInputError

SAT, VSI, CUBE = SUITES["sat"], SUITES["vsi-bench"], SUITES["mindcube"]


def test_sat(tmp_path: Path) -> None:
    rows = [
        sat_row("If I turn left, what is nearer?", ["the chair", "the lamp"], "the lamp"),
        sat_row("Did it move?", ["yes", "no"], "yes", question_type="obj_movement", image_bytes=[encoded()]),
    ]
    write_parquet(tmp_path / "SAT_test.parquet", rows)
    first, second = SAT.read(tmp_path)
    assert (first.id, first.category, first.choices, first.answer) == (
        "0",
        "action_conseq",
        ("the chair", "the lamp"),
        1,
    )
    assert first.truth == "the lamp" and first.kind is Kind.CHOICE
    assert [image.size for image in first.pictures.load(2)] == [(8, 6), (8, 6)]
    assert (second.category, second.pictures.count) == ("obj_movement", 1)
    assert first.group == second.group  # the same first picture


def test_another_split_is_read_by_its_file(tmp_path: Path) -> None:
    row = sat_row("Q?", ["a", "b"], "a", image_bytes=[encoded((1, 2, 3))])
    assert len(SAT.read(write_parquet(tmp_path / "SAT_val.parquet", [row, row, row]))) == 3


def test_the_second_edition_of_sat(tmp_path: Path) -> None:
    row = sat_row("Q?", ["a", "b"], "b")
    row["images"] = [{"bytes": data, "path": "x.png"} for data in row.pop("image_bytes")]
    item = SAT.read(write_parquet(tmp_path / "data/test-00000-of-00001.parquet", [row]).parent.parent)[0]
    assert item.pictures.count == 2 and item.pictures.load(1)[0].size == (8, 6)


def test_sats_rows_span_batches(tmp_path: Path) -> None:
    rows = [sat_row(f"Q{index}?", ["a", "b"], "a") for index in range(150)]
    items = SAT.read(write_parquet(tmp_path / "SAT_test.parquet", rows))
    assert [item.question for item in items] == [f"Q{index}?" for index in range(150)]


def test_vsi_bench(tmp_path: Path) -> None:
    rows = [
        vsi_row(0, "object_rel_direction_hard", "C", WAYS),
        vsi_row(1, "room_size_estimation", "30.9"),
        vsi_row(2, "object_counting", "4", []),
    ]
    way, size, count = VSI.read(vsi_files(tmp_path, rows))
    assert (way.choices[2], way.answer, way.group) == ("back-left", 2, "scannet/s0")
    assert "frames of a video" in way.question and "Question 0?" in way.question
    assert (size.kind, size.answer, count.answer) == (Kind.NUMBER, 30.9, 4.0)
    assert size.pictures.count is None


def test_vsi_bench_as_parquet(tmp_path: Path) -> None:
    write_video(tmp_path / "scannet/s0.mp4")
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [vsi_row(7, "obj_appearance_order", "B", WAYS)])
    assert VSI.read(tmp_path)[0].id == "7"


def test_frames_are_evenly_spaced_in_time(tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "v.mp4", frames=21))
    for count, expected in ((1, [0]), (2, [0, 200]), (3, [0, 100, 200]), (5, [0, 50, 100, 150, 200])):
        grey = [image.convert("L").getpixel((32, 32)) for image in video.load(count)]
        assert grey == pytest.approx(expected, abs=12)


def test_frames_are_exact_however_far_key_frames_lie_apart(tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "v.mp4", frames=25, rate=25))
    grey = [image.convert("L").getpixel((10, 10)) for image in video.load(25)]
    assert grey == pytest.approx([10 * index for index in range(25)], abs=12)


def test_a_broken_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(InvalidInputError, match=r"v\.mp4: not a video"):
        Video(tmp_path / "v.mp4").load(2)


def test_mindcube(tmp_path: Path) -> None:
    rows = [cube_row("among_group002_q0_1_1", MOVED, "B", VIEWS), cube_row("aroundnew_q1", MOVED, "A", VIEWS[:1])]
    first, second = CUBE.read(cube_files(tmp_path, rows))
    assert first.question == "Based on these two views: in which direction did I move?"
    assert first.choices == ("Directly left", "Diagonally forward and right")
    assert (first.answer, first.category, second.category) == (1, "among", "around")
    assert first.group == second.group == "other_all_image/among/bag_002"
    assert [image.size for image in first.pictures.load(2)] == [(8, 6)] * 2


def test_choices_within_a_question_are_told_apart() -> None:
    question, choices = split_choices(
        "Is it view A. or B.? Which object? A. Tv B. Light purple sofa C. St. Mary D. None"
    )
    assert question == "Is it view A. or B.? Which object?"
    assert choices == ("Tv", "Light purple sofa", "St. Mary", "None")
    for text in ("Which object?", "Which? A. one", "Which? A. one C. two", "Which? B. one A. two", "Which? A. B. two"):
        with pytest.raises(InvalidInputError):
            split_choices(text)


def broken_sat(**changes: Any) -> Callable[[Path], list[SuiteItem]]:
    def read(folder: Path) -> list[SuiteItem]:
        good = sat_row("Q?", ["a", "b"], "a")
        return SAT.read(write_parquet(folder / "SAT_test.parquet", [good, {**good, **changes}]))

    return read


def broken_vsi(**changes: Any) -> Callable[[Path], list[SuiteItem]]:
    row = vsi_row(0, "object_rel_distance", "A", WAYS)
    return lambda folder: VSI.read(vsi_files(folder, [row, {**row, **changes}]))


def broken_cube(**changes: Any) -> Callable[[Path], list[SuiteItem]]:
    row = cube_row("among_q0", MOVED, "B", VIEWS)
    return lambda folder: CUBE.read(cube_files(folder, [row, {**row, **changes}]))


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (broken_sat(correct_answer="c"), r"SAT_test\.parquet, row 2: .*none of the 'answers'"),
        (broken_sat(answers=["a"]), "row 2: a question has 2 to 26 choices, not 1"),
        (broken_sat(image_bytes=[]), "row 2: 'image_bytes' must be a list of pictures"),
        (broken_sat(image_bytes=[None]), "row 2: 'image_bytes' has a picture without bytes"),
        (broken_sat(question=""), "row 2: 'question' must be a text"),
        (broken_vsi(question_type="object_colour"), r"test\.jsonl, row 2: unknown 'question_type' 'object_colour'"),
        (broken_vsi(ground_truth="E"), "row 2: .*letter of no choice"),
        (broken_vsi(options=["front", "back"]), "row 2: 'options' must begin with their letters"),
        (broken_vsi(options=None), "row 2: 'options' must be a list of texts"),
        (broken_vsi(question_type="object_counting", ground_truth="four"), "row 2: .*'four' is no number"),
        (broken_vsi(scene_name="s1"), "row 2: no video .*unpack"),
        (broken_vsi(id=None), "row 2: 'id' must be"),
        (broken_cube(id="translation_q1"), r"MindCube_tinybench\.jsonl, row 2: the 'id' 'translation_q1' begins with"),
        (broken_cube(gt_answer="C"), "row 2: .*letter of no choice"),
        (broken_cube(question="Which way?"), "row 2: 'question' must end with its choices"),
        (broken_cube(images=["other_all_image/none.jpg"]), "row 2: no picture .*unpack data.zip"),
        (broken_cube(images=["../../secret.jpg"]), "row 2: .*leaves the suite's folder"),
    ],
)
def test_a_broken_row_is_named(read: Callable[[Path], list[SuiteItem]], says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=says):
        read(tmp_path)


def test_a_missing_column_is_named_with_what_is_there(tmp_path: Path) -> None:
    row = {key: value for key, value in sat_row("Q?", ["a", "b"], "a").items() if key != "answers"}
    with pytest.raises(InvalidInputError, match="row 1: no 'answers'; it has correct_answer, image_bytes"):
        SAT.read(write_parquet(tmp_path / "SAT_test.parquet", [row]))


@pytest.mark.parametrize(("line", "says"), [("{", "row 2: not JSON"), ("[1]", "row 2: not a JSON object")])
def test_a_broken_line_is_named(line: str, says: str, tmp_path: Path) -> None:
    vsi_files(tmp_path, [vsi_row(0, "object_rel_distance", "A", WAYS)])
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InvalidInputError, match=says):
        VSI.read(tmp_path)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "SAT_test.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(InvalidInputError, match=r"SAT_test\.parquet: cannot be read"):
        SAT.read(tmp_path)


def test_an_empty_file_has_no_questions(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("\n")
    with pytest.raises(InvalidInputError, match="no questions"):
        VSI.read(tmp_path)


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_where_nothing_is_the_error_says_how_to_get_it(suite: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"hf download {suite.repository} .*--repo-type dataset"):
        suite.read(tmp_path / "nowhere")


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    for name in ("a.png", "b.png"):
        with pytest.raises(InvalidInputError, match=name):
            PictureFiles((tmp_path / name,)).load(1)


def test_spreading() -> None:
    assert spread("abc", 5) == spread("abc", 3) == tuple("abc")
    assert spread("abcde", 1) == ("a",)
    assert spread("abcde", 2) == ("a", "e")
    assert spread("abcde", 3) == ("a", "c", "e")
    assert len(set(spread(range(100), 32))) == 32


@pytest.mark.parametrize("changes", [{"answer": 2}, {"answer": -1}, {"choices": ("one",)}, {"question": ""}])
def test_an_item_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        choice(**changes)


def test_a_true_number_must_be_finite() -> None:
    with pytest.raises(InvalidInputError, match="no number"):
        choice(choices=(), answer=float("nan"))
