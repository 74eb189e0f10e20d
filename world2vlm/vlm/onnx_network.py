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
        table: keys and values of all layers (layers, 2, rows, heads, length, dim).
    """

    def __init__(self, layers: int, rows: int, heads: int, length: int, dim: int, like: torch.Tensor) -> None:
        """Allocate; `like` gives dtype and device."""
        self.table = like.new_zeros(layers, 2, rows, heads, length, dim)
        self.keys, self.values = list(self.table[:, 0]), list(self.table[:, 1])

    def past(self, rows: slice, length: int) -> torch.Tensor:
        """The first `length` keys and values of some rows (2 layers, B, heads, length, dim), a layer's side by side."""
        return self.table[:, :, rows, :, :length].flatten(0, 1).contiguous()

    def append(self, chunk: Chunk, new: torch.Tensor) -> None:
        """Write a chunk's keys and values (layers, 2, B, heads, C, dim) behind each row's."""
        for index, (tokens, start) in enumerate(zip(chunk.tokens, chunk.starts, strict=True)):
            end = start + len(tokens)
            self.table[:, :, chunk.first + index, :, start:end] = new[:, :, index, :, : len(tokens)]

    def write_prefix(self, row: int, prefix: torch.Tensor) -> int:
        """See `RowCache.write_prefix`."""
        length = prefix.shape[3]
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
        like = torch.zeros(1, device=self._device)
        return TableCache(self._layers, rows, self._heads, length, self._dim, like)

    def read(self, clips: Sequence[NDArray[np.uint8]]) -> list[torch.Tensor]:
        """See `Network.read`."""
        patches = self._processor.clip_patches(np.stack(clips)).to(self._device)
        shape = (len(clips), self._layers, 2, self._heads, self.prefix_length, self._dim)
        (prefixes,) = self._run(self._read, {"patches": patches}, {"prefixes": shape})
        return [prefix.clone() for prefix in prefixes]

    def extend(self, cache: RowCache, chunk: Chunk) -> torch.Tensor:
        """See `Network.extend`."""
        assert isinstance(cache, TableCache)
        count, width = len(chunk.tokens), max(map(len, chunk.tokens))
        tokens = [[*row, *[0] * (width - len(row))] for row in chunk.tokens]
        inputs = {
            "tokens": torch.tensor(tokens, device=self._device),
            "starts": torch.tensor(chunk.starts, device=self._device),
            "lasts": torch.tensor([len(row) - 1 for row in chunk.tokens], device=self._device),
        }
        past = cache.past(slice(chunk.first, chunk.first + count), max(chunk.starts))
        inputs.update(zip(self._past, past, strict=True))
        shapes = {
            "logits": (count, self._vocabulary),
            "new": (self._layers, 2, count, self._heads, width, self._dim),
        }
        logits, new = self._run(self._extend, inputs, shapes)
        cache.append(chunk, new)
        return logits

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

    def _run(
        self, session: Any, inputs: Mapping[str, torch.Tensor], outputs: Mapping[str, tuple[int, ...]]
    ) -> list[torch.Tensor]:
        """Run on torch's memory: no input is copied but what does not lie in one piece."""
        held = {name: tensor.contiguous() for name, tensor in inputs.items()}
        device, index = self._device.type, self._device.index or 0
        if device == "cpu":  # for so short a run the binding would take a third of the time
            found = session.run(list(outputs), {name: tensor.numpy() for name, tensor in held.items()})
            return [torch.from_numpy(array) for array in found]
        binding = session.io_binding()
        results = {name: torch.empty(shape, device=self._device) for name, shape in outputs.items()}
        for tensors, bind in ((held, binding.bind_input), (results, binding.bind_output)):
            for name, tensor in tensors.items():
                bind(name, device, index, _DTYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
        torch.cuda.synchronize(self._device)
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return list(results.values())
