"""The student as a Triton model: one response for each request."""

import triton_python_backend_utils

from student_service.triton.shim import UnaryModel


class TritonPythonModel(UnaryModel):
    """What Triton's stub looks for."""

    backend = triton_python_backend_utils
