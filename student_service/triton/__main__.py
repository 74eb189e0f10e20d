"""`python -m student_service.triton`: run a Triton server with the student in it, and change what it serves."""

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from world2vlm.settings import StudentSettings

if TYPE_CHECKING:
    from student_service.triton.deploy import Deployer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Repository = Annotated[Path, typer.Option(help="Triton's model repository; `<repository>.state` lies beside it.")]
_REPOSITORY = Path("runs/triton/models")


@app.command()
def serve(
    repository: Repository = _REPOSITORY,
    work: Annotated[Path, typer.Option(help="For the server's backend and its log.")] = Path("runs/triton"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_port: int = 8001,
    http_port: int = 8000,
    metrics_port: int = 8002,
) -> None:
    """Run the server until SIGTERM or SIGINT, and bring back what dies."""
    from student_service.triton.repository import ModelRepository
    from student_service.triton.server import Ports, TritonServer
    from student_service.triton.watchdog import Watchdog
    from world2vlm import telemetry

    settings = StudentSettings.load()
    telemetry.configure_logging(settings.log_format, settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    models = ModelRepository(repository)
    models.clean_up()
    with TritonServer(repository, work, host=host, ports=Ports(grpc_port, http_port, metrics_port)) as server:
        Watchdog(server, models).run(stop)


@app.command()
def deploy(version: int, repository: Repository = _REPOSITORY) -> None:
    """Let a checkpoint of the store answer: verify, load beside, canary; refused, the one before keeps answering."""
    _report(_deployer(repository).deploy(version))


@app.command("roll-back")
def roll_back(repository: Repository = _REPOSITORY) -> None:
    """Let the version answer that answered before."""
    _report(_deployer(repository).roll_back())


def _deployer(repository: Path) -> "Deployer":
    from student_service.triton.deploy import Deployer
    from student_service.triton.repository import ModelRepository

    settings = StudentSettings.load()
    store = settings.store if "://" in settings.store else str(Path(settings.store).absolute())
    return Deployer(ModelRepository(repository), settings.triton_url, store, settings.student)


def _report(numbers: dict[str, int]) -> None:
    for model, number in numbers.items():
        typer.echo(f"{model}: version {number} answers")


if __name__ == "__main__":
    app()
