"""The student's models and their versions, in Triton's terms."""

from collections.abc import Sequence

from tritonclient.grpc import service_pb2

from student_service.kserve.tensors import MODELS


def index(versions: Sequence[int], serving: int | None, *, ready_only: bool) -> service_pb2.RepositoryIndexResponse:
    """The models at all published versions; the one that serves is READY, the others are not loaded."""
    response = service_pb2.RepositoryIndexResponse()
    for name in MODELS:
        for version in versions:
            if version == serving:
                response.models.add(name=name, version=str(version), state="READY")
            elif not ready_only:
                response.models.add(name=name, version=str(version), state="UNAVAILABLE", reason="not loaded")
    return response
