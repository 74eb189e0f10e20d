"""The teacher's commands. Heavy imports are inside the functions, so that `--help` is instant."""

from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer, serve: typer.Typer) -> None:
    """Add the teacher's commands to the program's."""
    serve.command("teacher")(serve_teacher)
    app.command()(imagine)


def serve_teacher(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: from the settings.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; default: from the settings.")] = None,
) -> None:
    """Run the teacher service: it imagines trajectories through rooms and from photos."""
    from teacher_service.app import run
    from world2vlm.settings import TeacherSettings

    given: dict[str, Any] = {"host": host, "port": port}
    run(TeacherSettings.load(**{name: value for name, value in given.items() if value is not None}))


def imagine(
    image: Annotated[str, typer.Argument(help="A photo, or the word 'motorcycle' for a sample with depth.")],
    actions: Annotated[str, typer.Option(help="For example 'move forward 0.5 meters; turn left 30 degrees'.")],
    out: Annotated[Path, typer.Option(help="Folder that the bundle goes into.")],
    world: Annotated[str, typer.Option(help="The teacher's world; default: its first for photos.")] = "",
    depth: Annotated[
        Path | None, typer.Option(help="The photo's depth: .npy in metres, or 16-bit .png in millimetres.")
    ] = None,
    fov: Annotated[float, typer.Option(help="The photo's horizontal field of view in degrees.")] = 54.0,
    max_width: Annotated[int, typer.Option(help="Wider photos are scaled down to this.", min=16)] = 640,
    url: Annotated[str, typer.Option(help="host:port of a teacher; default: one inside this process.")] = "",
) -> None:
    """Imagine what a photo's camera would see along a path: a bundle, and all of its frames in strip.png."""
    from teacher_service.imagine import imagine_photo
    from teacher_service.photos import SAMPLE, load_photo, motorcycle
    from world2vlm.actions import parse_actions

    parsed = parse_actions(actions)
    photo = motorcycle() if image == SAMPLE else load_photo(Path(image), depth, fov, max_width)
    print(imagine_photo(photo, Path(image).stem, parsed, out, world, url))
