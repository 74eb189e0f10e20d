"""A suite's scores as an SVG picture that stands alone: question types have long names, so the bars lie."""

from collections.abc import Mapping
from html import escape

from trainer.suites.guessing import GUESSES
from trainer.suites.summary import BLIND, Figures

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM, _SLOT, _BAR = 960, 250, 30, 64, 30, 30, 16
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_STYLE = (
    "text{font:13px sans-serif;fill:#222}.bar{fill:#4878a8}.interval{stroke:#222;stroke-width:2}"
    ".guess{stroke:#c04040;stroke-width:3}.blind{fill:#fff;stroke:#c04040;stroke-width:2}.grid{stroke:#ddd}"
)


def draw(figures: Figures, title: str) -> str:
    """One bar for each row with its 95% interval, a line at the best guess and a ring at the blind student's score."""
    height = _TOP + _SLOT * len(figures) + _BOTTOM
    parts = [_text(_LEFT, 22, title, "start"), _legend(), *(_grid(share, height) for share in _SHARES)]
    parts += [_bar(_TOP + _SLOT * index, name, row) for index, (name, row) in enumerate(figures.items())]
    body = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}"><style>{_STYLE}</style>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>{body}</svg>\n'
    )


def _bar(top: float, name: str, row: Mapping[str, float]) -> str:
    middle = top + _SLOT / 2
    best = max(GUESSES, key=lambda guess: row[guess])
    about = (
        f"{name}: {row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f}), n = {row['n']:.0f}; "
        f"{best} {row[best]:.3f}, blind {row[BLIND]:.3f}"
    )
    return (
        f"<g><title>{escape(about)}</title>{_text(_LEFT - 8, middle + 4, name, 'end')}"
        f'<rect class="bar" x="{_LEFT}" y="{middle - _BAR / 2:.1f}" width="{_x(row["score"]) - _LEFT:.1f}" '
        f'height="{_BAR}"/>'
        f'<line class="interval" x1="{_x(row["low"]):.1f}" x2="{_x(row["high"]):.1f}" y1="{middle:.1f}" '
        f'y2="{middle:.1f}"/>'
        f'<line class="guess" x1="{_x(row[best]):.1f}" x2="{_x(row[best]):.1f}" y1="{middle - 12:.1f}" '
        f'y2="{middle + 12:.1f}"/>'
        f'<circle class="blind" cx="{_x(row[BLIND]):.1f}" cy="{middle:.1f}" r="4"/></g>'
    )


def _legend() -> str:
    y = 46
    return (
        f'<line class="interval" x1="{_LEFT}" x2="{_LEFT + 24}" y1="{y - 4}" y2="{y - 4}"/>'
        f"{_text(_LEFT + 30, y, '95% interval', 'start')}"
        f'<line class="guess" x1="{_LEFT + 140}" x2="{_LEFT + 140}" y1="{y - 14}" y2="{y + 4}"/>'
        f"{_text(_LEFT + 150, y, 'best guess', 'start')}"
        f'<circle class="blind" cx="{_LEFT + 250}" cy="{y - 4}" r="4"/>'
        f"{_text(_LEFT + 262, y, 'shown grey pictures', 'start')}"
    )


def _grid(share: float, height: float) -> str:
    line = f'<line class="grid" x1="{_x(share):.1f}" x2="{_x(share):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>'
    return line + _text(_x(share), height - 10, f"{share:.2f}", "middle")


def _x(share: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
