from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trainer.promotion import promote
from world2vlm.checkpoints import Registry
from world2vlm.errors import GateRejectedError, UnavailableError, World2VLMError
from world2vlm.store import Store

PASSED = {"decision": {"promote": True, "reasons": []}}
REFUSED = {"decision": {"promote": False, "reasons": ["A1 fell by 0.2"]}}
TRAINING = {"version": 2, "parent": 1}


class Student:
    """A student service that swaps, or fails as often as it is told to."""

    def __init__(self, registry: Registry, *errors: World2VLMError) -> None:
        self._registry = registry
        self._errors = list(errors)

    def swap(self, version: int) -> Mapping[str, Any]:
        if self._errors:
            raise self._errors.pop(0)
        self._registry.set_serving(version, "swap")
        return {"from": 1, "to": version}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(Store(tmp_path / "store"), "student")
    (tmp_path / "checkpoint").mkdir()
    for version in range(1, 4):
        (tmp_path / "checkpoint/weights").write_text(str(version))
        given = {"parent": None, "kind": "full", "dataset_digest": "", "recipe": "", "metrics": {}}
        registry.publish(tmp_path / "checkpoint", key=str(version), **given)
    registry.set_serving(1, "start")
    return registry


def test_what_passed_the_gate_is_swapped_in(registry: Registry) -> None:
    result = promote(PASSED, TRAINING, registry, Student(registry), 1.0)
    assert (result["promoted"], result["from"], result["swap"]) == (True, 1, {"from": 1, "to": 2})
    assert registry.serving() == 2


def test_what_did_not_pass_stays_out_with_the_reasons(registry: Registry) -> None:
    result = promote(REFUSED, TRAINING, registry, Student(registry), 1.0)
    assert (result["promoted"], result["reasons"]) == (False, ["A1 fell by 0.2"])
    assert registry.serving() == 1


def test_a_comparison_with_what_no_longer_serves_promotes_nothing(registry: Registry) -> None:
    registry.set_serving(3, "somebody else")
    result = promote(PASSED, TRAINING, registry, Student(registry), 1.0)
    assert result["promoted"] is False and "3 serves now" in result["reasons"][0]
    assert registry.serving() == 3


def test_promoting_twice_swaps_once(registry: Registry) -> None:
    promote(PASSED, TRAINING, registry, Student(registry), 1.0)
    again = promote(PASSED, TRAINING, registry, Student(registry, AssertionError("asked again")), 1.0)  # type: ignore[arg-type]
    assert again["promoted"] is True


def test_a_refusal_by_the_student_service_is_a_reason(registry: Registry) -> None:
    student = Student(registry, GateRejectedError("canary", 0.0, "the canary says nothing"))
    result = promote(PASSED, TRAINING, registry, student, 1.0)
    assert result["reasons"] == ["the student service refused it: the canary says nothing"]


def test_a_student_service_that_is_away_is_waited_for(registry: Registry) -> None:
    assert promote(PASSED, TRAINING, registry, Student(registry, UnavailableError("away")), 5.0)["promoted"]
    with pytest.raises(UnavailableError):
        registry.set_serving(1, "back")
        promote(PASSED, TRAINING, registry, Student(registry, UnavailableError("away")), 0.0)
