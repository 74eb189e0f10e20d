"""Pictures of imagined trajectories: the strip and the animation of one, and the contact sheet of many."""

from teacher_service.pictures.animation import encode_animation
from teacher_service.pictures.sheet import draw_sheet
from teacher_service.pictures.strip import draw_strip

__all__ = ["draw_sheet", "draw_strip", "encode_animation"]
