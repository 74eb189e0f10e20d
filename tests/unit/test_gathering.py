"""A folder of photographs into the store: what is taken, what is left out, and what is refused."""

import os
import uuid
from pathlib import Path

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from tests.photo_kit import save_flat
from trainer.gathering import gather
from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError
from world2vlm.photos import read_photo, store_photo
from world2vlm.splits import Split
from world2vlm.store import Store


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four places: three sub-folders, and one photograph that lies in none."""
    folder = tmp_path / "photos"
    for shade, name in enumerate(["attic/1.png", "attic/deep/2.png", "hall/1.jpg", "lab/1.webp", "yard.png"]):
        save_flat(folder / name, 40 * shade)
    return folder


def splits(store: Store, folder: Path) -> dict[str, Split]:
    return {scene.name: scene.split for scene in gather(store, folder).collection.scenes}


def test_photographs_are_stored_as_they_are_by_their_content(store: Store, folder: Path) -> None:
    gathered = gather(store, folder)
    scenes = {scene.name: scene for scene in gathered.collection.scenes}
    assert list(scenes) == ["attic", "hall", "lab", "yard.png"]
    assert len(scenes["attic"].photos) == 2
    assert read_photo(store, scenes["hall"].photos[0]) == (folder / "hall/1.jpg").read_bytes()
    assert [name.split(".")[1] for name in (scenes["hall"].photos[0], scenes["lab"].photos[0])] == ["jpg", "webp"]
    assert len(store.list("photos")) == 6
    assert gathered.summary[-1] == "5 photographs of 4 scenes: 2 to train on, 1 to calibrate on, 1 to test on"


def test_gathering_again_changes_nothing(store: Store, folder: Path) -> None:
    first, files = gather(store, folder), store.list()
    assert gather(store, folder) == first and store.list() == files


def test_a_suffix_or_a_file_s_name_says_nothing_of_its_content(store: Store, folder: Path) -> None:
    before = gather(store, folder).collection
    (folder / "attic/1.png").rename(folder / "attic/z.JPG")
    assert gather(store, folder).collection == before


def test_scenes_stay_in_their_splits_when_others_come(store: Store, folder: Path) -> None:
    before = splits(store, folder)
    for shade in range(30):
        save_flat(folder / f"new {shade}" / "1.png", shade, (40, 30))
    after = splits(store, folder)
    assert len(after) == 34 and {name: after[name] for name in before} == before


def test_a_place_stays_in_its_split_under_another_name(store: Store, folder: Path) -> None:
    before = splits(store, folder)
    for index, name in enumerate(["attic", "hall", "lab"]):
        (folder / name).rename(folder / f"renamed {index}")
    after = splits(store, folder)
    assert [after[f"renamed {index}"] for index in range(3)] == [before[name] for name in ("attic", "hall", "lab")]


def test_a_photograph_that_moves_to_another_split_is_left_out(store: Store, folder: Path) -> None:
    before = splits(store, folder)
    held = next(name for name, split in before.items() if split == "test")
    trained = next(name for name, split in before.items() if split == "train" and (folder / name).is_dir())
    source = folder / held if (folder / held).is_file() else next((folder / held).glob("*.*"))
    source.rename(folder / trained / f"moved{source.suffix}")
    for shade in range(3):
        save_flat(folder / f"new {shade}" / "1.png", shade, (40, 30))
    gathered = gather(store, folder)
    assert any("1 photograph(s) of another split in earlier rounds" in line for line in gathered.remarks)
    [same] = [scene for scene in gathered.collection.scenes if scene.name == trained]
    assert store_photo(store, (folder / trained / f"moved{source.suffix}").read_bytes()) not in same.photos


def test_the_same_photograph_in_two_places_counts_once(store: Store, folder: Path) -> None:
    (folder / "lab/again.jpg").write_bytes((folder / "hall/1.jpg").read_bytes())
    gathered = gather(store, folder)
    assert sum(len(scene.photos) for scene in gathered.collection.scenes) == 5
    assert any("lab/again.jpg (as hall/1.jpg)" in line for line in gathered.remarks)


def test_what_cannot_be_used_is_left_out_and_named(store: Store, folder: Path) -> None:
    (folder / "hall/notes.txt").write_text("not a photograph")
    (folder / "lab/cut.jpg").write_bytes((folder / "hall/1.jpg").read_bytes()[:200])
    save_flat(folder / "wide.png", 1, (200, 20))
    # Bytes that are no UTF-8, as old disks have them.
    save_flat(folder / os.fsdecode(b"odd \xff.png"), 9)
    (folder / ".hidden.txt").write_text("nobody's business")
    gathered = gather(store, folder)
    assert len(gathered.collection.scenes) == 4
    assert r"odd \udcff.png" in " ".join(gathered.remarks)
    [line] = [line for line in gathered.remarks if "no photographs that can be used" in line]
    assert "4 file(s)" in line and "panorama" in line
    assert all(name in line for name in ("hall/notes.txt", "lab/cut.jpg", "wide.png"))
    assert len(store.list("photos")) == 6


def test_who_says_nothing_of_the_lens_is_told_what_is_assumed(store: Store, folder: Path) -> None:
    assert any(
        line.startswith("5 photograph(s) say nothing of their lens: 54") for line in gather(store, folder).remarks
    )
    given = gather(store, folder, 70)
    assert not given.remarks and given.collection.fov_deg == 70
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = 26
    Image.new("RGB", (32, 24), (1, 2, 3)).save(folder / "hall/1.jpg", exif=exif)
    assert any(line.startswith("4 photograph(s)") for line in gather(store, folder).remarks)


def test_nothing_to_gather_is_refused_in_words(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no folder"):
        gather(store, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"no photographs in .*empty: put PNG, JPEG or WebP files there"):
        gather(store, tmp_path / "empty")
    for index in range(7):
        (tmp_path / f"empty/{index}.jpg").write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match=r"7 file\(s\).*no others: 0.jpg .*4.jpg .*and 2 more"):
        gather(store, tmp_path / "empty")
    assert store.list() == []


def test_too_few_places_are_refused_with_the_remedy(store: Store, tmp_path: Path) -> None:
    for index in range(5):
        save_flat(tmp_path / f"photos/{index % 2}/{index}.png", index)
    with pytest.raises(InvalidInputError, match=r"photographs of 2 scene\(s\), but a round needs 3"):
        gather(store, tmp_path / "photos")


@pytest.mark.parametrize("fov_deg", [0, 9.9, 151, float("nan")])
def test_a_field_of_view_that_no_camera_has_is_refused(store: Store, folder: Path, fov_deg: float) -> None:
    with pytest.raises(InvalidInputError, match="field of view"):
        gather(store, folder, fov_deg)


def test_a_photograph_that_vanished_or_changed_is_named(store: Store, folder: Path) -> None:
    name = gather(store, folder).collection.scenes[0].photos[0]
    store.write_bytes(f"photos/{name}", b"something else")
    with pytest.raises(DataCorruptedError, match=name):
        read_photo(store, name)
    store.delete(f"photos/{name}")
    with pytest.raises(NotFoundError, match=f"{name} is not in the store any more.*rounds start --photos"):
        read_photo(store, name)
