"""The plain comparator: a gRPC server of the student's own protocol that locks, and calls `generate()`.

`python -m benchmarks.serve.plain CHECKPOINT`
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from benchmarks.serve.generating import Generator
from world2vlm.images import decode_image
from world2vlm.v1 import student_pb2, student_pb2_grpc

_WORKERS = 16


class PlainServicer(student_pb2_grpc.StudentServiceServicer):
    """Answers free text, one question at a time."""

    def __init__(self, folder: Path) -> None:
        self._generator = Generator(folder)
        self._lock = threading.Lock()

    def Reason(self, request: student_pb2.ReasonRequest, context: Any) -> student_pb2.ReasonResponse:
        """Answer one question."""
        views = [decode_image(image.data) for image in request.images]
        with self._lock:
            [(text, tokens)] = self._generator.answer([views], [request.text])
        return student_pb2.ReasonResponse(text=text, answer_tokens=tokens)


def main() -> None:
    """Serve a checkpoint folder on a free port until killed."""
    server = grpc.server(ThreadPoolExecutor(_WORKERS))
    add: Any = student_pb2_grpc.add_StudentServiceServicer_to_server
    add(PlainServicer(Path(sys.argv[1])), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"serving on port {port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
