"""The demonstration: one whole round against real processes while a client keeps asking."""

from world2vlm.demo.run import run_demo
from world2vlm.demo.sizes import FULL, MINI, DemoSize

__all__ = ["FULL", "MINI", "DemoSize", "run_demo"]
