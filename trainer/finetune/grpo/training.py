"""The loop of GRPO after a fine-tuning: draw groups by the decoder that serves, learn from them, watch the guard.

Under torchrun each process holds the model, draws the answers to its share of a step's questions and learns from them;
what is decided is decided on all processes' figures. Deterministic in its settings, its data and the model that it
begins with, on however many processes but for rounding, and resumable as the fine-tuning is.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from trainer.finetune.adapting import autocast_dtype, save
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.encoding import Encoder, prepare
from trainer.finetune.grpo.beginning import Begun, begin, check_held_whole
from trainer.finetune.grpo.config import FinetuneGrpoConfig
from trainer.finetune.grpo.learner import Learner
from trainer.finetune.grpo.policy import Policy
from trainer.finetune.memory import memory_explained
from trainer.finetune.prepared import digest
from trainer.finetune.processes import Processes, gather, joined
from trainer.finetune.state import Progressed, load_state, remove_state, save_state
from trainer.grpo.guard import Guard
from trainer.grpo.prompts import Prompts
from trainer.grpo.rollouts import Rollouts, describe, draw_groups, tally
from trainer.progress import Progress, running_means
from world2vlm.records import TaskRecord, to_line
from world2vlm.tasks import parse_answer
from world2vlm.vlm.fullsize.conversation import Form
from world2vlm.vlm.fullsize.network import Seen
from world2vlm.vlm.fullsize.student import FamilyStudent

# Of the running means.
_MEMORY = 0.9


def train(
    config: FinetuneGrpoConfig,
    finetune: FinetuneConfig,
    records: Sequence[TaskRecord],
    images_root: Path,
    base: Path,
    out: Path,
    on_progress: Progress = lambda step, steps, figures: None,
    *,
    prepared: Path | None = None,
) -> dict[str, float]:
    """Let a fine-tuned model learn from its own answers, and write what came of it to `out`.

    Args:
        config: the run.
        finetune: the fine-tuning before it: the model, what of it is trained, its types, the length of a row.
        records: the dataset's training records; image paths are relative to `images_root`.
        images_root: where the images are.
        base: what the fine-tuning wrote; also what the KL divergence is taken from.
        out: the new folder, with the same files as `base`. A snapshot in it is continued.
        on_progress: called after each step with (step, steps, the step's figures). Under torchrun in the first process
            only.
        prepared: where prepared tensors are kept, to share them with the fine-tuning; by default a hidden folder in
            `out`.

    Returns:
        The running means of these figures at the end: `reward`, `telling` (share of groups that something can be
        learned from), `length` (times the true answers'), `repetition`, and those of `Learner.learn`.

    Raises:
        InvalidInputError: no question to ask, a true answer that is none, a missing image, no fine-tuning in `base`,
            all weights to be shared out among several processes, and whatever else is wrong with settings or data.
        GateRejectedError: the reward is being gamed (`trainer.grpo.guard`).
        DivergedError: loss or gradient is not finite; the last snapshot stays.
        PreconditionError: not enough memory; the text says what to lower. Or the snapshot in `out` is another run's.
            Or another process has failed.
        UnavailableError: qlora without bitsandbytes.
    """
    prompts = Prompts(config, records)
    with joined() as processes, memory_explained(finetune, accumulates=False):
        check_held_whole(finetune, processes)
        run = _Run(config, finetune, prompts, images_root, base, out, prepared or out / ".prepared", processes)
        return run.go(on_progress if processes.rank == 0 else lambda step, steps, figures: None)


class _Run:
    """A run from its beginning to its end; see `train`."""

    def __init__(
        self,
        config: FinetuneGrpoConfig,
        finetune: FinetuneConfig,
        prompts: Prompts,
        images_root: Path,
        base: Path,
        out: Path,
        prepared: Path,
        processes: Processes,
    ) -> None:
        self._config, self._prompts, self._out, self._processes = config, prompts, out, processes
        self._slots = range(processes.rank, config.prompts, processes.world)
        with processes.together():
            self._begun = begin(finetune, base, processes.device)
        model, processor = self._begun.model, self._begun.processor
        # The tower stays as it is, whatever the fine-tuning did: a picture is looked at once.
        self._encoder = Encoder(
            processor,
            model.model,
            self._begun.family,
            prepared,
            images_root,
            frozen=True,
            autocast=autocast_dtype(finetune),
        )
        pool = prompts.pool
        for record in pool:
            parse_answer(record.task_type, record.assistant)
        prepare(self._encoder, pool, processes)
        self._digest = digest(asdict(config), finetune.to_json(), *(to_line(record) for record in pool))
        student, form = FamilyStudent(model, processor), Form.of(processor)
        self._rollouts = Rollouts(
            student, self._see, lambda answer: form.spell(processor.tokenizer, answer), config.group, config.reward
        )
        self._learner = Learner(config, self._begun, Policy(self._begun, student.grammars, form), processes)

    def go(self, on_progress: Progress) -> dict[str, float]:
        """Do the steps that are not done yet, and write the result."""
        config, guard = self._config, Guard(self._config)
        module, optimizer = self._begun.module, self._learner.optimizer
        done, means = load_state(self._out, self._digest, module, optimizer)
        for step in range(done, config.steps):
            figures = self._step(step)
            means = running_means(means, figures, _MEMORY)
            on_progress(step + 1, config.steps, figures)
            guard.check(step + 1, figures)
            if (step + 1) % config.snapshot_every == 0:
                state = Progressed(self._digest, step + 1, means)
                save_state(self._out, state, module, optimizer, self._processes)
        with self._processes.together():
            if self._processes.rank == 0:
                _write(self._begun, self._out)
                remove_state(self._out)
        return means

    def _step(self, step: int) -> dict[str, float]:
        with self._processes.together(), self._begun.answering():
            groups = draw_groups(self._config, self._prompts, self._rollouts, step, self._slots)
        sums = self._processes.sums(tally(groups))
        return {**describe(sums), **self._learner.learn(groups, step)}

    def _see(self, record: TaskRecord) -> list[Seen]:
        return [self._encoder.seen(key) for key in self._encoder.entry(record).images]


def _write(begun: Begun, out: Path) -> None:
    source = begun.written if begun.config.is_adapter else begun.module.state_dict()
    state = {name.removeprefix("model."): gather(weight) for name, weight in source.items()}
    save(begun.adapted, begun.processor, begun.config, out, state)
