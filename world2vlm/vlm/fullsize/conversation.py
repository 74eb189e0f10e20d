"""A question and its answer as the text of a conversation, by the model's own chat template."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.tasks import IMAGE_TAG

# Any question and any answer: what matters is what comes around them.
_QUESTION, _ANSWER = "?", "yes"


def control_tokens(tokenizer: Any) -> frozenset[str]:
    """All tokens that mean something else than their text."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    return frozenset((*added, *tokenizer.all_special_tokens))


def render(processor: Any, control: Collection[str], record: TaskRecord) -> tuple[str, int]:
    """Write a record out.

    Args:
        processor: the model's own.
        control: its control tokens.
        record: the record.

    Returns:
        The conversation up to the token that ends the answer, each image one token; and where the answer begins.

    Raises:
        InvalidInputError: the record holds a control token, or the template does not put the answer after the prompt.
    """
    said = record.user.replace(IMAGE_TAG, "") + record.assistant
    for token in sorted(control):
        if token in said:
            raise InvalidInputError(f"a record must not contain the control token {token}")
    user, prompt = _asked(processor, record.user)
    assistant = {"role": "assistant", "content": [{"type": "text", "text": record.assistant}]}
    whole: str = processor.apply_chat_template([user, assistant])
    if not whole.startswith(prompt) or record.assistant.strip() not in whole[len(prompt) :]:
        raise InvalidInputError("the model's chat template does not put the answer after the prompt")
    # What follows the token that ends the answer is never generated.
    whole = whole.rstrip()
    if not whole.endswith(tuple(control)):
        whole += processor.tokenizer.eos_token
    return whole, len(prompt)


def show_images(whole: str, answer: int, token: str, texts: Sequence[str]) -> tuple[str, int]:
    """Put each image's text in the place of its token; the answer moves back by what that adds.

    Raises:
        InvalidInputError: there are more or fewer tokens than images.
    """
    pieces = whole.split(token)
    if len(pieces) != len(texts) + 1:
        raise InvalidInputError(f"the model's chat template shows {len(pieces) - 1} images of {len(texts)}")
    filled = "".join(text + piece for text, piece in zip(["", *texts], pieces, strict=True))
    return filled, answer + len(filled) - len(whole)


def encode(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """The tokens of a conversation, and where in its text each ends."""
    begins = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    coded = tokenizer(text, add_special_tokens=not begins, return_offsets_mapping=True)
    return coded["input_ids"], [end for _, end in coded["offset_mapping"]]


@dataclass(frozen=True)
class Form:
    """How a model's conversations look around what is said.

    Attributes:
        lead: what comes between prompt and answer: a space in some templates.
        before: a whole prompt without images, with the lead.
        start: where in `before` the lead begins.
        end: the token that ends an answer.
    """

    lead: str
    before: str
    start: int
    end: int

    @classmethod
    def of(cls, processor: Any) -> Self:
        """A model's, by its processor.

        Raises:
            InvalidInputError: its chat template does not put the answer after the prompt.
        """
        whole, start = render(processor, control_tokens(processor.tokenizer), TaskRecord("-", _QUESTION, _ANSWER, ()))
        answer = whole.index(_ANSWER, start)
        return cls(whole[start:answer], whole[:answer], start, encode(processor.tokenizer, whole)[0][-1])

    def prompt(self, processor: Any, question: str, texts: Sequence[str]) -> list[int]:
        """The tokens of a prompt, the same ones that come before the answer where the model is trained.

        Args:
            processor: the model's own.
            question: what is asked, without control tokens.
            texts: for each image the text that stands for it.

        Raises:
            InvalidInputError: the chat template shows more or fewer images.
        """
        _, prompt = _asked(processor, IMAGE_TAG * len(texts) + question)
        shown, start = show_images(prompt, len(prompt), processor.image_token, texts)
        ids, ends = encode(processor.tokenizer, shown + self.lead + _ANSWER)
        return [token for token, end in zip(ids, ends, strict=True) if end <= start]

    def spell(self, tokenizer: Any, answer: str) -> list[int]:
        """The tokens of an answer, or of its beginning, as the model is trained to give them; without the end token."""
        ids, ends = encode(tokenizer, self.before + answer)
        return [token for token, end in zip(ids, ends, strict=True) if end > self.start]


def _asked(processor: Any, user: str) -> tuple[dict[str, Any], str]:
    """A user's message, and the prompt that it makes."""
    message = {"role": "user", "content": _parts(user)}
    prompt: str = processor.apply_chat_template([message], add_generation_prompt=True)
    return message, prompt


def _parts(user: str) -> list[dict[str, str]]:
    """A user's message in the parts that chat templates take."""
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(user.split(IMAGE_TAG)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return parts
