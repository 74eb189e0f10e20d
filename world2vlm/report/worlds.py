"""What is known of the worlds, as a table."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table

from world2vlm.reliability import WorldRow

_COLUMNS = ("world", "digest", "kept", "aside", "views", "accepted", "95%", "degrees", "metres", "weight")


def worlds_table(rows: Iterable[WorldRow]) -> Table:
    """Return a row for each world."""
    caption = "kept, aside: bundles; views: judged by gates; degrees, metres: mean pose error of those accepted"
    table = Table(title="Worlds", caption=caption, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in ("world", "digest") else "right", no_wrap=True)
    for row in rows:
        found = row.reliability
        low, high = found.interval
        accepted = (f"{found.accept_rate:.3f}", f"{low:.2f}-{high:.2f}") if found.judged else ("-", "-")
        weight = f"{found.weight:.2f}" if found.judged or found.exact else "-"
        counts = (str(count) for count in (row.bundles, row.rejected, found.judged))
        errors = (_figure(found.error_deg, 2), _figure(found.error_m, 3))
        table.add_row(row.world, row.digest[:8], *counts, *accepted, *errors, weight)
    return table


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
