"""A full-size student in memory: a model of any family, by its own processor and chat template."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from world2vlm.errors import InvalidInputError
from world2vlm.fullsize import ADAPTER
from world2vlm.tasks import IMAGE_TAG
from world2vlm.vlm.answering import Inputs, Student
from world2vlm.vlm.decoding import Job
from world2vlm.vlm.fullsize.conversation import Form, control_tokens
from world2vlm.vlm.fullsize.decoding import FamilyDecoder
from world2vlm.vlm.fullsize.families import find_family
from world2vlm.vlm.fullsize.grammar import SpeltGrammars
from world2vlm.vlm.fullsize.network import Beginning, FamilyNetwork, Seen
from world2vlm.vlm.fullsize.processing import load_processor
from world2vlm.vlm.fullsize.vision import look
from world2vlm.vlm.lora import merge_into
from world2vlm.vlm.student import check_weights, read_calibration, unfit

# Of all pictures of a question together; two of 1920 x 1080 pixels take 5,300 in Qwen2.5-VL.
MAX_PICTURE_TOKENS = 8192
# transformers' annotations do not describe these calls.
_load_config: Callable[..., Any] = AutoConfig.from_pretrained
_load_model: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained


class FamilyStudent(Student):
    """A model of any family in torch.

    Args:
        model, processor: transformers' own.
        temperatures: calibration, by answer kind (`AnswerKind.value`); 1 where a kind is missing.

    Raises:
        InvalidInputError: the model is of no known family, or its tokenizer or template is none that answers fit into.
    """

    frame_bytes = 256 << 20

    def __init__(self, model: Any, processor: Any, temperatures: Mapping[str, float] | None = None) -> None:
        super().__init__(temperatures)
        self.model = model
        self.processor = processor
        self._family = find_family(model.config)
        self._network = FamilyNetwork(model, self._family)
        self._control = control_tokens(processor.tokenizer)
        self._form = Form.of(processor)
        self._image_token: int = model.config.image_token_id
        # A question of one token, in a prompt without pictures, leaves what every prompt has.
        self._turn_tokens = len(self._form.prompt(processor, "?", [])) - 1

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "FamilyStudent":
        """Load a folder of transformers', as `trainer.finetune` writes it (safetensors only, no remote code).

        An adapter in the folder's subfolder `adapter` (see `world2vlm.adapters`) is merged into the weights.
        Weights and what is computed are bfloat16 on a GPU, and float32 on a CPU.

        Raises:
            InvalidInputError: the files are no model of a known family, a weight is not finite, or the adapter does not
                fit.
        """
        try:
            settings = _load_config(folder, local_files_only=True, trust_remote_code=False)
            find_family(settings)
            processor = load_processor(str(folder), settings.model_type)
            model, info = _load_weights(folder, device)
        except InvalidInputError:
            raise
        except Exception as error:  # transformers raises whatever the broken file provokes
            raise unfit(error) from error
        adapter = folder / ADAPTER
        if adapter.exists():
            model = merge_into(model, adapter)
        check_weights(model, {*info["missing_keys"], *info["unexpected_keys"]})
        calibration = read_calibration(adapter if adapter.exists() else folder)
        return cls(model.eval().requires_grad_(False), processor, calibration)

    def network(self) -> FamilyNetwork:
        """See `Student.network`."""
        return self._network

    def to_frame(self, image: Image.Image) -> Seen:
        """See `Student.to_frame`; no smaller or larger than where the model is trained.

        Raises:
            InvalidInputError: the model's processor takes no picture of such a shape.
        """
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        digest = blake2b(rgb.tobytes(), digest_size=16, salt=b"%dx%d" % rgb.size).digest()
        try:
            tensors, text = look(self.processor, self._family, rgb)
        except ValueError as error:  # Qwen's takes none that is 200 times as long as wide
            raise InvalidInputError(f"the model takes no picture of {rgb.width} x {rgb.height} pixels") from error
        return Seen(digest, text, tensors)

    def frame_inputs(self, frames: Sequence[Seen], text: str, task: str) -> Inputs:
        """See `Student.frame_inputs`.

        Raises:
            InvalidInputError: no image, or more tokens than the model reads, or a bad question, or no such task.
        """
        self._check_question(text)
        if not frames:
            raise InvalidInputError("a question takes at least one image")
        ids = self._form.prompt(self.processor, text, [seen.text for seen in frames])
        shown = ids.count(self._image_token)
        if shown > MAX_PICTURE_TOKENS:
            raise InvalidInputError(
                f"the images take {shown} tokens, and at most {MAX_PICTURE_TOKENS} are allowed: send smaller ones"
            )
        if len(ids) > self._network.context:
            raise InvalidInputError(f"the prompt has {len(ids)} tokens, and the model reads {self._network.context}")
        behind = len(ids) - ids[::-1].index(self._image_token)
        clip, tokens = Beginning(tuple(ids[:behind]), tuple(frames)), ids[behind:]
        answer = self.grammars.max_answer_tokens(task) if task else 0
        return Inputs(clip, tokens, max(0, len(tokens) - self._turn_tokens), task, answer)

    def new_decoder(self, rows: int, length: int, temperatures: Mapping[str, Sequence[float]]) -> FamilyDecoder:
        """See `Student.new_decoder`."""
        return FamilyDecoder(
            self._network,
            self.grammars,
            ends={self._form.end, *_ends(self.model.generation_config.eos_token_id)},
            banned=(),
            rows=rows,
            length=length + self._turn_tokens,
            temperatures=temperatures,
        )

    def text(self, ids: Sequence[int]) -> str:
        """See `Student.text`; without the space that some templates put before an answer."""
        tokenizer = self.processor.tokenizer
        text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.lstrip()

    def prompt_tokens(self, job: Job) -> int:
        """See `Student.prompt_tokens`."""
        assert isinstance(job.clip, Beginning)
        return len(job.clip.ids) + len(job.tokens)

    @cached_property
    def grammars(self) -> SpeltGrammars:
        """The tasks' grammars over this model's tokenizer."""
        return SpeltGrammars(self.processor.tokenizer, self._form)

    def _check_question(self, text: str) -> None:
        if not text.strip():
            raise InvalidInputError("the question is empty")
        for token in (IMAGE_TAG, *sorted(self._control)):
            if token in text:
                raise InvalidInputError(f"a question must not contain the control token {token}")


def _load_weights(folder: Path, device: str) -> Any:
    """The model on a device, and what transformers says of how its weights fit."""
    on_gpu = torch.device(device).type == "cuda"
    return _load_model(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        attn_implementation="sdpa",
        output_loading_info=True,
        # Straight to the GPU, without a copy of all weights on the way.
        **({"device_map": {"": device}} if on_gpu else {}),
    )


def _ends(tokens: int | Sequence[int] | None) -> Sequence[int]:
    if tokens is None:
        return ()
    return [tokens] if isinstance(tokens, int) else tokens
