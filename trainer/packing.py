"""Training forward passes that share one clip between many questions.

Each row of a batch is one clip followed by several independent questions with their answers. A block mask lets every
question see the clip and itself but no other question, and positions restart after the clip, so each question gets
exactly the hidden states it would get alone (a test compares with transformers' own forward pass) at a fraction of the
cost. The vision tower runs all clips of a batch at once over the same weights; transformers' own loops over them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from world2vlm.boxes import SCALE
from world2vlm.vlm import StudentModel
from world2vlm.vlm.network import TorchNetwork
from world2vlm.vlm.vocabulary import number_words

IGNORE = -100
_ROUND = 32

# Token ids, branches, positions (L, 3), labels, weights, ordinal: one row of a `PackedBatch` before padding.
_Row = tuple[list[int], list[int], NDArray[np.int64], list[int], list[float], list[bool]]


@dataclass(frozen=True)
class Example:
    """A question with its answer. `ordinal`: the answer's integers are coordinates, near misses count as near."""

    question: str
    answer: str
    weight: float = 1.0
    ordinal: bool = False


@dataclass(frozen=True)
class Rows:
    """B rows of L tokens, each of which begins with a clip's prefix.

    Attributes:
        input_ids: int64 (B, L).
        mask: bool (B, 1, L, L), True = may attend.
        positions: int64 (3, B, L), Qwen's temporal, row and column positions.
    """

    input_ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor


@dataclass(frozen=True)
class PackedBatch(Rows):
    """Rows with questions and answers.

    Attributes:
        labels: int64 (B, L), the token itself where it belongs to an answer, else IGNORE.
        weights: float32 (B, L).
        ordinal: bool (B, L), coordinates among the labels.
    """

    labels: torch.Tensor
    weights: torch.Tensor
    ordinal: torch.Tensor


class PackedStudent:
    """A student with the packed forward pass; `network` is its plain one.

    The target of a coordinate is a bell over its neighbours: `sigma` is its width in thousandths, `exact` the share
    that goes to the very number on top.
    """

    def __init__(self, student: StudentModel, sigma: float = 12.0, exact: float = 0.0) -> None:
        self.student = student
        self.model = student.model
        self.language = student.model.model.language_model
        processor = student.processor
        self._processor = processor
        self.network = TorchNetwork(student.model, processor)
        self.patch_order = self.network.patch_order  # Qwen's patch order -> raster index
        self._prefix = self.network.prefix_ids
        self._prefix_positions = self.network.prefix_positions
        self._next_position = self.network.first_position
        self._image_start = self.network.image_start
        self._turn = processor.turn_ids()
        self._tokens: dict[str, list[int]] = {}
        self._number_ids = torch.tensor(processor.tokenizer.convert_tokens_to_ids(number_words()))
        self._value_of = torch.full((len(processor.tokenizer),), -1)
        self._value_of[self._number_ids] = torch.arange(SCALE + 1)
        values = torch.arange(SCALE + 1).float()
        bell = torch.softmax(-((values[:, None] - values[None]) ** 2) / (2 * sigma**2), dim=-1)
        self._soft = (1 - exact) * bell + exact * torch.eye(SCALE + 1)

    def see(self, clips: NDArray[np.uint8]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run the vision tower on clips, uint8 (N, 2, S, S, 3).

        Returns:
            Visual tokens (N, T, width) and the deepstack features, each (N * T, width).
        """
        return self.network.see(clips)

    def pack(self, rows: Sequence[Sequence[Example]]) -> PackedBatch:
        """Lay out one row a clip: the clip's prefix, then each example."""
        laid_out = [self._lay_out(examples) for examples in rows]
        length = padded_length([row[0] for row in laid_out])
        ids = np.full((len(rows), length), self._processor.tokenizer.pad_token_id)
        branch = np.full((len(rows), length), -1)
        positions = np.zeros((len(rows), length, 3), dtype=np.int64)
        labels = np.full((len(rows), length), IGNORE)
        weights = np.zeros((len(rows), length), dtype=np.float32)
        ordinal = np.zeros((len(rows), length), dtype=bool)
        columns: tuple[NDArray[Any], ...] = (ids, branch, positions, labels, weights, ordinal)
        for index, row in enumerate(laid_out):
            for target, values in zip(columns, row, strict=True):
                target[index, : len(row[0])] = values
        return PackedBatch(
            torch.from_numpy(ids),
            block_mask(torch.from_numpy(branch)),
            torch.from_numpy(positions).permute(2, 0, 1),
            torch.from_numpy(labels),
            torch.from_numpy(weights),
            torch.from_numpy(ordinal),
        )

    def hidden_states(self, batch: Rows, seen: tuple[torch.Tensor, list[torch.Tensor]]) -> torch.Tensor:
        """Last hidden states (B, L, width) of the language model."""
        visual, deepstack = seen
        start, end = self._image_start, self._image_start + self._processor.image_tokens
        words = self.language.embed_tokens(batch.input_ids)
        is_visual = torch.zeros_like(batch.input_ids, dtype=torch.bool)
        is_visual[:, start:end] = True
        output = self.language(
            inputs_embeds=torch.cat([words[:, :start], visual, words[:, end:]], dim=1),
            attention_mask=torch.zeros(batch.mask.shape).masked_fill_(~batch.mask, torch.finfo(torch.float32).min),
            position_ids=batch.positions,
            visual_pos_masks=is_visual,
            deepstack_visual_embeds=deepstack or None,
            use_cache=False,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def loss(self, batch: PackedBatch, seen: tuple[torch.Tensor, list[torch.Tensor]]) -> torch.Tensor:
        """Weighted mean cross entropy of the answers; logits are computed on answer positions only."""
        hidden = self.hidden_states(batch, seen)[:, :-1]
        chosen = batch.labels[:, 1:] != IGNORE
        targets, weights = batch.labels[:, 1:][chosen], batch.weights[:, 1:][chosen]
        log_probabilities = F.log_softmax(self.model.lm_head(hidden[chosen]).float(), dim=-1)
        losses = -log_probabilities.gather(1, targets[:, None])[:, 0]
        soft = batch.ordinal[:, 1:][chosen] & (self._value_of[targets] >= 0)
        expected = self._soft[self._value_of[targets[soft]]]
        ordinal_losses = -(expected * log_probabilities[soft][:, self._number_ids]).sum(dim=-1)
        losses = losses.masked_scatter(soft, ordinal_losses)
        return (losses * weights).sum() / weights.sum()

    def _lay_out(self, examples: Sequence[Example]) -> _Row:
        size = len(self._prefix)
        ids, branch, labels = list(self._prefix), [0] * size, [IGNORE] * size
        weights, ordinal = [0.0] * size, [False] * size
        positions = [self._prefix_positions]
        for number, example in enumerate(examples, start=1):
            question = self._encode(example.question) + self._turn
            answer = [*self._encode(example.answer), self._processor.tokenizer.eos_token_id]
            count = len(question) + len(answer)
            ids += question + answer
            branch += [number] * count
            labels += [IGNORE] * len(question) + answer
            weights += [0.0] * len(question) + [example.weight] * len(answer)
            ordinal += [False] * len(question) + [example.ordinal] * len(answer)
            positions.append(np.repeat(np.arange(self._next_position, self._next_position + count)[:, None], 3, axis=1))
        return ids, branch, np.concatenate(positions), labels, weights, ordinal

    def _encode(self, text: str) -> list[int]:
        tokens = self._tokens.get(text)
        if tokens is None:
            tokens = self._tokens[text] = self._processor.encode_question(text)
        return tokens


def padded_length(rows: Sequence[Sequence[int]]) -> int:
    """Tokens of the longest row, rounded up: few distinct lengths, as matrix kernels are chosen and cached by shape."""
    return -(-max(map(len, rows)) // _ROUND) * _ROUND


def block_mask(branch: torch.Tensor) -> torch.Tensor:
    """Causal attention to the trunk (branch 0) and to one's own branch; padding (-1) sees itself, to stay finite.

    Args:
        branch: int64 (B, L).

    Returns:
        bool (B, 1, L, L), True = may attend.
    """
    keys, queries = branch[:, None, :], branch[:, :, None]
    length = branch.shape[1]
    allowed = ((keys == 0) | (keys == queries)) & (keys >= 0) | torch.eye(length, dtype=torch.bool)
    return (allowed & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
