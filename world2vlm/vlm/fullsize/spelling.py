"""Sets of token sequences as rules of a grammar (llguidance's Lark dialect)."""

from collections import defaultdict
from collections.abc import Iterable

Sequences = frozenset[tuple[int, ...]]
_EMPTY: Sequences = frozenset({()})


class Rules:
    """The rules of one grammar.

    Sequences that begin alike share what follows, and so do those that end alike, so a thousand numbers take a dozen
    rules; a token that must follow stands alone, which is how llguidance knows that it is forced.
    """

    def __init__(self) -> None:
        self._rules: list[str] = []
        self._names: dict[Sequences, str] = {}

    def one_of(self, sequences: Iterable[tuple[int, ...]]) -> str:
        """The name of a rule for one of some sequences; at least one, and none of them empty."""
        return self._name(frozenset(sequences))

    def in_order(self, places: Iterable[Iterable[tuple[int, ...]]]) -> str:
        """One sequence of each set, one after the other."""
        return " ".join(map(self.one_of, places))

    def text(self, start: str) -> str:
        """The whole grammar."""
        return "\n".join((f"start: {start}", *self._rules))

    def _name(self, sequences: Sequences) -> str:
        if sequences not in self._names:
            body = self._body(sequences - _EMPTY)
            self._names[sequences] = name = f"s{len(self._names)}"
            self._rules.append(f"{name}: ({body})?" if () in sequences else f"{name}: {body}")
        return self._names[sequences]

    def _body(self, sequences: Sequences) -> str:
        rests: dict[int, set[tuple[int, ...]]] = defaultdict(set)
        for first, *rest in sequences:
            rests[first].add(tuple(rest))
        firsts: dict[Sequences, list[int]] = defaultdict(list)
        for first, followers in rests.items():
            firsts[frozenset(followers)].append(first)
        return " | ".join(self._branch(tokens, followers) for followers, tokens in firsts.items())

    def _branch(self, firsts: list[int], followers: Sequences) -> str:
        tokens = f"<[{','.join(map(str, sorted(firsts)))}]>"
        return tokens if followers == _EMPTY else f"{tokens} {self._name(followers)}"
