"""The worlds that run diffusers pipelines, beside what the suite of all worlds asks: tiny pipelines, random weights."""

import io
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import SanaWMPipeline, WanVACEPipeline
from numpy.typing import NDArray
from PIL import Image

from teacher_service.paths import from_actions, from_poses
from teacher_service.photos import motorcycle
from teacher_service.worlds import sana_wm, wan_vace_warp
from teacher_service.worlds.base import ImagineSpec, Photo
from teacher_service.worlds.diffusion_loading import check_free, explained, load
from teacher_service.worlds.diffusion_options import VideoOptions, check_installed, under_terms
from teacher_service.worlds.framing import fit_photo, lay_track
from teacher_service.worlds.sana_sampling import SanaSampler
from teacher_service.worlds.takes import Audience, Stopped
from teacher_service.worlds.wan_sampling import VaceSampler
from teacher_service.worlds.warp import Relief
from tests.worlds_kit import TINY, settings, tiny_sana, tiny_wan
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame
from world2vlm.cameras import integrate
from world2vlm.errors import GateRejectedError, InvalidInputError, NotFoundError, OverloadedError
from world2vlm.images import decode_map

FITTED = fit_photo(motorcycle(), 64, 64)


@pytest.fixture(scope="module")
def sana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sana(tmp_path_factory.mktemp("weights") / "sana")


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan(tmp_path_factory.mktemp("weights") / "wan")


@pytest.fixture(scope="module")
def sana_world(sana: Path) -> sana_wm.SanaWorld:
    return sana_wm.make(settings("sana_wm", sana))


@pytest.fixture(scope="module")
def wan_world(wan: Path) -> wan_vace_warp.VaceWarpWorld:
    return wan_vace_warp.make(settings("wan_vace_warp", wan, depth="none"))


def spec(actions: str, photo: Photo | None = None, **changes: Any) -> ImagineSpec:
    return replace(ImagineSpec(photo or motorcycle(), from_actions(parse_actions(actions))), **changes)


def pixels(frame: Frame) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(frame.png)))


# The photo and the path.


def test_a_photo_is_cut_in_the_middle_with_its_rays_and_depth() -> None:
    photo, fitted = motorcycle(), FITTED
    assert fitted.pixels.shape == (64, 64, 3) and fitted.depth is not None and fitted.depth.shape == (64, 64)
    corner = np.linalg.inv(fitted.intrinsics) @ [0, 0, 1]
    assert photo.intrinsics @ corner == pytest.approx([(370 - 250) / 2, 0, 1])
    assert photo.depth is not None
    assert fitted.depth[32, 32] == photo.depth[126, 186]


@pytest.mark.parametrize("shape", [(1000, 1), (1, 1000), (5, 4000)])
def test_a_photo_that_has_next_to_nothing_of_the_shape_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match="at least 8 on each side are needed"):
        fit_photo(replace(motorcycle(), pixels=np.zeros((*shape, 3), np.uint8), depth=None), 1280, 704)


def test_large_steps_are_divided_and_the_waypoints_kept() -> None:
    ends = integrate(parse_actions("turn left 30 degrees; move forward 0.25 meters; turn right 4 degrees"))[1:]
    path = from_poses(list(ends))
    track = lay_track(path, stride=8, step_m=0.1, step_deg=2.5)
    assert track.at == (0, 12, 15, 17) and len(track.poses) == 25
    for place, waypoint in zip(track.at, path, strict=True):
        assert np.array_equal(track.poses[place], waypoint.c2w)
    assert np.array_equal(track.poses[17:], np.tile(ends[-1], (8, 1, 1)))
    steps = np.linalg.inv(track.poses[:-1]) @ track.poses[1:]
    turns = np.degrees(np.arccos(np.clip((np.trace(steps[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert turns[:12] == pytest.approx(np.full(12, 2.5)) and turns.max() < 2.501
    assert np.linalg.norm(steps[:, :3, 3], axis=1).max() == pytest.approx(0.25 / 3)
    # Turning left is turning to negative yaw all the way.
    assert (np.diff(track.poses[:13, 0, 2]) < 0).all()


def test_a_path_that_needs_too_many_frames_is_refused(sana: Path) -> None:
    world = sana_wm.make(settings("sana_wm", sana, max_frames=17))
    assert len(list(world.imagine(spec("turn left 40 degrees")))) == 9
    with pytest.raises(InvalidInputError, match=r"needs 25 frames of at most 0.1 m and 2.5 degrees.* at most 17"):
        list(world.imagine(spec("turn left 41 degrees")))


# SANA-WM.


@pytest.mark.parametrize("guidance", [2.0, 1.0])
def test_the_frames_are_those_of_the_pipeline_s_own_call(sana: Path, guidance: float) -> None:
    world = sana_wm.make(settings("sana_wm", sana, guidance=guidance))
    pipe = SanaWMPipeline.from_pretrained(sana, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    asked = spec("move forward 0.3 meters; turn left 12 degrees", seed=5)
    track, k = lay_track(asked.path, 8, 0.1, 2.5), FITTED.intrinsics
    video = pipe(
        image=Image.fromarray(FITTED.pixels),
        prompt=VideoOptions("").prompt,
        c2w=track.poses,
        intrinsics=[k[0, 0], k[1, 1], k[0, 2], k[1, 2]],
        height=64,
        width=64,
        num_frames=len(track.poses),
        num_inference_steps=TINY["steps"],
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(5),
    ).frames
    frames = list(world.imagine(asked))
    assert len(frames) == 6
    for place, imagined in list(zip(track.at, frames, strict=True))[1:]:
        assert np.array_equal(pixels(imagined), np.rint(video[place] * 255).astype(np.uint8))


def test_paths_of_one_photo_and_one_length_are_made_together_and_the_photo_is_encoded_once(sana: Path) -> None:
    options = sana_wm.SanaOptions(model=str(sana), max_batch=2, **TINY)
    loaded = load("sana_wm", SanaWMPipeline, options, ())
    encoded, denoised = [], []
    loaded.pipe.vae.encoder.register_forward_hook(lambda *_: encoded.append(None))
    loaded.pipe.transformer.register_forward_hook(lambda _model, given, _made: denoised.append(len(given[0])))
    info = sana_wm.make(settings("sana_wm", sana)).info
    world = sana_wm.SanaWorld(info, options, 8, SanaSampler(loaded, 2, 2.0))
    # 9 frames, 17, and 9 three times.
    paths = ["right 10", "left 40", "right 15", "left 20", "left 5"]
    asked = [spec(f"turn {each} degrees", seed=seed) for seed, each in enumerate(paths)]
    alone = [list(world.imagine(each)) for each in asked]
    assert (len(encoded), denoised) == (1, [2] * 10)
    together = [list(frames) for frames in world.imagine_many(asked)]
    assert (len(encoded), denoised[10:]) == (1, [4, 4, 2, 2, 4, 4])
    for ours, own in zip(together, alone, strict=True):
        assert [frame.c2w.tolist() for frame in ours] == [frame.c2w.tolist() for frame in own]
        # Each has a seed of its own, and batches may round differently.
        assert all(np.abs(pixels(a).astype(int) - pixels(b)).max() <= 1 for a, b in zip(ours, own, strict=True))


def test_paths_have_in_common_how_long_their_videos_are(sana: Path) -> None:
    world = sana_wm.make(settings("sana_wm", sana, max_batch=3))
    nine = {world.batch_key(spec(f"turn left {degrees} degrees").path) for degrees in (1, 10, 20)}
    assert len(nine) == 1 and world.batch_key(spec("turn left 21 degrees").path) not in nine
    assert world.max_batch == 3


def test_a_video_that_is_held_longer_is_another(sana_world: sana_wm.SanaWorld) -> None:
    """Why paths of different lengths are not made together: every frame sees all others."""
    short = spec("turn right 10 degrees")
    held = replace(short, path=short.path + short.path[-1:] * 8)
    frames = [list(sana_world.imagine(each)) for each in (short, held)]
    last = len(short.path) - 1
    assert np.array_equal(frames[0][last].c2w, frames[1][last].c2w)
    assert np.abs(pixels(frames[0][last]).astype(int) - pixels(frames[1][last])).max() > 20


def test_who_has_left_is_told_nothing() -> None:
    told: list[str] = []
    here = spec("turn left 5 degrees", on_step=lambda done, total: told.append("here"))
    gone = replace(here, on_step=lambda done, total: told.append("gone"), is_cancelled=lambda: True)
    Audience([gone, here]).tell(1, 2)
    assert told == ["here"]
    with pytest.raises(Stopped):
        Audience([gone, gone]).tell(1, 2)


def test_paths_of_two_photos_are_not_made_together(sana_world: sana_wm.SanaWorld) -> None:
    turn = spec("turn right 10 degrees")
    with pytest.raises(InvalidInputError, match="must start from one photo"):
        sana_world.imagine_many([turn, replace(turn, anchor=FITTED)])


def test_progress_is_told_after_every_step(sana_world: sana_wm.SanaWorld) -> None:
    told: list[tuple[int, int]] = []
    list(sana_world.imagine(spec("turn right 10 degrees", on_step=lambda done, total: told.append((done, total)))))
    assert told == [(1, 2), (2, 2)]


def test_nothing_is_computed_for_a_camera_that_stays(sana_world: sana_wm.SanaWorld) -> None:
    told: list[int] = []
    still = replace(
        spec("turn left 5 degrees", on_step=lambda done, _: told.append(done)), path=from_poses([np.eye(4)])
    )
    assert len(list(sana_world.imagine(still))) == 2 and not told


def test_who_waits_for_the_device_can_leave(sana_world: sana_wm.SanaWorld) -> None:
    busy, leave = threading.Event(), threading.Event()

    def hold(_done: int, _total: int) -> None:
        busy.set()
        leave.wait(20)

    other = threading.Thread(target=lambda: list(sana_world.imagine(spec("turn left 5 degrees", on_step=hold))))
    other.start()
    assert busy.wait(20)
    calls: list[None] = []

    def is_cancelled() -> bool:
        calls.append(None)
        return len(calls) > 3

    waiting = list(sana_world.imagine(spec("turn left 10 degrees", is_cancelled=is_cancelled)))
    assert len(waiting) == 1 and other.is_alive()
    leave.set()
    other.join(20)
    assert not other.is_alive()


def test_two_worlds_take_turns_on_one_device(
    sana_world: sana_wm.SanaWorld, wan_world: wan_vace_warp.VaceWarpWorld
) -> None:
    busy, leave, steps = threading.Event(), threading.Event(), list[str]()

    def hold(_done: int, _total: int) -> None:
        busy.set()
        leave.wait(60)
        steps.append("first")

    asked = (
        spec("turn left 5 degrees", on_step=hold),
        spec("turn left 5 degrees", on_step=lambda *_: steps.append("second")),
    )
    threads = [
        threading.Thread(target=lambda world, one: list(world.imagine(one)), args=pair)
        for pair in zip((sana_world, wan_world), asked, strict=True)
    ]
    threads[0].start()
    assert busy.wait(20)
    threads[1].start()
    threads[1].join(3)  # many times what its steps take
    assert threads[1].is_alive() and not steps
    leave.set()
    for thread in threads:
        thread.join(60)
    assert steps == sorted(steps) and {*steps} == {"first", "second"}


def test_offloading_changes_no_pixel_and_no_digest(sana: Path, sana_world: sana_wm.SanaWorld) -> None:
    """One component after the other. Layer by layer (`sequential`) accelerate refuses where the device is a CPU."""
    world = sana_wm.make(settings("sana_wm", sana, offload="model"))
    assert world.info.digest == sana_world.info.digest
    asked = spec("turn left 10 degrees")
    for _ in range(2):
        assert [each.png for each in world.imagine(asked)] == [e.png for e in sana_world.imagine(asked)]


def test_warming_up_makes_a_video(sana_world: sana_wm.SanaWorld, wan_world: wan_vace_warp.VaceWarpWorld) -> None:
    sana_world.warm()
    wan_world.warm()


# Memory.


def test_a_video_that_does_not_fit_is_refused_before_it_is_begun(sana: Path) -> None:
    loaded = load("sana_wm", SanaWMPipeline, sana_wm.SanaOptions(model=str(sana), **TINY), ())
    huge = Photo(np.broadcast_to(np.uint8(0), (200_000, 200_000, 3)), FITTED.intrinsics)
    poses = np.tile(np.eye(4), (1, 9, 1, 1))
    with pytest.raises(
        OverloadedError, match=r"needs about \d+\.\d GB on cpu, .* are free; set offload, or lower width"
    ):
        SanaSampler(loaded, 2, 2.0).sample(huge, ("", ""), poses, [0], Audience([spec("turn left 5 degrees")]))


def test_what_a_device_lacks_is_said() -> None:
    check_free(torch.device("cpu"), 1e6, "buy more")
    with pytest.raises(OverloadedError, match=r"about 1000000000\.0 GB on cpu, [\d.]+ GB are free; buy more"):
        check_free(torch.device("cpu"), 1e18, "buy more")
    with (
        pytest.raises(OverloadedError, match=r"cpu ran out of memory, .* GB are free again; buy more"),
        explained(torch.device("cpu"), "buy more"),
    ):
        raise torch.OutOfMemoryError


# What is not there, and what is wrong.


def test_a_missing_package_and_missing_weights_say_how_to_get_them() -> None:
    with pytest.raises(NotFoundError, match=r"needs no_such_package, .* pip install 'world2vlm\[teacher,model\]'"):
        check_installed("sana_wm", "no_such_package")
    with pytest.raises(NotFoundError, match=r"'hf download nobody/nothing-of-that-name', or set world_options.sana_wm"):
        sana_wm.make(settings("sana_wm", Path("nobody/nothing-of-that-name")))


def test_weights_of_another_kind_or_broken_ones_are_refused(sana: Path, wan: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is no SanaWMPipeline"):
        sana_wm.make(settings("sana_wm", wan))
    with pytest.raises(InvalidInputError, match="is no diffusers pipeline"):
        sana_wm.make(settings("sana_wm", tmp_path))
    broken = shutil.copytree(sana, tmp_path / "broken")
    weights = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(InvalidInputError, match="is broken"):
        sana_wm.make(settings("sana_wm", broken))
    weights.unlink()
    with pytest.raises(InvalidInputError, match="cannot load"):
        sana_wm.make(settings("sana_wm", broken))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 72}, "multiples of 32"),
        ({"steps": 0}, "at least 1"),
        ({"guidence": 1.0}, "guidence"),
        ({"offload": "disk"}, "offload"),
        ({"device": "abacus"}, "no such device"),
        ({"dtype": "bfloat16"}, "needs float32 on a CPU"),
    ],
)
def test_wrong_options_are_named(sana: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        sana_wm.make(settings("sana_wm", sana, **options))


def test_the_digest_is_of_all_that_decides_about_the_frames(sana: Path, tmp_path: Path) -> None:
    digests = [
        sana_wm.make(settings("sana_wm", folder, **changes)).info.digest
        for folder, changes in (
            (sana, {}),
            (shutil.copytree(sana, tmp_path / "copy"), {"max_batch": 1}),
            (sana, {"steps": 3}),
            (sana, {"prompt": "a kitchen"}),
            (sana, {"max_batch": 2}),
            (_retrained(sana, tmp_path / "retrained"), {}),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5


def _retrained(folder: Path, to: Path) -> Path:
    """Another scheduler's shift: one number of what was trained."""
    shutil.copytree(folder, to)
    config = to / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), "shift": 2.0}), encoding="utf-8")
    return to


def test_terms_of_a_model_that_nobody_read_allow_nothing(sana_world: sana_wm.SanaWorld, sana: Path) -> None:
    unread = sana_world.info
    assert not unread.outputs_may_train and not unread.outputs_may_be_sold
    assert "set terms_checked in world_options.sana_wm" in unread.terms
    read = sana_wm.make(settings("sana_wm", sana, terms_checked=True)).info
    assert read.outputs_may_train and not read.terms
    known = replace(unread, terms="its own")
    assert under_terms(known, [], terms_checked=False) is known
    assert "what wan and a depth may be used for" in under_terms(known, ["wan", "a depth"], terms_checked=False).terms


# Wan-VACE.


def test_what_the_photo_shows_is_pasted_over_what_the_model_makes(
    wan: Path, wan_world: wan_vace_warp.VaceWarpWorld
) -> None:
    asked = spec("move left 0.2 meters; turn left 8 degrees")
    assert FITTED.depth is not None
    relief = Relief(FITTED.pixels, FITTED.depth, FITTED.intrinsics)
    free = list(wan_vace_warp.make(settings("wan_vace_warp", wan, depth="none", paste=False)).imagine(asked))
    for imagined, other in list(zip(wan_world.imagine(asked), free, strict=True))[1:]:
        warped = relief.view(imagined.c2w)
        seen = decode_map(imagined.observed_png) > 0
        assert np.array_equal(seen, warped.seen)
        assert imagined.scores["observed_share"] == pytest.approx(seen.mean()) and 0.3 < seen.mean() < 1
        assert np.array_equal(pixels(imagined)[seen], warped.rgb[seen])
        assert np.array_equal(pixels(imagined)[~seen], pixels(other)[~seen])
        assert not np.array_equal(pixels(other)[seen], warped.rgb[seen])


def test_half_precision_leaves_wan_s_decoder_whole(wan: Path) -> None:
    options = wan_vace_warp.VaceOptions(**{**TINY, "model": str(wan), "dtype": "bfloat16", "guidance": 1.0})
    loaded = load("wan_vace_warp", WanVACEPipeline, options, (), float32=("vae",))
    assert (loaded.pipe.vae.dtype, loaded.pipe.transformer.dtype) == (torch.float32, torch.bfloat16)
    holes = np.ones((5, 64, 64), dtype=np.bool_)
    grey = np.full((5, 64, 64, 3), 127, np.uint8)
    audience = Audience([spec("turn left 5 degrees")])
    assert VaceSampler(loaded, 2, 1.0).sample(grey, holes, ("", ""), 0, audience).std() > 0


def test_without_depth_and_without_a_model_of_it_the_camera_can_only_turn(
    wan_world: wan_vace_warp.VaceWarpWorld,
) -> None:
    photo = replace(motorcycle(), depth=None)
    assert len(list(wan_world.imagine(spec("turn left 5 degrees", photo)))) == 2
    with pytest.raises(InvalidInputError, match="needs the photo's depth to move"):
        list(wan_world.imagine(spec("move left 0.2 meters", photo)))
    unknown = replace(photo, depth=np.zeros((250, 370), np.float32))
    with pytest.raises(InvalidInputError, match="unknown at every pixel"):
        list(wan_world.imagine(spec("turn left 5 degrees", unknown)))


def test_a_depth_model_stands_in_for_the_photo_s_own(wan: Path, wan_world: wan_vace_warp.VaceWarpWorld) -> None:
    asked = []

    class Wall:
        digest = "0" * 64

        def estimate(self, pixels: NDArray[np.uint8], intrinsics: NDArray[np.float64]) -> NDArray[np.float32]:
            asked.append(None)
            assert np.array_equal(intrinsics, FITTED.intrinsics)
            return np.full(pixels.shape[:2], 2, dtype=np.float32)

    options = wan_vace_warp.VaceOptions(model=str(wan), **TINY)
    world = wan_vace_warp.VaceWarpWorld(wan_world.info, options, 4, wan_world.sampler, depth=Wall())
    photo = replace(motorcycle(), depth=None)
    moved = list(world.imagine(spec("move left 0.2 meters", photo)))[-1]
    wall = Relief(FITTED.pixels, np.full((64, 64), 2, np.float32), FITTED.intrinsics).view(moved.c2w)
    assert np.array_equal(pixels(moved)[wall.seen], wall.rgb[wall.seen])
    list(world.imagine(spec("move right 0.2 meters", photo)))
    list(world.imagine(spec("turn right 5 degrees", photo)))
    assert len(asked) == 1  # once for all paths, and not for a turn


def test_a_path_that_leads_away_is_rejected_before_the_model_runs(wan_world: wan_vace_warp.VaceWarpWorld) -> None:
    told: list[int] = []
    with pytest.raises(GateRejectedError) as caught:
        list(wan_world.imagine(spec("turn left 60 degrees", on_step=lambda done, _: told.append(done))))
    assert (caught.value.gate, caught.value.figure < 0.3, told) == ("unobserved", True, [])
