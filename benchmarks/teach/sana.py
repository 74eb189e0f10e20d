"""SANA-WM: camera paths of one photo by diffusers' plain call, one by one, and in a batch, and how near to the peak."""

import json
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import (
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    SanaWMPipeline,
    SanaWMTransformer3DModel,
)
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.flop_counter import FlopCounterMode
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from benchmarks.timing import Result, interleave
from teacher_service.hub import choose_device
from teacher_service.paths import from_actions
from teacher_service.worlds.base import ImagineSpec, Photo
from teacher_service.worlds.diffusion_loading import Loaded, load
from teacher_service.worlds.framing import lay_track
from teacher_service.worlds.sana_sampling import SanaSampler
from teacher_service.worlds.sana_wm import SanaOptions
from teacher_service.worlds.takes import Audience
from world2vlm.actions import Action, Primitive
from world2vlm.cameras import Floats, intrinsics_from_fov
from world2vlm.files import write_atomically

_GUIDANCE = 5.0
_PROMPTS = ("A photograph of a place where nothing moves but the camera.", "")
# Side of the matrices whose product is what the device can do at best.
_MATRIX = {"cuda": 8192, "cpu": 512}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    model: Annotated[
        Path | None, typer.Option(help="Folder of a SanaWMPipeline; default: one of the real size, its weights random.")
    ] = None,
    width: Annotated[int, typer.Option(help="Pixels.")] = 1280,
    height: Annotated[int, typer.Option(help="Pixels.")] = 704,
    frames: Annotated[int, typer.Option(min=9, help="Of a path; 8 k + 1.")] = 17,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 20,
    paths: Annotated[int, typer.Option(min=1, help="Paths of the photo, and so the batch.")] = 4,
    device: Annotated[str, typer.Option(help="torch's; auto: a GPU where there is one.")] = "auto",
    repetitions: Annotated[int, typer.Option(min=1, help="How often each side makes all paths.")] = 3,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")] = None,
) -> None:
    """Time `SanaWMPipeline` called once a path, our sampler once a path, and our sampler once for all."""
    options = SanaOptions(str(model or ""), device=device, width=width, height=height, steps=steps)
    loaded = load("sana_wm", SanaWMPipeline, options, ()) if model else full_size(torch.device(choose_device(device)))
    photo = noise(width, height)
    poses = np.stack([turning(frames, degrees) for degrees in np.linspace(-2, 2, paths)])
    sampler, audience = SanaSampler(loaded, steps, _GUIDANCE), Audience([ImagineSpec(photo, ())])

    def plain() -> list[Any]:
        return [call(loaded, photo, path, seed, steps) for seed, path in enumerate(poses)]

    def singly() -> list[Any]:
        return [sampler.sample(photo, _PROMPTS, path[None], [seed], audience)[0] for seed, path in enumerate(poses)]

    def together() -> list[Any]:
        return list(sampler.sample(photo, _PROMPTS, poses, range(paths), audience))

    check_equal(plain(), singly(), together())
    sides = {"diffusers": plain, "batch of 1": singly, f"batch of {paths}": together}
    seconds = interleave({name: partial(finished, loaded, side) for name, side in sides.items()}, repetitions)
    sizes = {"paths": paths, "width": width, "height": height, "frames a path": frames, "steps": steps}
    result = Result("sana", "frames", paths * frames, sizes, seconds)
    result.publish(None)
    peak, needed = peak_flops(loaded), counted_flops(singly)
    content = {**result.as_json(), "peak_tflops": peak / 1e12, "counted_tflop": needed / 1e12}
    print(f"{needed / 1e12:.3f} TFLOP counted; a matrix product reaches {peak / 1e12:.2f} TFLOP/s on {loaded.device}")
    for name, side in content["sides"].items():
        side["share_of_peak"] = needed / side["median"] / peak
        print(f"{name:<16}{side['share_of_peak']:>8.1%} of that")
    if json_path is not None:
        write_atomically(json_path, json.dumps(content, indent=2).encode())


def full_size(device: torch.device) -> Loaded:
    """A pipeline of the published sizes with random weights: what it shows means nothing, what it costs does."""
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with device:
            transformer = SanaWMTransformer3DModel()  # type: ignore[no-untyped-call]
            vae = AutoencoderKLLTX2Video()  # type: ignore[no-untyped-call]
            encoder = Gemma2ForCausalLM(Gemma2Config())
    finally:
        torch.set_default_dtype(default)
    scheduler = FlowMatchEulerDiscreteScheduler()  # type: ignore[no-untyped-call]
    pipe: Any = SanaWMPipeline(words(), encoder, vae, transformer, scheduler)  # type: ignore[no-untyped-call]
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device)
    return Loaded(pipe, device, "")


def words() -> PreTrainedTokenizerFast:
    """A tokenizer that knows no word: an encoder with random weights needs none."""
    known = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=known, pad_token="<pad>", unk_token="<unk>"
    )
    return made


def noise(width: int, height: int) -> Photo:
    """A photo of nothing."""
    grains = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Photo(grains, intrinsics_from_fov(60.0, width, height))


def turning(frames: int, degrees: float) -> Floats:
    """A camera that turns by so much with every frame, float64 (frames, 4, 4)."""
    turn = Primitive.TURN_RIGHT if degrees > 0 else Primitive.TURN_LEFT
    path = from_actions([Action(turn, abs(degrees) or 0.1)] * (frames - 1))
    return lay_track(path, stride=8, step_m=1, step_deg=5).poses


def call(loaded: Loaded, photo: Photo, poses: Floats, seed: int, steps: int) -> Any:
    """One path as diffusers' users get it, as uint8."""
    k = photo.intrinsics
    video = loaded.pipe(
        image=Image.fromarray(photo.pixels),
        prompt=_PROMPTS[0],
        negative_prompt=_PROMPTS[1],
        c2w=poses,
        intrinsics=[k[0, 0], k[1, 1], k[0, 2], k[1, 2]],
        height=photo.pixels.shape[0],
        width=photo.pixels.shape[1],
        num_frames=len(poses),
        num_inference_steps=steps,
        guidance_scale=_GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
    ).frames
    return np.rint(video * 255).astype(np.uint8)


def check_equal(plain: list[Any], singly: list[Any], together: list[Any]) -> None:
    """Leave the program unless one path by our sampler is diffusers' own, byte for byte; say how far a batch is off."""
    if not all(map(np.array_equal, plain, singly)):
        raise SystemExit("the sampler does not make the frames that SanaWMPipeline makes")
    apart = max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(singly, together, strict=True))
    print(f"{len(plain)} paths are the same by diffusers and by ours, byte for byte; in a batch within {apart} levels")


def finished(loaded: Loaded, side: Any) -> None:
    """Run a side to its end, on the device, too."""
    side()
    if loaded.device.type == "cuda":
        torch.cuda.synchronize(loaded.device)


def counted_flops(side: Any) -> float:
    """Operations of the matrix products, convolutions and attentions of a side."""
    with FlopCounterMode(display=False) as counter:
        side()
    return float(counter.get_total_flops())


def peak_flops(loaded: Loaded) -> float:
    """What the best of ten large matrix products reaches, in the transformer's own precision."""
    side, dtype = _MATRIX[loaded.device.type], loaded.pipe.transformer.dtype
    matrix = torch.randn(side, side, dtype=dtype, device=loaded.device)

    def seconds() -> float:
        start = perf_counter()
        finished(loaded, lambda: matrix @ matrix)
        return perf_counter() - start

    return 2 * side**3 / min(seconds() for _ in range(10))


if __name__ == "__main__":
    app()
