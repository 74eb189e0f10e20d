"""The whole system as processes on this machine."""

from world2vlm.local.stack import Stack, StackConfig

__all__ = ["Stack", "StackConfig"]
