"""What a frame's own figures and its gates say, as lines to print or to draw."""

from collections.abc import Iterator, Sequence

from world2vlm.actions import format_actions
from world2vlm.bundles import REJECTED, Bundle, Frame

# Scores that the gates add in detail; what they come to is in their verdicts.
_OF_GATES = "gate_"


def say_scores(frame: Frame) -> str:
    """The world's own figures, for example `observed share 0.83`; empty where there are none."""
    own = ((name, figure) for name, figure in sorted(frame.scores.items()) if not name.startswith(_OF_GATES))
    return ", ".join(f"{_name(name)} {figure:.3g}" for name, figure in own)


def say_passed(frame: Frame) -> str:
    """The figures of the gates that let the frame pass; empty where there are none."""
    return ", ".join(f"{_name(verdict.name)} {verdict.figure:.3g}" for verdict in frame.gates if verdict.passed)


def say_failed(frame: Frame) -> str:
    """The gates that failed the frame, with their reasons; empty where none did."""
    failed = (verdict for verdict in frame.gates if not verdict.passed)
    return "; ".join(f"{_name(each.name)} {each.figure:.3g}: {each.reason}".rstrip(": ") for each in failed)


def say_rejected(bundle: Bundle) -> str:
    """Why a gate rejected the whole trajectory; empty where none did."""
    reason = bundle.params.get(REJECTED)
    return f"rejected by {_name(reason['gate'])} ({reason['figure']:.3g}): {reason['message']}" if reason else ""


def describe_frames(frames: Sequence[Frame]) -> Iterator[str]:
    """Say in a line each what the camera did, what the world's figures are, and what the gates say."""
    for index, frame in enumerate(frames):
        did = format_actions(frame.actions_step) if index else "the anchor"
        passed, failed = say_passed(frame), say_failed(frame)
        said = (say_scores(frame), passed and f"passed {passed}", failed and f"FAILED {failed}")
        yield "  ".join((f"{index:03d}  {did:<24}", "  ".join(filter(None, said)))).rstrip()


def _name(name: str) -> str:
    return name.replace("_", " ")
