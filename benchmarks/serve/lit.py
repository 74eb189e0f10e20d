"""The comparator behind LitServe, with its dynamic batching: `python -m benchmarks.serve.lit CHECKPOINT PORT`."""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-not-found,import-untyped,unused-ignore]
from PIL import Image

from benchmarks.serve.generating import Generator
from world2vlm.images import decode_image

# As many as our service answers at once; the wait for them is short, for the sake of one client alone.
_BATCH = 8
_WAIT_S = 0.002

Pair = tuple[list[Image.Image], str]


class StudentApi(litserve.LitAPI):  # type: ignore[misc]
    """Free text in, text and its number of tokens out."""

    def __init__(self, folder: Path) -> None:
        super().__init__(max_batch_size=_BATCH, batch_timeout=_WAIT_S)
        self._folder = folder

    def setup(self, device: str) -> None:
        """Load the checkpoint in the worker."""
        self._generator = Generator(self._folder)

    def decode_request(self, request: dict[str, Any]) -> Pair:
        """Read a request."""
        return [decode_image(base64.b64decode(data)) for data in request["images"]], request["text"]

    def batch(self, inputs: list[Pair]) -> list[Pair]:
        """Leave a batch as it is: the processor pads it."""
        return inputs

    def predict(self, batch: list[Pair]) -> list[tuple[str, int]]:
        """Answer a batch."""
        return self._generator.answer([views for views, _ in batch], [text for _, text in batch])

    def unbatch(self, output: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """Leave the answers as they are."""
        return output

    def encode_response(self, output: tuple[str, int]) -> dict[str, Any]:
        """Write a response."""
        return {"text": output[0], "tokens": output[1]}


def main() -> None:
    """Serve a checkpoint folder until killed."""
    server = litserve.LitServer(StudentApi(Path(sys.argv[1])), accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
