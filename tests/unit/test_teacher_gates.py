import numpy as np
import pytest

from teacher_service.gates import check_clearance, check_objects, check_observed
from world2vlm.boxes import Box
from world2vlm.bundles import ObjectView
from world2vlm.errors import GateRejectedError

CHAIR = ObjectView(1, "chair", "red", Box(0, 0, 100, 100), 0.005)


def test_collision_reports_the_least_clearance() -> None:
    assert check_clearance(np.array([0.5, 0.3]), 0.25) == 0.3
    with pytest.raises(GateRejectedError) as caught:
        check_clearance(np.array([0.5, 0.2, 0.4]), 0.25)
    assert (caught.value.gate, caught.value.figure) == ("collision", 0.2)


def test_empty_view_reports_the_largest_object() -> None:
    check_objects([CHAIR], 0.005, 1)
    with pytest.raises(GateRejectedError) as caught:
        check_objects([CHAIR], 0.006, 1)
    assert (caught.value.gate, caught.value.figure) == ("empty_view", 0.005)
    with pytest.raises(GateRejectedError):
        check_objects([], 0.001, 1)


def test_unobserved_reports_the_share() -> None:
    check_observed(0.3, 0.3, 1)
    with pytest.raises(GateRejectedError) as caught:
        check_observed(0.296, 0.3, 1)
    assert (caught.value.gate, caught.value.figure) == ("unobserved", 0.296)
    assert "shows 29.6% of what is in frame 1; at least 30.0% are needed: turn or move less" in str(caught.value)


def test_zero_turns_a_gate_off() -> None:
    assert check_clearance(np.array([-1.0]), 0) == -1.0
    check_objects([], 0, 1)
    check_observed(0, 0, 1)
