"""The student's forward passes on onnxruntime."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from world2vlm.errors import PreconditionError
from world2vlm.vlm.network import PREFIX_BYTES, Chunk, RowCache
from world2vlm.vlm.onnx_cache import EXTEND, READ, WEIGHTS
from world2vlm.vlm.processor import ClipProcessor

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DTYPES = {torch.float32: np.float32, torch.int64: np.int64}
_INPUTS_BEFORE_PAST = 3
_ERRORS_ONLY = 3


class TableCache(RowCache):
    """A `RowCache` in one piece, which a forward pass can take its past from at once.

    Attributes:
        table: keys and values of all layers (layers, 2, rows, heads, length, dim), float32: an array, or a tensor where
            they are on a GPU.
    """

    def __init__(self, table: Any) -> None:
        self.table = table
        self.keys, self.values = list(table[:, 0]), list(table[:, 1])

    def past(self, rows: slice, length: int) -> Any:
        """The first `length` keys and values of some rows (2 layers, B, heads, length, dim), a layer's side by side."""
        chosen = self.table[:, :, rows, :, :length]
        return chosen.reshape(-1, *chosen.shape[2:])

    def append(self, chunk: Chunk, new: Any) -> None:
        """Write a chunk's keys and values (layers, 2, B, heads, C, dim) behind each row's."""
        for index, (tokens, start) in enumerate(zip(chunk.tokens, chunk.starts, strict=True)):
            end = start + len(tokens)
            self.table[:, :, chunk.first + index, :, start:end] = new[:, :, index, :, : len(tokens)]

    def write_prefix(self, row: int, prefix: Any) -> int:
        """See `RowCache.write_prefix`."""
        length: int = prefix.shape[3]
        self.table[:, :, row, :, :length] = prefix
        return length

    def move(self, source: int, target: int, length: int) -> None:
        """See `RowCache.move`."""
        self.table[:, :, target, :, :length] = self.table[:, :, source, :, :length]


class OnnxNetwork:
    """A student's two graphs on onnxruntime: a `world2vlm.vlm.network.Network`.

    Args:
        export: folder with the graphs (`world2vlm.vlm.onnx_cache`).
        weights: the checkpoint's, float32, by name; both sessions use this memory, nothing else may write to it.
        processor: the checkpoint's own.
        device: `cpu`, or `cuda` where onnxruntime has been built for it.

    Raises:
        PreconditionError: onnxruntime cannot run the graphs, or not on this device.
    """

    prefix_bytes = PREFIX_BYTES

    def __init__(
        self, export: Path, weights: Mapping[str, torch.Tensor], processor: ClipProcessor, device: str = "cpu"
    ) -> None:
        self._processor = processor
        self._device = torch.device(device)
        self._is_on_cpu = self._device.type == "cpu"
        self.prefix_length = len(processor.clip_ids())
        # The sessions refer to these, and do not keep them alive.
        self._values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(weight.numpy()) for name, weight in weights.items()
        }
        used = json.loads((export / WEIGHTS).read_bytes())
        self._read, self._extend = (self._open(export / name, used[name]) for name in (READ, EXTEND))
        self._past = [past.name for past in self._extend.get_inputs()[_INPUTS_BEFORE_PAST:]]
        _, self._heads, _, self._dim = self._extend.get_inputs()[-1].shape
        self._vocabulary: int = self._extend.get_outputs()[0].shape[1]

    @property
    def _layers(self) -> int:
        return len(self._past) // 2

    def new_cache(self, rows: int, length: int) -> TableCache:
        """See `Network.new_cache`."""
        table = np.zeros((self._layers, 2, rows, self._heads, length, self._dim), np.float32)
        return TableCache(self._place(table))

    def read(self, clips: Sequence[NDArray[np.uint8]]) -> list[Any]:
        """See `Network.read`."""
        patches = self._place(self._processor.clip_patches(np.stack(clips)).numpy())
        shape = (len(clips), self._layers, 2, self._heads, self.prefix_length, self._dim)
        (prefixes,) = self._run(self._read, {"patches": patches}, {"prefixes": shape})
        # Each in memory of its own, so that none keeps the others alive.
        return [prefix.copy() if self._is_on_cpu else prefix.clone() for prefix in prefixes]

    def extend(self, cache: RowCache, chunk: Chunk) -> torch.Tensor:
        """See `Network.extend`."""
        assert isinstance(cache, TableCache)
        count, lengths = len(chunk.tokens), [len(row) for row in chunk.tokens]
        tokens = np.zeros((count, max(lengths)), np.int64)
        for row, (known, length) in enumerate(zip(chunk.tokens, lengths, strict=True)):
            tokens[row, :length] = known
        numbers = {"tokens": tokens, "starts": np.array(chunk.starts), "lasts": np.array(lengths) - 1}
        inputs = {name: self._place(array) for name, array in numbers.items()}
        past = cache.past(slice(chunk.first, chunk.first + count), max(chunk.starts))
        inputs.update(zip(self._past, past, strict=True))
        shapes = {
            "logits": (count, self._vocabulary),
            "new": (self._layers, 2, count, self._heads, max(lengths), self._dim),
        }
        logits, new = self._run(self._extend, inputs, shapes)
        cache.append(chunk, new)
        return torch.as_tensor(logits)

    def _place(self, array: NDArray[Any]) -> Any:
        """An array as it is, or as a tensor on the GPU: on a CPU torch would take longer than what it does for us."""
        return array if self._is_on_cpu else torch.from_numpy(array).to(self._device)

    def _open(self, path: Path, weights: list[str]) -> Any:
        provider = _PROVIDERS.get(self._device.type, "")
        if provider not in onnxruntime.get_available_providers():
            raise PreconditionError(f"this onnxruntime does not run on {self._device.type!r}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        # It keeps a plan for each shape that it has ever seen, and a student sees new ones for ever.
        options.enable_mem_pattern = False
        # Threads that wait would take time from whatever loads beside.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_external_initializers(weights, [self._values[name] for name in weights])
        try:
            return onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # onnxruntime has an exception class for each status, with no common base
            raise PreconditionError(f"onnxruntime cannot run {path.name} ({type(error).__name__})") from error

    def _run(self, session: Any, inputs: Mapping[str, Any], outputs: Mapping[str, tuple[int, ...]]) -> Sequence[Any]:
        """Run on arrays, or on tensors on a GPU: none of them is copied but what does not lie in one piece."""
        if self._is_on_cpu:  # for so short a run the binding would take a third of the time
            found: Sequence[Any] = session.run(list(outputs), inputs)
            return found
        binding, index = session.io_binding(), self._device.index or 0
        held = {name: tensor.contiguous() for name, tensor in inputs.items()}
        results = {name: torch.empty(shape, device=self._device) for name, shape in outputs.items()}
        for tensors, bind in ((held, binding.bind_input), (results, binding.bind_output)):
            for name, tensor in tensors.items():
                bind(name, self._device.type, index, _DTYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
        torch.cuda.synchronize(self._device)
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return list(results.values())
