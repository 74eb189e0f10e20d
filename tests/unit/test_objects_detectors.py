"""Detectors by transformers, loaded as they come: from folders with safetensors, on tiny random instances."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from teacher_service.objects import DetectorOptions, KnownObjects, make_detector
from teacher_service.objects.words import as_words, which_word
from tests.detector_kit import WORDS, save_d_fine, save_grounding_dino, save_rt_detr_v2
from world2vlm.boxes import Box
from world2vlm.bundles import Frame, ObjectView
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.images import encode_png

WIDTH, HEIGHT = 128, 96
MODELS = [(save_d_fine, ()), (save_rt_detr_v2, ()), (save_grounding_dino, WORDS)]


def make_frame(**given: object) -> Frame:
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frame = {"png": encode_png(pixels), "c2w": np.eye(4), "size": (WIDTH, HEIGHT), **given}
    return Frame(intrinsics=intrinsics_from_fov(60, WIDTH, HEIGHT), **frame)  # type: ignore[arg-type]


@pytest.mark.parametrize(("save", "vocabulary"), MODELS, ids=["d-fine", "rt-detr-v2", "grounding-dino"])
def test_a_detector_from_a_folder_finds_boxes_in_pixels(
    save: Callable[[Path], Path], vocabulary: tuple[str, ...], tmp_path: Path
) -> None:
    options = DetectorOptions(str(save(tmp_path)), vocabulary, "cpu")
    detector, frame = make_detector(options), make_frame()
    assert detector is not None
    found = detector.detect(frame)
    assert found
    for each in found:
        assert each.label in WORDS
        assert 0 < each.score <= 1
        x1, y1, x2, y2 = each.box
        assert 0 <= x1 < x2 <= WIDTH and 0 <= y1 < y2 <= HEIGHT
    # Pixels of the frame, not shares of it.
    assert max(each.box[2] for each in found) > 10
    again = make_detector(options)
    assert again is not None
    assert [vars(each) for each in again.detect(frame)] == [vars(each) for each in found]
    assert again.digest == detector.digest
    if vocabulary:
        fewer = make_detector(DetectorOptions(options.detector, vocabulary[:1], "cpu"))
        assert fewer is not None and fewer.digest != detector.digest
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    changed = make_detector(options)
    assert changed is not None and changed.digest != detector.digest


def test_weights_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    weights = save_d_fine(tmp_path) / "model.safetensors"
    tensors = load_file(weights)
    (gone,) = [name for name in tensors if name.endswith("enc_score_head.weight")]
    save_file({name: each for name, each in tensors.items() if name != gone}, weights, metadata={"format": "pt"})
    with pytest.raises(InvalidInputError, match=r"lack 1 of its tensors.*enc_score_head"):
        make_detector(DetectorOptions(str(tmp_path), device="cpu"))


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    (save_d_fine(tmp_path) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidInputError, match="safetensors"):
        make_detector(DetectorOptions(str(tmp_path), device="cpu"))


def test_the_wrong_kind_of_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does it need a vocabulary"):
        make_detector(DetectorOptions(str(save_grounding_dino(tmp_path / "open")), device="cpu"))
    with pytest.raises(InvalidInputError, match="give no vocabulary"):
        make_detector(DetectorOptions(str(save_d_fine(tmp_path / "closed")), WORDS, "cpu"))


def test_no_detector_and_no_such_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert make_detector(DetectorOptions()) is None
    with pytest.raises(InvalidInputError, match="a vocabulary needs a detector"):
        make_detector(DetectorOptions(vocabulary=WORDS))
    with pytest.raises(NotFoundError, match="nobody/nothing"):
        make_detector(DetectorOptions("nobody/nothing", device="cpu"))


@pytest.mark.parametrize("vocabulary", [("chair", "Chair"), ("chair. table",), ("",)])
def test_bad_vocabularies_are_refused(vocabulary: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match="vocabulary"):
        as_words(vocabulary)


@pytest.mark.parametrize(
    ("phrase", "meant"),
    [
        ("chair", "chair"),
        ("dining table", "dining table"),
        ("dining", "dining table"),
        ("table", "table"),
        ("chair. dining table. [SEP]", ""),
        ("[CLS] tv stand .", "tv stand"),
        ("lamp", ""),
        ("", ""),
    ],
)
def test_a_phrase_means_one_entry_of_the_vocabulary_or_none(phrase: str, meant: str) -> None:
    assert which_word(phrase, as_words(["Chair", "dining_table", "table", "TV-stand"])) == meant


def test_known_objects_are_those_of_the_instance_map() -> None:
    instances = np.zeros((HEIGHT, WIDTH), np.uint8)
    instances[10:30, 20:60] = 3
    view = ObjectView(3, "chair", "red", Box(1, 1, 2, 2), 0.1)
    (found,) = KnownObjects().detect(make_frame(objects=(view,), instances_png=encode_png(instances)))
    assert (found.label, found.score, found.box) == ("chair", 1.0, (20.0, 10.0, 60.0, 30.0))
    assert found.mask is not None and np.array_equal(found.mask, instances == 3)
    assert KnownObjects().detect(make_frame()) == ()
    with pytest.raises(InvalidInputError, match="instance map"):
        KnownObjects().detect(make_frame(objects=(view,)))
    with pytest.raises(InvalidInputError, match="does not show object 3"):
        KnownObjects().detect(make_frame(objects=(view,), instances_png=encode_png(instances * 0)))


def test_a_frame_without_pixels_is_refused(tmp_path: Path) -> None:
    detector = make_detector(DetectorOptions(str(save_rt_detr_v2(tmp_path)), device="cpu"))
    assert detector is not None
    with pytest.raises(InvalidInputError, match="pixels"):
        detector.detect(make_frame(png=b""))
