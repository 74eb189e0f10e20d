"""A student as two ONNX graphs: `read.onnx` turns clips into prefixes, `extend.onnx` appends tokens to rows.

The graphs are traced by torch's own exporter from the very modules that `TorchNetwork` runs; norms, rotations and
attention become the one ONNX operator that each of them is. They hold no weights, only their names in the checkpoint's
safetensors: checkpoints of one architecture share them, so that a swap exports nothing.
Run as a module, this file exports one checkpoint: `python -m world2vlm.vlm.onnx_export FOLDER OUT`.
"""

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir
import torch
from torch import nn
from torch.export import Dim
from torch.onnx import ops
from transformers import Cache
from transformers.models.qwen3_vl import modeling_qwen3_vl

from world2vlm.errors import InvalidInputError
from world2vlm.files import canonical_json
from world2vlm.vlm.network import TorchNetwork
from world2vlm.vlm.onnx_cache import EXTEND, READ, UNFIT, WEIGHTS
from world2vlm.vlm.onnx_weights import weight_shapes
from world2vlm.vlm.student import StudentModel

_NICENESS = 10
_OPSET = 23  # the first with these operators


class _Past(Cache):
    """Keys and values before a chunk, as transformers' layers use them, and the chunk's own as they come."""

    def __init__(self, past: Sequence[torch.Tensor]) -> None:
        super().__init__(layers=[])
        self._past = past
        self.new: list[torch.Tensor] = []

    def before(self, layer: int) -> Sequence[torch.Tensor]:
        """A layer's keys and values (B, heads, L, dim) before the chunk, if there are any."""
        return self._past[2 * layer : 2 * layer + 2]

    @property
    def appended(self) -> torch.Tensor:
        """The new keys and values of all layers (layers, 2, B, heads, C, dim)."""
        stacked = torch.stack(self.new)
        return stacked.view(-1, 2, *stacked.shape[1:])

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Not needed: positions are always given."""
        return 0


class _Read(nn.Module):
    """Normalised patches (N, grid^2, D) to prefixes (N, layers, 2, heads, P, dim)."""

    def __init__(self, network: TorchNetwork) -> None:
        super().__init__()
        self.model = network.model
        self._network = network
        self.ids: torch.Tensor
        self.angles: torch.Tensor
        self.register_buffer("ids", torch.tensor(network.prefix_ids)[None], persistent=False)
        positions = torch.from_numpy(network.prefix_positions).T[:, None]
        cos, sin = network.language.rotary_emb(torch.zeros(1), positions)
        # transformers gives each angle twice, for both halves of a head.
        self.register_buffer("angles", torch.stack([cos, sin])[..., : cos.shape[-1] // 2], persistent=False)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """See the class."""
        network, count = self._network, patches.shape[0]
        visual, deepstack = network.see_patches(patches)
        image, length = _image(network), network.prefix_length
        words = network.language.embed_tokens(self.ids).expand(count, -1, -1)
        past = _Past([])
        with _angles(network, *self.angles.expand(-1, count, -1, -1)):
            network.language(
                inputs_embeds=torch.cat([words[:, : image.start], visual, words[:, image.stop :]], dim=1),
                attention_mask=_mask(torch.ones(1, length, length, dtype=torch.bool).tril(), patches.dtype),
                position_ids=self.ids.expand(3, count, -1),
                past_key_values=past,
                visual_pos_masks=self.ids,
                deepstack_visual_embeds=deepstack or None,
            )
        return past.appended.permute(2, 0, 1, 3, 4, 5)


class _Extend(nn.Module):
    """Tokens (B, C), each row's past length (B,) and last new token (B,), and the past, to logits and keys and values.

    The past is each layer's keys and values (B, heads, L, dim) in turn, of which a row's first `starts` count. Returns
    the logits (B, vocabulary) after each row's last new token, and the new keys and values (layers, 2, B, heads, C,
    dim).
    """

    def __init__(self, network: TorchNetwork) -> None:
        super().__init__()
        self.model = network.model
        self._network = network
        self._offset = network.first_position - network.prefix_length

    def forward(
        self, tokens: torch.Tensor, starts: torch.Tensor, lasts: torch.Tensor, past: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See the class."""
        rows, width = tokens.shape
        steps = torch.arange(width)
        before = torch.arange(past[0].shape[2])[None, None] < starts[:, None, None]
        among = steps <= steps[:, None]
        allowed = torch.cat([before.expand(-1, width, -1), among[None].expand(rows, -1, -1)], dim=2)
        cache = _Past(past)
        language, positions = self._network.language, starts[:, None] + steps + self._offset
        # A text's token is at the same place along all three axes.
        turns = positions[..., None].float() * language.rotary_emb.inv_freq
        scale = language.rotary_emb.attention_scaling
        with _angles(self._network, turns.cos() * scale, turns.sin() * scale):
            output = language(
                inputs_embeds=language.embed_tokens(tokens),
                attention_mask=_mask(allowed, past[0].dtype),
                position_ids=positions.expand(3, -1, -1),
                past_key_values=cache,
            )
        hidden = output.last_hidden_state[torch.arange(rows), lasts]
        return self.model.lm_head(hidden).float(), cache.appended


@torch.no_grad()
def export(folder: Path, out: Path) -> None:
    """Write the two graphs of a checkpoint folder's student, and what weights they use, into an existing folder.

    Raises:
        InvalidInputError: the files are no fit student.
    """
    student = StudentModel.load(folder)
    names = _names(student, weight_shapes(folder))
    network = TorchNetwork(student.model, student.processor)
    sizes: Any = student.model.config.text_config
    grid, patch = student.processor.grid, int(student.processor.image_processor.patch_size)
    batch, chunk, length = Dim("batch"), Dim("chunk"), Dim("length")
    parts = [f"past.{layer}.{part}" for layer in range(sizes.num_hidden_layers) for part in ("keys", "values")]
    past = [torch.zeros(3, sizes.num_key_value_heads, 7, sizes.head_dim) for _ in parts]
    with _fixed_places(network), _operators(network):
        patches = torch.zeros(2, grid**2, 6 * patch**2)
        read = torch.onnx.export(
            _Read(network).eval(),
            (patches,),
            input_names=["patches"],
            output_names=["prefixes"],
            dynamic_shapes=({0: batch},),
            opset_version=_OPSET,
            dynamo=True,
            optimize=False,  # it would fold weights into constants
            verbose=False,
        )
        extend = torch.onnx.export(
            _Extend(network).eval(),
            (torch.ones(3, 5, dtype=torch.long), torch.tensor([7, 5, 6]), torch.tensor([4, 2, 0]), past),
            input_names=["tokens", "starts", "lasts", *parts],
            output_names=["logits", "new"],
            dynamic_shapes=({0: batch, 1: chunk}, {0: batch}, {0: batch}, [{0: batch, 2: length}] * len(past)),
            opset_version=_OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    used = {}
    for program, name in ((read, READ), (extend, EXTEND)):
        assert program is not None
        used[name] = _strip(program.model, names)
        onnx_ir.save(program.model, out / name)
    (out / WEIGHTS).write_text(canonical_json(used), encoding="utf-8")


def _names(student: StudentModel, files: Collection[str]) -> dict[str, str]:
    """By the name that the exporter gives a weight: its name in the checkpoint's files, which hold tied ones once."""
    parameters: dict[str, Any] = dict(student.model.named_parameters(remove_duplicate=False))
    stored = {id(weight): name for name, weight in parameters.items() if name in files}
    if strays := {*files} - {*parameters}:
        raise InvalidInputError(f"the files name weights otherwise than transformers saves them: {sorted(strays)[:5]}")
    return {f"model.{name}": stored[id(weight)] for name, weight in parameters.items()}


def _strip(model: Any, names: dict[str, str]) -> list[str]:
    """Replace weights by their names, which are returned, and drop what the exporter notes for debugging."""
    used = []
    for name, value in list(model.graph.initializers.items()):
        if name in names:
            tensor = value.const_value
            del model.graph.initializers[name]
            value.name = names[name]
            value.const_value = onnx_ir.ExternalTensor(
                "weights", 0, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=value.name
            )
            model.graph.initializers[value.name] = value
            used.append(value.name)
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()
    return used


def _mask(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.where(allowed, 0.0, torch.finfo(dtype).min).to(dtype)[:, None]


def _image(network: TorchNetwork) -> slice:
    return slice(network.image_start, network.image_start + network.processor.image_tokens)


@contextmanager
def _fixed_places(network: TorchNetwork) -> Iterator[None]:
    """Add visual features where the visual tokens always are: transformers gathers by a mask, which can't be traced."""
    network.language._deepstack_process = partial(_add_visual, _image(network))
    try:
        yield
    finally:
        del network.language._deepstack_process


@contextmanager
def _angles(network: TorchNetwork, cos: torch.Tensor, sin: torch.Tensor) -> Iterator[None]:
    """Have text turned by these angles (B, C, dim / 2), whatever its positions."""
    network.language.rotary_emb.forward = lambda *_: (cos, sin)
    try:
        yield
    finally:
        del network.language.rotary_emb.forward


@contextmanager
def _operators(network: TorchNetwork) -> Iterator[None]:
    """Trace what ONNX has an operator for as that operator, and heads side by side as it takes them."""
    norm: Any = modeling_qwen3_vl.Qwen3VLTextRMSNorm
    attention: Any = modeling_qwen3_vl.Qwen3VLTextAttention
    seeing: Any = network
    before = norm.forward, attention.forward
    norm.forward, attention.forward = _normalise, _attend
    seeing._vision_attention = partial(_attend_to_patches, network.vision_angles)
    try:
        yield
    finally:
        norm.forward, attention.forward = before
        del seeing._vision_attention


def _normalise(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    return ops.symbolic(
        "RMSNormalization",
        (hidden, norm.weight),
        attrs={"axis": -1, "epsilon": float(norm.variance_epsilon)},
        dtype=hidden.dtype,
        shape=hidden.shape,
        version=_OPSET,
    )


def _attend(
    self: Any,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor,
    past_key_values: _Past,
    **_: object,
) -> tuple[torch.Tensor, None]:
    heads = (*hidden_states.shape[:-1], -1, self.head_dim)
    query = self.q_norm(self.q_proj(hidden_states).view(heads))
    key = self.k_norm(self.k_proj(hidden_states).view(heads))
    value = self.v_proj(hidden_states)
    counts = query.shape[2], key.shape[2]
    query, key = (
        ops.rotary_embedding(part.flatten(2), *position_embeddings, num_heads=count)
        for part, count in zip((query, key), counts, strict=True)
    )
    past = past_key_values.before(self.layer_idx)
    mixed, *present, _scores = ops.attention(
        query, key, value, attention_mask, *past, scale=self.scaling, q_num_heads=counts[0], kv_num_heads=counts[1]
    )
    past_key_values.new += [part[:, :, past[0].shape[2] :] if past else part for part in present]
    return self.o_proj(mixed), None


def _attend_to_patches(angles: Sequence[torch.Tensor], attention: Any, hidden: torch.Tensor) -> torch.Tensor:
    count, _, width = hidden.shape
    heads = attention.num_heads
    mixed = attention.qkv(hidden)
    query, key, value = (mixed[..., start : start + width] for start in range(0, 3 * width, width))
    halves = [table[None, :, : table.shape[-1] // 2].expand(count, -1, -1) for table in angles]
    query, key = (ops.rotary_embedding(part, *halves, num_heads=heads) for part in (query, key))
    mixed, *_others = ops.attention(query, key, value, q_num_heads=heads, kv_num_heads=heads)
    output: torch.Tensor = attention.proj(mixed)
    return output


def _add_visual(image: slice, hidden: torch.Tensor, _: object, features: torch.Tensor) -> torch.Tensor:
    count, _length, width = hidden.shape
    middle = hidden[:, image] + features.view(count, -1, width)
    return torch.cat([hidden[:, : image.start], middle, hidden[:, image.stop :]], dim=1)


if __name__ == "__main__":
    os.nice(_NICENESS)
    try:
        export(Path(sys.argv[1]), Path(sys.argv[2]))
    except InvalidInputError as error:
        print(error, file=sys.stderr)
        sys.exit(UNFIT)
