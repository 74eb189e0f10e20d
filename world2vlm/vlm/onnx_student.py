"""A student checkpoint on onnxruntime: its weights come straight from the safetensors, without transformers' model."""

from collections.abc import Mapping
from pathlib import Path

from world2vlm.vlm.network import Network
from world2vlm.vlm.onnx_cache import find_export
from world2vlm.vlm.onnx_network import OnnxNetwork
from world2vlm.vlm.onnx_weights import load_weights
from world2vlm.vlm.processor import ClipProcessor
from world2vlm.vlm.student import ClipStudent, load_processor, read_calibration


class OnnxStudent(ClipStudent):
    """A student whose forward passes onnxruntime does."""

    def __init__(self, network: OnnxNetwork, processor: ClipProcessor, temperatures: Mapping[str, float]) -> None:
        super().__init__(processor, temperatures)
        self._network = network

    @classmethod
    def load(cls, folder: Path, cache: Path, device: str = "cpu") -> "OnnxStudent":
        """Load a checkpoint folder (safetensors only, no remote code).

        Args:
            folder: the checkpoint's files.
            cache: folder of exported graphs; the first checkpoint of an architecture is exported into it.
            device: `cpu` or `cuda`.

        Raises:
            InvalidInputError: the files are no fit student, or a weight is not finite.
            PreconditionError: no graphs can be made or run here.
        """
        processor = load_processor(folder)
        weights = load_weights(folder)
        temperatures = read_calibration(folder)
        network = OnnxNetwork(find_export(folder, processor, cache), weights, processor, device)
        return cls(network, processor, temperatures)

    def network(self) -> Network:
        """See `Student.network`."""
        return self._network
