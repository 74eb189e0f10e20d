"""`world2vlm demo` and `world2vlm up`: the whole system on this machine."""

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from world2vlm.errors import InvalidInputError


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report, the store and the logs.")] = Path("runs/demo"),
    mini: Annotated[bool, typer.Option("--mini", help="A tiny round: everything works, nothing is learned.")] = False,
) -> None:
    """Run one whole round on this machine while a client keeps asking, and write a report."""
    from rich.console import Console

    from world2vlm.demo import FULL, MINI, run_demo

    run_demo(out, MINI if mini else FULL, Console())


def up(
    logs: Annotated[Path, typer.Option(help="Folder for one log file a process.")] = Path("runs/logs"),
    beat: Annotated[bool, typer.Option(help="Also run the scheduler.")] = False,
) -> None:
    """Run the local stack in the foreground; Ctrl-C drains and stops it. Ports and the rest come from the settings."""
    from world2vlm.local import Stack, StackConfig
    from world2vlm.settings import StudentSettings, TeacherSettings

    teacher, student = TeacherSettings.load(), StudentSettings.load()
    if student.server_tls and not student.client_tls:
        raise InvalidInputError("the services serve with TLS: set tls_ca, so that they can be reached, too")
    config = StackConfig(
        store=student.store,
        logs=logs,
        teacher_port=teacher.port,
        student_port=student.port,
        redis_url=student.redis_url,
        beat=beat,
        control_token=student.control_token.get_secret_value(),
        tls=student.client_tls,
    )
    # SIGINT, too: who is started in the background by a script would ignore it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    try:
        with Stack(config) as stack:
            print(f"teacher {stack.teacher_url}\nstudent {stack.student_url}\nstore   {config.store}\nlogs    {logs}")
            print("Ctrl-C stops it.", flush=True)
            while True:
                stack.watch(3600.0)
    except KeyboardInterrupt:
        print("stopped")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
