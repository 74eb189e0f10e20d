from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from world2vlm.bundles import Bundle, Frame, GateVerdict, write_bundle
from world2vlm.reliability import Reliability, measure, reliability_table, wilson
from world2vlm.report.worlds import worlds_table
from world2vlm.store import Store


def frame(passed: bool = True, **scores: float) -> Frame:
    gates = (GateVerdict("yaw", scores.get("gate_yaw_error_deg", 0.0), passed, "" if passed else "off"),)
    return Frame(b"png", np.eye(4), np.eye(3), (8, 8), scores=scores, gates=gates)


def bundle(name: str, frames: list[Frame], **params: object) -> Bundle:
    start = Frame(b"png", np.eye(4), np.eye(3), (8, 8), gates=(GateVerdict("cycle", 0.0, False, "differs"),))
    return Bundle("scene", name, (start, *frames), {"world": "sana", "world_digest": "d" * 64, **params})


def test_wilson_s_interval_is_the_published_one() -> None:
    # Newcombe (1998), table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_anchors_and_views_that_nobody_judged_do_not_count() -> None:
    silent = Frame(b"png", np.eye(4), np.eye(3), (8, 8), scores={"gate_yaw_error_deg": 90.0})
    found = measure(
        [
            bundle("a", [frame(gate_yaw_error_deg=1.0), silent]),
            bundle("b", [frame(False, gate_yaw_error_deg=30.0), frame(gate_reprojection_error_m=0.1)]),
        ]
    )
    assert (found.accepted, found.judged, found.accept_rate) == (2, 3, pytest.approx(2 / 3))
    assert (found.error_deg, found.error_m) == (1.0, 0.1)


def test_the_weight_falls_with_errors_and_grows_with_acceptance_and_evidence() -> None:
    weights = [Reliability(accepted, 100, 1.0, 0.05).weight for accepted in range(0, 101, 10)]
    assert weights == sorted(weights)
    assert weights[0] == pytest.approx(0, abs=1e-12)
    assert [Reliability(90, 100, error, None).weight for error in (0.0, 2.0, 5.0, 20.0)] == pytest.approx(
        [wilson(90, 100)[0] / (1 + (error / 5) ** 2) for error in (0.0, 2.0, 5.0, 20.0)]
    )
    assert Reliability(90, 100, None, 0.25).weight == pytest.approx(Reliability(90, 100).weight / 2)
    assert Reliability(9, 10).weight < Reliability(900, 1000).weight < 1
    assert Reliability(exact=True).weight == 1


@pytest.mark.parametrize("url", ["{}", "memory://{}"])
def test_the_table_sums_up_each_world_s_kept_and_rejected_bundles(tmp_path: Path, url: str) -> None:
    write_bundle(tmp_path / "bundles", bundle("a", [frame(gate_yaw_error_deg=2.0)]))
    write_bundle(tmp_path / "rejected", bundle("b", [frame(), frame(False)]))
    write_bundle(tmp_path / "bundles", bundle("c", [frame()], world="renderer", generative=False))
    store = Store(url.format(tmp_path), cache=tmp_path / "cache")
    if not store.is_local:
        for path in Store(tmp_path).list():
            store.upload(tmp_path / path, path)
    exact, sana = reliability_table(store)
    assert (exact.world, exact.bundles, exact.rejected, exact.reliability.weight) == ("renderer", 1, 0, 1.0)
    assert (sana.world, sana.bundles, sana.rejected) == ("sana", 1, 1)
    assert (sana.reliability.accepted, sana.reliability.judged, sana.reliability.error_deg) == (2, 3, 2.0)
    console = Console(width=120, record=True)
    console.print(worlds_table([exact, sana]))
    shown = console.export_text()
    assert "0.667" in shown and "0.21-0.94" in shown


def test_a_store_without_bundles_has_no_worlds(tmp_path: Path) -> None:
    assert reliability_table(Store(tmp_path)) == []
