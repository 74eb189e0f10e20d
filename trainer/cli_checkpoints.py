"""Commands about checkpoints: list, add, verify, promote, roll back, evaluate."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from world2vlm.errors import InvalidInputError

if TYPE_CHECKING:
    from trainer.suites.running import SuiteRun
    from world2vlm.checkpoints import Registry
    from world2vlm.settings import TrainerSettings

checkpoints = typer.Typer(help="Checkpoints: list, add, verify, promote, roll back.", no_args_is_help=True)
Version = Annotated[int, typer.Argument(help="A checkpoint's version.")]


@checkpoints.command("list")
def list_all() -> None:
    """List all checkpoints; `*` marks the one that serves."""
    registry = _registry(_settings())
    serving = registry.serving()
    for manifest in registry.list():
        mark = "*" if manifest.version == serving else " "
        typer.echo(
            f"{mark} {manifest.version}\tparent {manifest.parent or '-'}\t{manifest.kind}\t{manifest.recipe}\t"
            f"{manifest.created}\t{manifest.digest[:12]}"
        )


@checkpoints.command()
def add(
    folder: Annotated[Path, typer.Argument(help="A model's files or an adapter's, as `train --out` leaves them.")],
) -> None:
    """Publish a fine-tuned model of transformers as a version; the base of an adapter becomes one before it."""
    from world2vlm import fullsize

    manifest = fullsize.add(_registry(_settings()), folder)
    base = f", an adapter for version {manifest.parent}" if manifest.kind == "lora" else ""
    typer.echo(f"version {manifest.version}{base}: {len(manifest.files)} files")


@checkpoints.command()
def verify(version: Version) -> None:
    """Compare every byte of a checkpoint with its manifest."""
    manifest = _registry(_settings()).verify(version)
    typer.echo(f"version {version}: {len(manifest.files)} files agree with the manifest {manifest.digest}")


@checkpoints.command()
def promote(version: Version) -> None:
    """Have the student service serve a version."""
    from trainer.services import StudentControl

    typer.echo(json.dumps(StudentControl(_settings()).swap(version)))


@checkpoints.command()
def rollback() -> None:
    """Have the student service serve what served before."""
    from trainer.services import StudentControl

    typer.echo(json.dumps(StudentControl(_settings()).roll_back()))


def evaluate(
    checkpoint: Annotated[int, typer.Option(metavar="VERSION", help="The checkpoint to evaluate.")],
    benchmark: Annotated[str, typer.Option(help="Which questions: held-out, sat, vsi-bench or mindcube.")] = "held-out",
    dataset: Annotated[str, typer.Option(metavar="DIGEST", help="Whose held-out questions; default: its own.")] = "",
    data: Annotated[
        str,
        typer.Option(help="A benchmark's folder or file, or OWNER/NAME on the hub; default: its own there."),
    ] = "",
    revision: Annotated[str, typer.Option(help="The commit, tag or branch to fetch from the hub.")] = "",
    circular: Annotated[
        bool, typer.Option("--circular", help="Show choices in all rotations; all must be right.")
    ] = False,
    unshuffled: Annotated[bool, typer.Option("--unshuffled", help="Show choices in the file's own order.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Ask a random sample of so many questions; 0 = all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the sample, the shuffles and the intervals.")] = 0,
    against: Annotated[int | None, typer.Option(metavar="VERSION", help="Compare with this one, paired.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Ask a checkpoint questions and print its scores with their intervals and baselines.

    --data and what follows are for published benchmarks; with --out these also leave tables (.md) and a chart (.svg).
    """
    from trainer.evaluating import HELD_OUT, check_benchmark
    from world2vlm.telemetry import configure_logging

    settings = _settings()
    configure_logging(settings.log_format, settings.log_level)
    check_benchmark(benchmark)
    if benchmark != HELD_OUT:
        run = _suite_run(benchmark, data, revision, circular, unshuffled, limit, seed)
        _evaluate_suite(settings, checkpoint, run, against, out)
    elif data or revision or circular or unshuffled or limit or against is not None:
        raise InvalidInputError(f"{HELD_OUT} takes --dataset and --out only")
    else:
        _evaluate_held_out(settings, checkpoint, dataset, out)


def export_held_out(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The Parquet file to write.")],
    dataset: Annotated[str, typer.Option(metavar="DIGEST", help="The dataset; default: the only one.")] = "",
) -> None:
    """Write held-out questions with their pictures to one file, for lmms-eval and others."""
    from trainer.evaluating import export_held_out
    from world2vlm.store import Store

    settings = _settings()
    count = export_held_out(Store(settings.store), dataset, out, settings.policy)
    typer.echo(f"{count} questions in {out}")


def _evaluate_held_out(settings: "TrainerSettings", version: int, digest: str, out: Path | None) -> None:
    from trainer.evaluating import evaluate_checkpoint
    from trainer.evaluation import markdown
    from world2vlm.store import Store

    rows, figures = evaluate_checkpoint(Store(settings.store), _registry(settings), version, digest)
    typer.echo(markdown(rows), nl=False)
    if out is not None:
        out.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def _evaluate_suite(
    settings: "TrainerSettings", version: int, run: "SuiteRun", against: int | None, out: Path | None
) -> None:
    from trainer.evaluation import markdown
    from trainer.suites import report
    from trainer.suites.running import evaluate_suite

    tables, result = evaluate_suite(_registry(settings), version, run, against)
    typer.echo("\n".join(map(markdown, tables)), nl=False)
    if out is not None:
        report.write(out, result, tables)


def _suite_run(
    name: str, data: str, revision: str, circular: bool, unshuffled: bool, limit: int, seed: int
) -> "SuiteRun":
    from trainer.suites import SUITES, Order
    from trainer.suites.running import SuiteRun

    if circular and unshuffled:
        raise InvalidInputError("--circular and --unshuffled exclude each other")
    order = Order.CIRCULAR if circular else Order.PUBLISHED if unshuffled else Order.SHUFFLED
    return SuiteRun(SUITES[name], data, order, limit, seed, revision)


def _settings() -> "TrainerSettings":
    from world2vlm.settings import TrainerSettings

    return TrainerSettings.load()


def _registry(settings: "TrainerSettings") -> "Registry":
    from world2vlm.checkpoints import Registry
    from world2vlm.store import Store

    return Registry(Store(settings.store), settings.student)
