"""A tiny dataset of painted rectangles, with bundles on disk: what training needs, in milliseconds."""

from pathlib import Path

import numpy as np

from tests.vlm_kit import toy_view
from world2vlm.actions import parse_actions
from world2vlm.bundles import Bundle, Frame, write_bundle
from world2vlm.datasets import Dataset, publish_dataset
from world2vlm.images import encode_png
from world2vlm.records import TaskRecord
from world2vlm.store import Store
from world2vlm.tasks import Question

SIZE = 48


def toy_records(bundles: Path, scenes: int = 3, seed: int = 0) -> list[TaskRecord]:
    """A turn of the camera in each scene, asked about as A2, D1 and D2; the bundles are written to `bundles`."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(scenes):
        (first, _, seen), (second, _, then) = toy_view(rng, SIZE), toy_view(rng, SIZE)
        actions = tuple(parse_actions(f"turn left {30 + 10 * index} degrees"))
        frames = (
            Frame(encode_png(first), np.eye(4), np.eye(3), (SIZE, SIZE), objects=tuple(seen)),
            Frame(encode_png(second), np.eye(4), np.eye(3), (SIZE, SIZE), actions, objects=tuple(then)),
        )
        bundle = Bundle(f"room_{seed}_{index}", "000", frames, {"world": "renderer", "licence": "Apache-2.0"})
        write_bundle(bundles, bundle)
        images = [f"{bundle.relative_path.as_posix()}/frames/{number:03d}.png" for number in range(2)]
        meta = {"scene": bundle.scene, "actions": str(actions[0])}
        box = Question("D1", actions, seen[0].category, seen[0].box)
        gone = Question("D2", actions, seen[0].category, seen[0].box)
        found += [
            TaskRecord.create("A2", Question("A2").text, str(actions[0]), images, meta),
            TaskRecord.create("D1", box.text, str(then[0].box), images, meta),
            TaskRecord.create("D2", gone.text, "yes" if index % 2 else "no", images[:1], meta),
        ]
    return found


def toy_dataset(store: Store) -> Dataset:
    """Published in a local store, with all three splits."""
    bundles = Path(store.root) / "bundles"
    splits = {name: toy_records(bundles, 3, seed) for seed, name in enumerate(("train", "calibration", "test"))}
    return publish_dataset(store, splits, {"world": "toy"})
