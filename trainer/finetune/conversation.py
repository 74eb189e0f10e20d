"""A record as the text of a conversation, by the model's own chat template."""

from collections.abc import Collection, Sequence
from typing import Any

from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.tasks import IMAGE_TAG


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
    user = {"role": "user", "content": _parts(record.user)}
    assistant = {"role": "assistant", "content": [{"type": "text", "text": record.assistant}]}
    whole = processor.apply_chat_template([user, assistant])
    prompt = processor.apply_chat_template([user], add_generation_prompt=True)
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


def _parts(user: str) -> list[dict[str, str]]:
    """A user's message in the parts that chat templates take."""
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(user.split(IMAGE_TAG)):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": piece}] if piece else []
    return parts
