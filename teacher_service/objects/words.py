"""What detectors call things, and what questions call them."""

from collections.abc import Sequence

from world2vlm.errors import InvalidInputError


def as_word(label: str) -> str:
    """Write a label as a question does: in lower case, with blanks for underscores and hyphens."""
    return " ".join(label.replace("_", " ").replace("-", " ").lower().split())


def as_words(vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Write a vocabulary's entries as questions do.

    Raises:
        InvalidInputError: an entry is empty, there twice, or has a full stop, which parts the entries of a prompt.
    """
    words = tuple(map(as_word, vocabulary))
    if any(not word or "." in word for word in words) or len(set(words)) < len(words):
        raise InvalidInputError("every entry of a vocabulary must be there once, not be empty, and have no full stop")
    return words


def which_word(phrase: str, words: Sequence[str]) -> str:
    """Return the one entry of a vocabulary that a phrase of Grounding DINO's means; empty where it is not one.

    A phrase is the pieces of the prompt that a box answered to: `dining` for `dining table`, but also
    `chair. dining table` where the model could not decide.
    """
    said = {piece for piece in phrase.replace(".", " ").split() if not piece.startswith("[")}
    # The whole of an entry says more than a piece of one: `table` is no `dining table` where both are looked for.
    whole = [word for word in words if set(word.split()) == said]
    meant = whole or [word for word in words if said and said <= set(word.split())]
    return meant[0] if len(meant) == 1 else ""
