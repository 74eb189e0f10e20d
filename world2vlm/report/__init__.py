"""What a demonstration leaves behind: `report.json`, `report.html`, and a table on the console."""

from world2vlm.report.build import Timings, build_report
from world2vlm.report.console import print_report
from world2vlm.report.page import render_page

__all__ = ["Timings", "build_report", "print_report", "render_page"]
