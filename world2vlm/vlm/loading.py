"""Loading a checkpoint, whatever its model is."""

from pathlib import Path

from world2vlm.fullsize import is_fullsize
from world2vlm.vlm.answering import Student
from world2vlm.vlm.student import StudentModel


def load_student(folder: Path, device: str = "cpu") -> Student:
    """Load a checkpoint folder: a built-in student, or a model of any family of full size.

    Raises:
        InvalidInputError: the files are no fit student, or a weight is not finite.
    """
    if not is_fullsize(folder):
        return StudentModel.load(folder, device)
    from world2vlm.vlm.fullsize.student import FamilyStudent

    return FamilyStudent.load(folder, device)
