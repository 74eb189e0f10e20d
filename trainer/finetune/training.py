"""The loop of supervised fine-tuning, on one process or many.

Deterministic in its settings and its data: what is in a step is planned before the first one, dropout is seeded by the
step, and snapshots hold the optimiser's state, so a killed run continues to the same losses. Start it under
`torchrun --nproc-per-node N` to use N devices; all processes must see the same folders.

What has been run is on CPUs: one process with every method, and two under torchrun, with FSDP2 and with DDP. Nothing
has been run on a GPU, so flash attention has not.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from trainer.finetune.adapting import adapt, autocast_dtype, load, save
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.encoding import Encoder, prepare
from trainer.finetune.loss import RowLoss
from trainer.finetune.memory import memory_explained
from trainer.finetune.optimizing import make_optimizer, set_rate, update
from trainer.finetune.packing import Row, pack
from trainer.finetune.plan import Size, Step, plan_steps, record_weight
from trainer.finetune.prepared import digest
from trainer.finetune.processes import Processes, distribute, gather, gradients_kept, joined
from trainer.finetune.state import Progressed, load_state, remove_state, save_state, trained
from trainer.progress import Progress, running_means
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord, to_line

# Of the running means.
_MEMORY = 0.98

Planner = Callable[[FinetuneConfig, Sequence[Size], int, int], list[Step]]


def train(
    config: FinetuneConfig,
    records: Sequence[TaskRecord],
    images_root: Path,
    out: Path,
    on_progress: Progress = lambda step, steps, figures: None,
    *,
    replay: Sequence[TaskRecord] = (),
    prepared: Path | None = None,
    planner: Planner = plan_steps,
) -> dict[str, float]:
    """Fine-tune a model by name and write what came of it to `out`.

    Args:
        config: the run.
        records: the dataset's training records; image paths are relative to `images_root`.
        images_root: where the images are.
        out: the new folder: PEFT's adapter files, or a full checkpoint with its processor. A snapshot in it is
            continued.
        on_progress: called after each step with (step, steps, figures): the step's `loss`, `rate` and `gradient`, the
            norm before it is clipped. Under torchrun in the first process only.
        replay: records of earlier rounds, drawn from where `config.replay` says so.
        prepared: where prepared tensors are kept, to share them between runs; by default a hidden folder in `out`.
        planner: what shares examples out among steps.

    Returns:
        The running means of these figures at the end.

    Raises:
        InvalidInputError: no records, a missing image, a model that is none or of no known family, and whatever else
            is wrong with settings or data.
        DivergedError: loss or gradient is not finite; the last snapshot stays.
        PreconditionError: not enough memory; the text says what to lower. Or the snapshot in `out` is another run's, or
            another process has failed.
        UnavailableError: qlora without bitsandbytes.
    """
    if not records:
        raise InvalidInputError("there are no records to train on")
    with joined() as processes, memory_explained(config):
        run = _Run(config, records, images_root, out, replay, prepared or out / ".prepared", planner, processes)
        return run.go(on_progress if processes.rank == 0 else lambda step, steps, figures: None)


class _Run:
    """A run from its beginning to its end; see `train`."""

    def __init__(
        self,
        config: FinetuneConfig,
        records: Sequence[TaskRecord],
        images_root: Path,
        out: Path,
        replay: Sequence[TaskRecord],
        prepared: Path,
        planner: Planner,
        processes: Processes,
    ) -> None:
        self._config, self._out, self._processes = config, out, processes
        loaded = load(config, processes.device)
        self._processor = loaded.processor
        self._encoder = Encoder(
            loaded.processor,
            loaded.model.model,
            loaded.family,
            prepared,
            images_root,
            frozen=config.freeze_vision,
            autocast=autocast_dtype(config),
        )
        chosen = [*records, *(replay if config.replay else ())]
        mine = prepare(self._encoder, chosen, processes)
        self._entries = [mine.get(index) or self._encoder.entry(record) for index, record in enumerate(chosen)]
        self._weights = [record_weight(config, record) for record in chosen]
        sizes = [
            Size(entry.tokens, entry.answer_tokens, weight)
            for entry, weight in zip(self._entries, self._weights, strict=True)
        ]
        self._steps = planner(config, sizes, len(records), processes.world)
        self._digest = digest(config.to_json(), str(processes.world), *(to_line(record) for record in chosen))
        self._adapted = adapt(config, loaded.model, loaded.family)
        if config.gradient_checkpointing:
            loaded.model.activation_checkpointing_enable({"use_reentrant": False})
        loss = RowLoss(loaded.model, loaded.family, config.loss_chunk, autocast_dtype(config))
        self._module = distribute(loss.train(), config, loaded.family, processes)
        self._optimizer = make_optimizer(config, self._module)

    def go(self, on_progress: Progress) -> dict[str, float]:
        """Do the steps that are not done yet, and write the result."""
        done, means = load_state(self._out, self._digest, self._module, self._optimizer)
        for number in range(done, len(self._steps)):
            figures = self._step(number)
            means = running_means(means, figures, _MEMORY)
            on_progress(number + 1, len(self._steps), figures)
            if (number + 1) % self._config.snapshot_every == 0:
                state = Progressed(self._digest, number + 1, means)
                save_state(self._out, state, self._module, self._optimizer, self._processes)
        self._write()
        return means

    def _step(self, number: int) -> dict[str, float]:
        step, world = self._steps[number], self._processes.world
        torch.manual_seed(hash((self._config.seed, number, self._processes.rank)))
        rate = set_rate(self._config, self._optimizer, number, len(self._steps))
        rows = step.of_process(self._processes.rank, world)
        total = torch.zeros((), device=self._processes.device)
        for place, indices in enumerate(rows):
            with gradients_kept(self._module, place + 1 < len(rows)):
                # FSDP2 and DDP average over processes; the loss is a sum over them.
                loss = self._module(self._row(step, indices)) / step.total
                (loss * world).backward()
            total += loss.detach()
        value = self._processes.sums({"loss": total.item()})["loss"]
        norm = update(self._config, self._module, self._optimizer, value, f"step {number + 1} of {len(self._steps)}")
        return {"loss": value, "rate": rate, "gradient": norm}

    def _row(self, step: Step, indices: tuple[int, ...]) -> Row:
        """A row on the device; one without examples is another one that counts nothing."""
        chosen = indices or step.rows[0]
        examples = [self._encoder.example(self._entries[index]) for index in chosen]
        weights = [self._weights[index] if indices else 0.0 for index in chosen]
        keys = {key for example in examples for key in example.images}
        pictures = {key: self._encoder.picture(key) for key in keys}
        return pack(examples, weights, pictures).to(self._processes.device)

    def _write(self) -> None:
        source = trained(self._module) if self._config.is_adapter else _all_weights(self._module)
        state = {name.removeprefix("model."): gather(weight) for name, weight in source}
        with self._processes.together():
            if self._processes.rank == 0:
                save(self._adapted, self._processor, self._config, self._out, state)
                remove_state(self._out)


def _all_weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in module.state_dict().items():
        yield name.removeprefix("module."), value
