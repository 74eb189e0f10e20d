"""`python -m trainer worker` or `python -m trainer beat`: one process of the trainer."""

import sys

import typer

from trainer.cli import beat, worker
from world2vlm.errors import World2VLMError


def main() -> None:
    """Run the process; an error that an operator can mend ends as one line on stderr."""
    app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
    app.command()(worker)
    app.command()(beat)
    try:
        app()
    except World2VLMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
