"""Continuous batching: many answers grow together, each under its own grammar; answers come and go at every step.

Greedy, or drawn where a job says so. Tokens that a grammar forces cost no forward pass of their own: they ride along
with the next choice.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache
from numpy.typing import NDArray

from world2vlm.tasks import get_task
from world2vlm.vlm.grammar import Constraint, TaskGrammars
from world2vlm.vlm.network import Chunk, Clip, Network

# Tokens that a grammar forces at a time at most, with some room.
FORCED_ROOM = 8
# Reading a prompt takes many times a token's time: many at once would hold up the answers under way.
_STARTS_PER_STEP = 4


@dataclass(frozen=True)
class Job:
    """One question to decode an answer for.

    Attributes:
        clip: what is seen; uint8 (2, S, S, 3) for the built-in student.
        tokens: ids after the clip: the question and the beginning of the answer's turn.
        task: whose form the answer must have; empty for free text.
        max_new_tokens: where to stop at the latest.
        seed: each token is drawn from the probabilities at temperature 1 with this seed; None: the likeliest is taken.
    """

    clip: Clip
    tokens: Sequence[int]
    task: str
    max_new_tokens: int
    seed: int | None = None


@dataclass(frozen=True)
class Decoded:
    """A finished answer: its ids without the end token, how many tokens count, its probability at each temperature."""

    ids: tuple[int, ...]
    answer_tokens: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Progress:
    """What a step added to one answer; `decoded` once it has ended."""

    key: int
    ids: tuple[int, ...]
    decoded: Decoded | None


@dataclass
class Row:
    """An answer under way, in its row of the cache."""

    key: int
    job: Job
    constraint: Constraint | None
    temperatures: NDArray[np.float64]
    log_probabilities: NDArray[np.float64]
    pending: list[int]
    chance: np.random.Generator | None
    answer: list[int] = field(default_factory=list)
    length: int = 0  # tokens in the cache
    untold: list[int] = field(default_factory=list)


class PrefixCache:
    """The prefixes of the clips seen last, by content, up to as many bytes as the network says.

    Attributes:
        hits, misses: how often a prefix was found and had to be computed.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._known: LRUCache[bytes, Any] = LRUCache(network.prefix_bytes, getsizeof=lambda prefix: prefix.nbytes)
        self.hits = self.misses = 0

    def get(self, clips: Sequence[Clip]) -> list[Any]:
        """The prefixes of clips; the unknown ones are computed in one pass."""
        digests = [sha256(clip.tobytes()).digest() for clip in clips]
        unknown = {d: clip for d, clip in zip(digests, clips, strict=True) if d not in self._known}
        self.misses += len(unknown)
        self.hits += len(clips) - len(unknown)
        found = {d: self._known[d] for d in digests if d in self._known}
        if unknown:
            read = dict(zip(unknown, self._network.read(list(unknown.values())), strict=True))
            found.update(read)
            for digest, prefix in read.items():
                with suppress(ValueError):  # larger than all that may be kept
                    self._known[digest] = prefix
        return [found[digest] for digest in digests]


class Decoder:
    """Grows up to `rows` answers at once. Not thread-safe.

    Args:
        network: what runs the weights.
        grammars: of the tasks.
        ends: the tokens that end an answer.
        banned: tokens that free text must not hold: the other control tokens.
        rows: answers at once.
        length: tokens of a prompt and its answer at most, the prefix not counted.
        temperatures: by answer kind (`AnswerKind.value`), all equally many: what divides the logits when probabilities
            are taken; 1 where a kind is missing. They never change an answer.
    """

    def __init__(
        self,
        network: Network,
        grammars: TaskGrammars,
        *,
        ends: Collection[int],
        banned: Iterable[int],
        rows: int,
        length: int,
        temperatures: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.capacity = rows
        self.starts_per_step = _STARTS_PER_STEP  # as many as rows where nobody waits for a single answer
        self.prefixes = PrefixCache(network)
        self._network = network
        self._grammars = grammars
        self._ends = frozenset(ends)
        self._banned = list(banned)
        self._temperatures = {kind: np.array(values, np.float64) for kind, values in (temperatures or {}).items()}
        self._plain = np.ones(max(map(len, self._temperatures.values()), default=1))
        self._cache = network.new_cache(rows, network.prefix_length + length + FORCED_ROOM)
        self._rows: list[Row] = []
        self._new: list[Row] = []

    @property
    def active(self) -> int:
        """Answers that have not ended."""
        return len(self._rows) + len(self._new)

    def admit(self, key: int, job: Job) -> None:
        """Take in a job; its first step comes with the next `step`. At most `capacity` at once."""
        if self.active >= self.capacity:
            raise RuntimeError(f"the decoder has {self.capacity} rows, and all are taken")
        constraint, temperatures, forced = None, self._plain, []
        if job.task:
            constraint = self._grammars.constraint(job.task)
            temperatures = self._temperatures.get(get_task(job.task).kind.value, self._plain)
            forced = constraint.begin()
        pending = [*job.tokens, *forced]
        chance = None if job.seed is None else np.random.default_rng(job.seed)
        self._new.append(
            Row(key, job, constraint, temperatures, 0 * temperatures, pending, chance, forced, untold=list(forced))
        )

    def drop(self, key: int) -> None:
        """Forget an answer; nothing happens where it has ended."""
        self._new = [row for row in self._new if row.key != key]
        for index, row in enumerate(self._rows):
            if row.key == key:
                self._remove(index)
                return

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """Let each answer grow by one choice and what it forces. Empty where there is nothing to do."""
        old = len(self._rows)
        self._start_new()
        chunks = [rows for rows in (range(old), range(old, len(self._rows))) if rows]
        progress, ended = [], []
        for index, (row, token) in enumerate(zip(self._rows, self._draw(chunks), strict=True)):
            added, is_done = self._grow(row, token)
            decoded = self._finish(row) if is_done else None
            if is_done:
                ended.append(index)
            progress.append(Progress(row.key, (*row.untold, *added), decoded))
            row.untold = []
        for index in reversed(ended):
            self._remove(index)
        return progress

    def _start_new(self) -> None:
        starting, self._new = self._new[: self.starts_per_step], self._new[self.starts_per_step :]
        if not starting:
            return
        for row, prefix in zip(starting, self.prefixes.get([row.job.clip for row in starting]), strict=True):
            row.length = self._cache.write_prefix(len(self._rows), prefix)
            self._rows.append(row)

    def _draw(self, chunks: Sequence[range]) -> list[int]:
        """Extend all rows, and choose a token for each."""
        # A few numbers of each row are looked at: numpy has less overhead for that than torch.
        logits = [self._extend(rows).cpu().numpy() for rows in chunks]
        scores = (scores for block in logits for scores in block)
        return [self._choose(row, scores) for row, scores in zip(self._rows, scores, strict=True)]

    def _extend(self, rows: range) -> torch.Tensor:
        chosen = [self._rows[index] for index in rows]
        chunk = Chunk(rows.start, [row.pending for row in chosen], [row.length for row in chosen])
        logits = self._network.extend(self._cache, chunk)
        for row in chosen:
            row.length += len(row.pending)
            row.pending = []
        return logits

    def _choose(self, row: Row, logits: NDArray[np.float32]) -> int:
        """One of the allowed tokens; its probability counts."""
        if row.constraint is None:
            allowed = None
            logits[self._banned] = -np.inf
        else:
            allowed = row.constraint.allowed()
            logits = logits[allowed]
        # The largest of logits with Gumbel noise is a draw from their softmax.
        best = int((logits if row.chance is None else logits + row.chance.gumbel(size=logits.shape)).argmax())
        row.log_probabilities = row.log_probabilities + log_probability(logits, best, row.temperatures)
        return best if allowed is None else int(allowed[best])

    def _grow(self, row: Row, token: int) -> tuple[list[int], bool]:
        """Add a token and what it forces. Returns what was added, and whether that is all."""
        if token in self._ends:
            return [], True
        added = [token]
        if row.constraint is not None:
            added += row.constraint.take(token)
        is_done = row.constraint is not None and row.constraint.is_done
        row.pending = added[: max(1, row.job.max_new_tokens - len(row.answer))]
        row.answer += row.pending
        return row.pending, is_done or len(row.answer) >= row.job.max_new_tokens

    def _finish(self, row: Row) -> Decoded:
        is_cut = len(row.answer) >= row.job.max_new_tokens
        probabilities = np.exp(row.log_probabilities).tolist()
        return Decoded(tuple(row.answer), len(row.answer) + (not is_cut), tuple(probabilities))

    def _remove(self, index: int) -> None:
        """Free a row: the last one takes its place, so that rows in use stay together."""
        last = self._rows.pop()
        if index < len(self._rows):
            self._cache.move(len(self._rows), index, last.length)
            self._rows[index] = last


def log_probability(logits: NDArray[np.float32], index: int, temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of one of some logits, at each temperature."""
    # The largest is subtracted, so that nothing overflows.
    scaled = (logits - logits.max())[None] / temperatures[:, None]
    found: NDArray[np.float64] = scaled[:, index] - np.log(np.exp(scaled).sum(axis=1))
    return found


def control_tokens(tokenizer: Any) -> list[int]:
    """Ids of the control tokens, the end token excepted."""
    return [token for token in tokenizer.all_special_ids if token != tokenizer.eos_token_id]
