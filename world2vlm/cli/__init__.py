"""The command `world2vlm`: the shared commands, and whatever the installed services add."""

import importlib
import sys
from importlib.metadata import entry_points
from typing import Annotated

import typer

from world2vlm import __version__
from world2vlm.cli import asking, running, scoring
from world2vlm.errors import World2VLMError

GROUP = "world2vlm.commands"
USER_ERROR = 2


def main() -> None:
    """Run the command line; an error that a user can mend ends as one line on stderr and exit code 2."""
    try:
        build_app()()
    except World2VLMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)


def build_app() -> typer.Typer:
    """Assemble the application: one command group, `serve` as a sub-group."""
    app = typer.Typer(
        name="world2vlm",
        help="Teach a vision-language model to imagine camera motion, and serve it without a world model.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
    )
    serve = typer.Typer(help="Run one process of the system.", no_args_is_help=True)
    app.callback()(_options)
    app.command()(running.demo)
    app.command()(running.up)
    app.command()(asking.ask)
    app.command()(scoring.score)
    app.add_typer(serve, name="serve")
    _add_services(app, serve)
    return app


def _add_services(app: typer.Typer, serve: typer.Typer) -> None:
    """Let each service register its commands; one whose extra is not installed has none."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            module = importlib.import_module(entry.module)
        except ModuleNotFoundError:
            continue
        getattr(module, entry.attr)(app, serve)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"world2vlm {__version__}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Teach a vision-language model to imagine camera motion, and serve it without a world model."""
