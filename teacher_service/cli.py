"""The teacher's commands. Heavy imports are inside the functions, so that `--help` is instant."""

from pathlib import Path
from typing import Annotated, Any

import typer

from world2vlm.cli.worlds import report

worlds = typer.Typer(help="What the worlds made, and how good it is.", no_args_is_help=True)


def register(app: typer.Typer, serve: typer.Typer) -> None:
    """Add the teacher's commands to the program's."""
    serve.command("teacher")(serve_teacher)
    app.command()(imagine)
    worlds.command()(report)
    app.add_typer(worlds, name="worlds")


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
    fov: Annotated[
        float | None,
        typer.Option(help="The photo's horizontal field of view in degrees; default: what its EXIF says, else 54."),
    ] = None,
    max_width: Annotated[int, typer.Option(help="Wider photos are scaled down to this.", min=16)] = 640,
    url: Annotated[str, typer.Option(help="host:port of a teacher; default: one inside this process.")] = "",
) -> None:
    """Imagine what a photo's camera would see along a path.

    Writes a bundle and prints its folder: frames/, observed/ (what of each frame the photo shows), strip.png and
    imagined.webp. Each frame's figures, and what the gates say, go to stderr. A path that a gate rejects ends with exit
    code 2; its bundle says why, and nobody learns from it. One rejected before any frame is seen (an obstacle is
    in the way) leaves no bundle: the error says why.
    """
    from teacher_service.imagine import imagine_photo
    from teacher_service.photos import SAMPLE, load_photo, motorcycle, warn_of_photo
    from teacher_service.pictures.figures import describe_frames
    from world2vlm.actions import parse_actions

    parsed = parse_actions(actions)
    photo = motorcycle() if image == SAMPLE else load_photo(Path(image), depth, fov, max_width)
    if image != SAMPLE and fov is None and (warning := warn_of_photo(Path(image))):
        typer.echo(warning, err=True)
    made = imagine_photo(photo, Path(image).stem, parsed, out, world, url)
    for line in describe_frames(made.frames):
        typer.echo(line, err=True)
    typer.echo(made.folder)
    if made.rejected is not None:
        raise made.rejected


@worlds.command()
def sheet(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders with bundles in them, or bundles.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    rows: Annotated[int, typer.Option(min=1, help="Trajectories to show at most.")] = 40,
) -> None:
    """Draw a contact sheet of bundles: a row each, a key frame in each column, what a gate rejected in red."""
    import io

    from teacher_service.pictures import draw_sheet
    from world2vlm.files import write_atomically

    buffer = io.BytesIO()
    draw_sheet(folders, rows).save(buffer, "PNG")
    write_atomically(out, buffer.getvalue())
    typer.echo(out)
