"""The student as a Triton model: a response for each piece of text, then one with the whole answer."""

import triton_python_backend_utils

from student_service.triton.shim import StreamModel


class TritonPythonModel(StreamModel):
    """What Triton's stub looks for."""

    backend = triton_python_backend_utils
