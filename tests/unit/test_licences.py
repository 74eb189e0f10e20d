"""Nobody learns from frames whose terms were not acknowledged, or are not known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tests.dataset_kit import toy_dataset, toy_records
from trainer.cli import register
from trainer.evaluating import export_held_out
from trainer.licensing import pick_permitted
from world2vlm import convert
from world2vlm.bundles import REJECTED, Bundle, Frame, find_bundles, write_bundle
from world2vlm.datasets import Dataset, load_dataset, publish_dataset
from world2vlm.errors import DataCorruptedError, InvalidInputError, PreconditionError
from world2vlm.images import encode_png
from world2vlm.licences import STRICT, Policy, Terms, distinct, stamp
from world2vlm.settings import TrainerSettings
from world2vlm.store import Store
from world2vlm.worlds import WorldInfo

FREE = WorldInfo("free", "Nothing is asked", True, False, True, False, "Apache-2.0", True, "ab" * 32)
SVC = replace(
    FREE,
    name="svc",
    licence="Stability AI Community",
    outputs_may_train=False,
    outputs_may_be_sold=False,
    terms="No output may improve a foundational generative model (https://example.org/licence).",
)
NOT_IN_EUROPE = replace(FREE, name="hy", excluded_regions=("EU", "GB", "KR"))


def terms(info: WorldInfo) -> Terms:
    return Terms.read(json.loads(json.dumps(stamp(info))))


def test_unrestricted_worlds_need_no_word() -> None:
    STRICT.check([terms(FREE)])
    Policy(region="DE", commercial=True).check([terms(FREE)])


@pytest.mark.parametrize(
    "info",
    [
        SVC,
        NOT_IN_EUROPE,
        replace(FREE, name="a", outputs_may_train=False),
        replace(FREE, name="b", outputs_may_be_sold=False),
        replace(FREE, name="c", terms="Say where it is from."),
    ],
    ids=lambda info: info.name,
)
def test_every_restriction_needs_the_world_s_own_acknowledgement(info: WorldInfo) -> None:
    for policy in (STRICT, Policy(frozenset({"another"}))):
        with pytest.raises(PreconditionError) as caught:
            policy.check([terms(FREE), terms(info)])
        said = str(caught.value)
        assert f"'{info.name}'" in said and f"WORLD2VLM_ACCEPTED_TERMS='[\"{info.name}\"]'" in said
        assert info.terms.rstrip(".") in said and info.licence in said
    Policy(frozenset({info.name})).check([terms(FREE), terms(info)])


@pytest.mark.parametrize("region", ["EU", "DE", "FR", "GB", "KR"])
def test_where_the_terms_exclude_us_no_acknowledgement_helps(region: str) -> None:
    with pytest.raises(PreconditionError, match=f"may not be used in {region}"):
        Policy(frozenset({"hy"}), region).check([terms(NOT_IN_EUROPE)])
    Policy(frozenset({"hy"}), "US").check([terms(NOT_IN_EUROPE)])


def test_commercial_use_is_refused_where_the_terms_forbid_it() -> None:
    with pytest.raises(PreconditionError, match=r"commercial.*'svc'.*may not be used commercially"):
        Policy(frozenset({"svc"}), commercial=True).check([terms(SVC)])
    Policy(frozenset({"svc"})).check([terms(SVC)])


@pytest.mark.parametrize(
    "stamped",
    [
        {},
        {"world": "dream"},
        {"world": "dream", "licence": "Apache-2.0"},
        {"world": "dream", "licence": "MIT", "terms": {"outputs_may_train": True}},
        {"world": "renderer", "licence": "secret"},
        {"world": "geometric"},
    ],
)
def test_what_is_not_known_is_refused(stamped: dict[str, Any]) -> None:
    found = Terms.read(stamped)
    assert not found.known
    with pytest.raises(PreconditionError, match="nobody says"):
        STRICT.check([found])
    with pytest.raises(PreconditionError, match="nobody says"):
        Policy(frozenset({"another"}), commercial=True).check([found])
    Policy(frozenset({stamped.get("world", "unknown")})).check([found])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("outputs_may_train", "false"),
        ("outputs_may_be_sold", 1),
        ("excluded_regions", "EU"),
        ("excluded_regions", ["E", "U"]),
        ("excluded_regions", ["eu"]),
        ("excluded_regions", [["EU"]]),
        ("excluded_regions", None),
        ("excluded_regions", {"EU": True}),
        ("text", None),
    ],
)
def test_malformed_terms_are_refused_whoever_accepts_them(key: str, value: Any) -> None:
    stamped = stamp(FREE)
    stamped["terms"][key] = value
    with pytest.raises(DataCorruptedError, match=rf"by the world 'free' cannot be read: malformed are terms\.{key}\."):
        Terms.read(stamped)


@pytest.mark.parametrize(
    "stamped",
    [
        {"world": 3},
        {"world": "dream", "licence": ["Apache-2.0"]},
        {"world": "renderer", "licence": "Apache-2.0", "terms": None},
        {"world": "geometric", "licence": "Apache-2.0", "terms": []},
        {"world": "dream", "licence": "MIT", "terms": "free"},
        "dream",
    ],
)
def test_malformed_stamps_are_refused(stamped: Any) -> None:
    with pytest.raises(DataCorruptedError, match="world"):
        Terms.read(stamped)


def test_a_world_whose_regions_are_one_string_is_refused_and_not_split_into_letters() -> None:
    careless: Any = "EU"
    info = replace(FREE, excluded_regions=careless)
    for told in (info, convert.world_from_proto(convert.world_to_proto(info))):
        with pytest.raises(DataCorruptedError, match="excluded_regions"):
            terms(told)


@pytest.mark.parametrize("licence", ["Apache-2.0", "Apache-2.0; frames keep the photo's own terms"])
@pytest.mark.parametrize("world", ["renderer", "geometric"])
def test_bundles_of_our_own_worlds_from_before_are_free(world: str, licence: str) -> None:
    STRICT.check([Terms.read({"world": world, "licence": licence, "world_digest": "ab"})])


def test_terms_cross_the_wire() -> None:
    for info in (FREE, SVC, NOT_IN_EUROPE, replace(SVC, lanes=1)):
        assert convert.world_from_proto(convert.world_to_proto(info)) == info


def test_a_teacher_that_says_nothing_of_sales_forbids_them() -> None:
    message = convert.world_to_proto(FREE)
    message.ClearField("outputs_may_be_sold")
    assert terms(convert.world_from_proto(message)).is_restricted


def test_stamps_are_listed_once() -> None:
    assert len(distinct([stamp(SVC), stamp(FREE), stamp(SVC)])) == 2


def test_settings_carry_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD2VLM_ACCEPTED_TERMS", '["svc", "hy"]')
    monkeypatch.setenv("WORLD2VLM_REGION", "US")
    assert TrainerSettings.load().policy == Policy(frozenset({"svc", "hy"}), "US", False)
    monkeypatch.setenv("WORLD2VLM_REGION", "Germany")
    with pytest.raises(InvalidInputError, match="region"):
        TrainerSettings.load()


# Datasets


def dataset_of(store: Store, info: WorldInfo) -> Dataset:
    records = toy_records(store.local("bundles") if store.exists("bundles") else Path(store.root) / "bundles")
    return publish_dataset(store, {"train": records, "test": records}, {"worlds": [stamp(info)]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize("use", [pick_permitted, lambda *a: export_held_out(a[0], a[1], Path(a[0].root) / "x", a[2])])
def test_a_dataset_is_permitted_by_its_manifest(store: Store, use: Callable[[Store, str, Policy], object]) -> None:
    dataset = dataset_of(store, SVC)
    with pytest.raises(PreconditionError, match=r"'svc'.*accepted_terms"):
        use(store, dataset.digest, STRICT)
    use(store, dataset.digest, Policy(frozenset({"svc"})))


def test_an_older_dataset_is_permitted_by_its_bundles(store: Store) -> None:
    dataset = toy_dataset(store)
    assert "worlds" not in dataset.info
    assert pick_permitted(store, dataset.digest, STRICT) == dataset
    bundle = next(iter(find_bundles(Path(store.root) / "bundles")))
    (bundle / "traj.json").write_text((bundle / "traj.json").read_text().replace("renderer", "dream"))
    with pytest.raises(PreconditionError, match="'dream'"):
        pick_permitted(store, dataset.digest, STRICT)


def test_a_dataset_from_elsewhere_is_unknown(store: Store) -> None:
    records = toy_records(Path(store.root) / "bundles")
    dataset = publish_dataset(store, {"train": [replace(records[2], images=("elsewhere.png",))]}, {})
    with pytest.raises(PreconditionError, match="'unknown'"):
        pick_permitted(store, dataset.digest, STRICT)
    pick_permitted(store, dataset.digest, Policy(frozenset({"unknown"})))


# Commands


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD2VLM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("WORLD2VLM_TRACKERS", "[]")
    app = typer.Typer()
    register(app, typer.Typer())

    def invoke(*arguments: str) -> str:
        return CliRunner().invoke(app, arguments, catch_exceptions=False).stdout

    return invoke


def test_training_refuses_what_was_not_acknowledged(store: Store, run: Callable[..., str]) -> None:
    dataset_of(store, SVC)
    with pytest.raises(PreconditionError, match=r"'svc'.*WORLD2VLM_ACCEPTED_TERMS"):
        run("train", "--recipe", "smoke", "--steps", "1")
    assert not store.exists("checkpoints/student/2")


def labelled(folder: Path, info: WorldInfo, **params: Any) -> Path:
    frames = tuple(
        Frame(encode_png(np.zeros((8, 8, 3), np.uint8)), pose, np.eye(3), (8, 8)) for pose in (np.eye(4), np.eye(4))
    )
    return write_bundle(folder, Bundle("photo", f"{info.name}{len(params)}", frames, {**stamp(info), **params}))


def test_labelling_refuses_what_was_not_acknowledged(
    tmp_path: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(tmp_path / "bundles", FREE)
    labelled(tmp_path / "bundles", SVC)
    arguments = ["label", str(tmp_path / "bundles"), "--out", str(tmp_path / "tasks.jsonl")]
    with pytest.raises(PreconditionError, match="'svc'"):
        run(*arguments)
    assert not (tmp_path / "tasks.jsonl").exists()
    monkeypatch.setenv("WORLD2VLM_ACCEPTED_TERMS", '["svc"]')
    run(*arguments)
    assert (tmp_path / "tasks.jsonl").exists()


def test_what_a_gate_rejected_is_never_labelled(tmp_path: Path, run: Callable[..., str]) -> None:
    labelled(tmp_path / "bundles", FREE, **{REJECTED: {"gate": "yaw", "figure": 3.0, "message": "it turns right"}})
    with pytest.raises(InvalidInputError, match="no bundles"):
        run("label", str(tmp_path / "bundles"), "--out", str(tmp_path / "tasks.jsonl"))


def test_a_published_dataset_keeps_its_worlds(store: Store) -> None:
    assert load_dataset(store, dataset_of(store, SVC).digest).info["worlds"] == [stamp(SVC)]
