"""The teacher as a Triton model: a response for each frame of a trajectory."""

import triton_python_backend_utils

from teacher_service.triton.shim import TeacherModel


class TritonPythonModel(TeacherModel):
    """What Triton's stub looks for."""

    backend = triton_python_backend_utils
