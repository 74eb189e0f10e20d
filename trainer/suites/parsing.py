"""What was answered, read strictly: a response is one answer and nothing else, or it is none.

Looking for a choice inside a longer text rewards hedging ("left or right") and whoever happens to repeat the question;
so nothing is searched for here. What cannot be read is counted apart, as `unparsed`.
"""

import re
from collections.abc import Sequence

from trainer.suites.items import LETTERS

_LABELLED = re.compile(
    r"(?:\((?P<closed>[A-Za-z])\)|(?P<open>[A-Za-z])(?P<mark>[.):])?)(?:\s+(?P<text>\S.*))?", re.DOTALL
)
_NUMBER = re.compile(r"(?P<number>[-+]?(?:\d+(?:\.\d+)?|\.\d+))(?:\s*(?P<unit>[^\s\d].*))?")
_UNITS = frozenset(
    (
        "m",
        "cm",
        "m2",
        "m²",
        "meter",
        "meters",
        "metre",
        "metres",
        "centimeter",
        "centimeters",
        "centimetre",
        "centimetres",
    )
) | {f"square {unit}" for unit in ("meter", "meters", "metre", "metres")}


def parse_choice(response: str, shown: Sequence[str]) -> int | None:
    """Which of the choices was meant.

    Args:
        response: `B`, `b`, `(B)`, `B.`, `B)`, `B:`, each alone or with the choice's text after it, or the text alone;
            case, blanks and a full stop at the end do not matter.
        shown: the choices in the order of their letters.

    Returns:
        The choice's place in `shown`; None where the response is no answer, or may mean two choices.
    """
    given = normalise(response)
    choices = [normalise(choice) for choice in shown]
    meant = {index for index, choice in enumerate(choices) if given == choice}
    match = _LABELLED.fullmatch(given)
    if match:
        index = LETTERS.index((match["closed"] or match["open"]).upper())
        # After a letter only its own choice may follow, or nothing.
        if index < len(choices) and match["text"] in (None, choices[index]):
            meant.add(index)
    return meant.pop() if len(meant) == 1 else None


def parse_number(response: str) -> float | None:
    """The number that was answered: digits with an optional sign and decimals, and perhaps a unit of length or area.

    The unit is not converted: the question names the one to answer in.

    Returns:
        None where the response is no number.
    """
    match = _NUMBER.fullmatch(normalise(response))
    if match is None or (match["unit"] is not None and match["unit"] not in _UNITS):
        return None
    return float(match["number"])


def normalise(text: str) -> str:
    """Lower case, single blanks, no full stop at the end."""
    return " ".join(text.split()).casefold().removesuffix(".").rstrip()
