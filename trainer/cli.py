"""The trainer's commands. Heavy imports are inside the functions, so that `--help` is instant."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from world2vlm.rounds import RoundPlan

if TYPE_CHECKING:
    from world2vlm.settings import TrainerSettings
    from world2vlm.store import Store

rounds = typer.Typer(help="Rounds: imagine, train, evaluate, promote.", no_args_is_help=True)
jobs = typer.Typer(help="Jobs: imagine and label a dataset, and train nobody.", no_args_is_help=True)

Seed = Annotated[int, typer.Option(help="Which block of scenes to train on, and the seed of training.")]
World = Annotated[str, typer.Option(help="The teacher's world; default: renderer, or geometric with --photos.")]
Photos = Annotated[
    Path | None,
    typer.Option(help="Folder of photographs to imagine in place of rooms; a sub-folder is one place."),
]
Fov = Annotated[
    float | None,
    typer.Option(help="The photographs' horizontal field of view in degrees; default: each one's EXIF, else 54."),
]
Watch = Annotated[bool, typer.Option("--watch", help="Stay and show the progress.")]


def register(app: typer.Typer, serve: typer.Typer) -> None:
    """Add the trainer's commands to the program's."""
    from trainer.cli_checkpoints import checkpoints, evaluate, export_held_out
    from trainer.cli_training import train

    serve.command()(worker)
    serve.command()(beat)
    app.command()(label)
    app.command()(train)
    app.command()(evaluate)
    app.command()(export_held_out)
    app.add_typer(rounds, name="rounds")
    app.add_typer(jobs, name="jobs")
    app.add_typer(checkpoints, name="checkpoints")


def worker(
    name: Annotated[str, typer.Option(help="Name of this worker; unique on this machine.")] = "worker",
    queues: Annotated[str, typer.Option(help="Queues to work on.")] = "light,heavy",
) -> None:
    """Run a worker: it imagines, labels, trains and evaluates."""
    # Both are read when the libraries are loaded. A container's SIGTERM waits for the tasks, but not for ever; and
    # torch's idle threads spin for microseconds only before they leave their cores to the services: not at all costs
    # training a quarter of its steps.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    from trainer.app import run_worker

    run_worker(_settings(), name, queues.split(","))


def beat(
    reconcile_seconds: Annotated[float, typer.Option(min=1, help="How often to look for dropped work.")] = 60,
    nightly: Annotated[str, typer.Option(metavar="HH:MM", help="Start a round at this time (UTC) every day.")] = "",
) -> None:
    """Run the scheduler: it picks up dropped work and starts nightly rounds."""
    from trainer.app import run_beat

    run_beat(_settings(), reconcile_seconds, _time_of_day(nightly) if nightly else None)


def label(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders with bundles in them, or bundles.")],
    out: Annotated[Path, typer.Option(help="The file to write; image paths in it are relative to its folder.")],
    seed: Annotated[int, typer.Option(help="Chooses among the possible questions.")] = 0,
    balanced: Annotated[
        bool, typer.Option("--balance", help="Keep as many yes as no for each action text, as a dataset must.")
    ] = False,
) -> None:
    """Write task records from bundles."""
    from trainer.label_files import label_folders
    from trainer.labelling import balance
    from world2vlm.records import write_records

    labelled = label_folders(folders, out.parent, seed, _settings().policy)
    records = balance(labelled.records, seed) if balanced else labelled.records
    write_records(out, records)
    typer.echo(f"{len(records)} task records in {out}, {labelled.source}")


@rounds.command("start")
def start_round(
    round_id: Annotated[str, typer.Option("--id", help="Name of the round.")] = "",
    seed: Seed = RoundPlan.seed,
    train_scenes: int = RoundPlan.train_scenes,
    test_scenes: int = RoundPlan.test_scenes,
    calibration_scenes: int = RoundPlan.calibration_scenes,
    trajectories: Annotated[int, typer.Option(help="Trajectories in each scene.")] = RoundPlan.trajectories_per_scene,
    scenes_per_shard: Annotated[int, typer.Option(help="Scenes that one task takes.")] = RoundPlan.scenes_per_shard,
    recipe: str = RoundPlan.recipe,
    steps: Annotated[int, typer.Option(help="Optimiser steps; 0: as the recipe says.")] = RoundPlan.steps,
    world: World = "",
    photos: Photos = None,
    fov: Fov = None,
    watch: Watch = False,
) -> None:
    """Start a round, on procedural rooms or on your photographs.

    With --photos the numbers of scenes are those of photographs, at most; what is held out goes by places.
    """
    from trainer.plans import fresh_id, make_plan

    settings = _settings()
    gathered = _gather(settings, photos, fov, world)
    plan = make_plan(
        round_id or fresh_id("round"),
        student=settings.student,
        seed=seed,
        train_scenes=train_scenes,
        test_scenes=test_scenes,
        calibration_scenes=calibration_scenes,
        trajectories_per_scene=trajectories,
        scenes_per_shard=scenes_per_shard,
        recipe=recipe,
        steps=steps,
        world=world,
        photos=gathered,
    )
    _start(settings, plan, watch)


@rounds.command("list")
def list_all() -> None:
    """List all rounds and jobs with their next step."""
    from trainer.pieces import next_step
    from trainer.watching import outcome
    from world2vlm.rounds import RoundState, list_rounds

    store = _store(_settings())
    for round_id in list_rounds(store):
        state = RoundState(store, round_id)
        typer.echo(f"{round_id}\t{next_step(state)}\t{outcome(state)}")


@rounds.command("watch")
@jobs.command("watch")
def watch_round(round_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show a round's progress until it is over, then its scores; exit code 1 where it was stopped."""
    _watch(_store(_settings()), round_id)


@jobs.command("submit")
def submit_job(
    job_id: Annotated[str, typer.Option("--id", help="Name of the job.")] = "",
    seed: Seed = RoundPlan.seed,
    scenes: Annotated[int, typer.Option(help="Scenes of the training split.")] = 100,
    test_scenes: Annotated[int, typer.Option(help="Held-out scenes.")] = 20,
    trajectories: Annotated[int, typer.Option(help="Trajectories in each scene.")] = 6,
    world: World = "",
    photos: Photos = None,
    fov: Fov = None,
    watch: Watch = False,
) -> None:
    """Imagine and label a dataset."""
    from trainer.pieces import NO_TRAINING
    from trainer.plans import fresh_id, make_plan

    settings = _settings()
    gathered = _gather(settings, photos, fov, world)
    plan = make_plan(
        job_id or fresh_id("job"),
        student=settings.student,
        seed=seed,
        train_scenes=scenes,
        test_scenes=test_scenes,
        trajectories_per_scene=trajectories,
        recipe=NO_TRAINING,
        world=world,
        photos=gathered,
    )
    _start(settings, plan, watch)


def _gather(settings: "TrainerSettings", photos: Path | None, fov: float | None, world: str) -> str:
    """The digest of a folder's photographs in the store; empty where no folder is given. The world is checked first."""
    from trainer.gathering import gather
    from trainer.plans import PHOTO_WORLD, check_photo_world
    from trainer.submitting import check_world

    if photos is None and fov is not None:
        raise typer.BadParameter("--fov is the photographs' field of view: it goes with --photos")
    if photos is not None:
        check_photo_world(world)
    name = world or (RoundPlan.world if photos is None else PHOTO_WORLD)
    if not check_world(settings, name, "scene" if photos is None else "photo"):
        typer.echo(f"no teacher answers at {settings.teacher_url}: its world {name!r} was not checked", err=True)
    if photos is None:
        return ""
    gathered = gather(_store(settings), photos, fov)
    for line in gathered.summary:
        typer.echo(line, err=True)
    return gathered.collection.digest


def _start(settings: "TrainerSettings", plan: RoundPlan, watch: bool) -> None:
    from trainer.submitting import submit

    store = _store(settings)
    submitted = submit(store, settings.redis_url, plan)
    if not submitted.is_new:
        typer.echo(f"round {plan.id} exists already: not started again")
    elif submitted.is_sent:
        typer.echo(plan.id)
    else:
        typer.echo(f"{plan.id} (no broker answers: it begins when a worker starts on the store {store.root})")
    if watch:
        _watch(store, plan.id)


def _watch(store: "Store", round_id: str) -> None:
    from rich.console import Console

    from trainer.watching import outcome, scores, watch
    from world2vlm.rounds import RoundState

    ended, state = watch(store, round_id, Console(stderr=True)), RoundState(store, round_id)
    if table := scores(state):
        typer.echo(f"{table}all figures: {store.root}/rounds/{round_id}/evaluation.json")
    typer.echo(outcome(state))
    if ended == "stopped":
        raise typer.Exit(1)


def _settings() -> "TrainerSettings":
    from world2vlm.settings import TrainerSettings

    return TrainerSettings.load()


def _store(settings: "TrainerSettings") -> "Store":
    from world2vlm.store import Store

    return Store(settings.store)


def _time_of_day(text: str) -> tuple[int, int]:
    try:
        parsed = time.strptime(text, "%H:%M")
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time of day; use HH:MM") from error
    return parsed.tm_hour, parsed.tm_min
