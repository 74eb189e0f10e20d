"""The student model: load a checkpoint, build inputs from images and a question, generate an answer.

Used by the trainer and the student service alike, so that what was evaluated is what is served. The only part of
`world2vlm` that imports torch.
"""

from world2vlm.student_config import StudentConfig
from world2vlm.vlm.answering import Generation, Prompt
from world2vlm.vlm.architecture import build_student
from world2vlm.vlm.student import StudentModel

__all__ = ["Generation", "Prompt", "StudentConfig", "StudentModel", "build_student"]
