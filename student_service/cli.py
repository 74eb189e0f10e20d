"""The student service's commands. Heavy imports are inside the functions, so that `--help` is instant."""

from typing import Annotated, Any

import typer


def register(app: typer.Typer, serve: typer.Typer) -> None:
    """Add the student service's command to the program's."""
    serve.command("student")(serve_student)


def serve_student(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: from the settings.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: from the settings.")] = None,
) -> None:
    """Run the student service: it serves the checkpoint that was promoted last."""
    from student_service.app import run
    from world2vlm.settings import StudentSettings

    given: dict[str, Any] = {"host": host, "port": port}
    run(StudentSettings.load(**{name: value for name, value in given.items() if value is not None}))
