"""`report.html`: one self-contained file, without scripts and without anything from elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from world2vlm.report import pictures
from world2vlm.report.asked import Asked
from world2vlm.report.charts import latency_chart, reliability_chart, score_chart
from world2vlm.report.console import best_baseline, describe_outcome, describe_swap
from world2vlm.report.pictures import Exhibit, Strip
from world2vlm.tasks import TASKS

_DOES = {
    "A1": "how far did the camera move",
    "A2": "how far did it turn",
    "A3": "which sequence of actions",
    "A4": "is this claim about the motion true",
    "D1": "where will the object be",
    "D2": "will it leave the view",
    "D3": "which actions, seen on one object",
    "D4": "is it the same object",
}


def render_page(
    report: Mapping[str, Any], asked: Sequence[Asked], strips: Sequence[Strip], exhibits: Sequence[Exhibit]
) -> str:
    """Render the page.

    Args:
        report: as `build_report` makes it.
        asked: the questions asked meanwhile, in order.
        strips: imagined trajectories.
        exhibits: held-out questions with answers.
    """
    environment = Environment(
        loader=PackageLoader("world2vlm.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        report=report,
        outcome=describe_outcome(report),
        swap_line=describe_swap(report["swap"]),
        does={code: _DOES[code] for code in TASKS},
        best=best_baseline,
        strips=strips,
        exhibits=exhibits,
        colours={"given": pictures.GIVEN, "true": pictures.TRUE, "before": pictures.BEFORE, "after": pictures.AFTER},
        # Made of numbers and escaped names.
        scores=Markup(score_chart(report)),
        reliability=Markup(reliability_chart(report["calibration"])),
        latency=Markup(latency_chart(asked, report["swap"])),
    )
