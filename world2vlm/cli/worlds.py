"""`worlds report`: how far the worlds behind a store's bundles can be trusted."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    store: Annotated[Path | None, typer.Option(help="Store to read; default: from the settings.")] = None,
) -> None:
    """Print what the gates say about each world: how many of its views they accept, its pose errors, its weight."""
    from rich.console import Console

    from world2vlm.reliability import reliability_table
    from world2vlm.report.worlds import worlds_table
    from world2vlm.settings import TrainerSettings
    from world2vlm.store import Store

    rows = reliability_table(Store(store or TrainerSettings.load().store))
    Console().print(worlds_table(rows))
