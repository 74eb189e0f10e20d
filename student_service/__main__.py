"""`python -m student_service`: serve until SIGTERM or SIGINT. Settings: `WORLD2VLM_*` and `world2vlm.toml`."""

import typer

from student_service.cli import serve_student

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(serve_student)

if __name__ == "__main__":
    app()
