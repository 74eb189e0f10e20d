"""The program that holds HY-WorldPlay (the autoregressive model on HunyuanVideo 1.5, 480p).

Its environment, made once (Python 3.10 or 3.11, a GPU with 40 to 80 GB):

    git clone https://github.com/Tencent-Hunyuan/HY-WorldPlay /opt/hy && cd /opt/hy
    git checkout da2d0c26eb0edb647f56e164ffd966490eb75282
    python3.10 -m venv /opt/hy/.venv
    /opt/hy/.venv/bin/pip install -r /opt/hy/requirements.txt
    /opt/hy/.venv/bin/pip install -r teacher_service/workers/hy_worldplay/requirements.txt

It is no package that pip installs: the setting `repository` names the clone.
"""

import importlib
import threading
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from teacher_service.workers.framing import frame_photo
from teacher_service.workers.hy_worldplay.conversion import CHUNK_LATENTS, Plan, plan_path
from teacher_service.workers.serving import Asked, CancelledError, Shot
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError

_STATE = Namespace(
    use_sageattn=False,
    sage_blocks_range="0-53",
    enable_torch_compile=False,
    use_fp8_gemm=False,
    quant_type="fp8-per-block",
    include_patterns="double_blocks",
    use_vae_parallel=False,
)


def load(options: Mapping[str, Any]) -> "HyWorldPlay":
    """Load the pipeline with its action weights."""
    return HyWorldPlay(options)


class HyWorldPlay:
    """A loaded HY-WorldPlay.

    Args:
        options: `weights`, `action_weights`, `width`, `height`, `steps`, `few_step`, `offload`, `prompt`,
            `max_latents` and `units_per_metre`; see `teacher_service.worlds.hy_worldplay`.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._units_per_metre: float = options["units_per_metre"]
        importlib.import_module("hyvideo.commons.parallel_states").initialize_parallel_state(sp=1)
        importlib.import_module("hyvideo.commons.infer_state").initialize_infer_state(_STATE)
        pipelines = importlib.import_module("hyvideo.pipelines.worldplay_video_pipeline")
        self._pipe: Any = pipelines.HunyuanVideo_1_5_Pipeline.create_pipeline(
            pretrained_model_name_or_path=options["weights"],
            transformer_version="480p_i2v",
            create_sr_pipeline=False,
            enable_offloading=options["offload"],
            action_ckpt=options["action_weights"],
        )

    def imagine(self, asked: Asked, cancelled: threading.Event) -> Iterator[Shot]:
        """See `teacher_service.workers.serving.Backend`; poses are the ones that the path was snapped to."""
        width, height = self._options["width"], self._options["height"]
        photo, intrinsics = frame_photo(asked.pixels, asked.intrinsics, width, height)
        plan = plan_path(asked.poses, self._units_per_metre)
        if len(plan.c2w) > self._options["max_latents"]:
            raise InvalidInputError(
                f"the path takes {len(plan.c2w)} latents; at most {self._options['max_latents']} are allowed"
            )
        still = plan.latent_of.count(0)
        for pose in plan.c2w[[0] * still]:
            yield Shot(photo, pose, intrinsics, imagined=False)
        if still == len(plan.latent_of):
            return
        video = self._run(photo, intrinsics, plan, asked.seed, cancelled)
        for index, latent in enumerate(plan.latent_of[still:], start=still):
            yield Shot(video[plan.frame_of(index)], plan.c2w[latent], intrinsics)

    def _run(
        self, photo: NDArray[np.uint8], intrinsics: Floats, plan: Plan, seed: int, cancelled: threading.Event
    ) -> NDArray[np.uint8]:
        """Make the plan's whole video: uint8 (frames, height, width, 3)."""
        import torch

        height, width = photo.shape[:2]
        ks = torch.from_numpy(normalise_intrinsics(intrinsics, width, height))
        with TemporaryDirectory(prefix="hy-worldplay-") as folder, _cancellable(self._pipe.transformer, cancelled):
            path = Path(folder, "photo.png")
            Image.fromarray(photo).save(path, compress_level=1)
            made = self._pipe(
                prompt=self._options["prompt"],
                aspect_ratio="16:9",
                video_length=plan.frames,
                prompt_rewrite=False,
                num_inference_steps=self._options["steps"],
                enable_sr=False,
                negative_prompt="",
                seed=seed,
                reference_image=str(path),
                output_type="pt",
                viewmats=torch.from_numpy(plan.viewmats(self._units_per_metre))[None],
                Ks=ks.repeat(len(plan.c2w), 1, 1)[None],
                action=torch.from_numpy(plan.labels)[None],
                few_step=self._options["few_step"],
                chunk_latent_frames=CHUNK_LATENTS,
                model_type="ar",
                user_height=height,
                user_width=width,
            )
        video = (made.videos[0] * 255).round().clamp(0, 255).to(torch.uint8)
        pixels: NDArray[np.uint8] = video.permute(1, 2, 3, 0).contiguous().numpy()
        return pixels


def normalise_intrinsics(intrinsics: Floats, width: int, height: int) -> Floats:
    """K in shares of the frame's width and height, as the model takes it; the principal point must be the centre."""
    return np.asarray(np.diag([1 / width, 1 / height, 1.0]) @ intrinsics)


@contextmanager
def _cancellable(transformer: Any, cancelled: threading.Event) -> Iterator[None]:
    """End the pipeline before its next forward pass once `cancelled` is set; it has no way of its own."""

    def check(*_: Any) -> None:
        if cancelled.is_set():
            raise CancelledError

    handle = transformer.register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()
