"""Stage 1 of SANA-WM, several camera paths of one photo at once. Imports torch.

`SanaWMPipeline` makes one video a call, and encodes photo and prompt anew each time. This is its denoising for a batch,
made of the pipeline's own parts: flow matching by Euler's steps, the first latent frame held at the photo's. For one
path it gives the pipeline's own bytes (a test compares them).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.pipelines.sana_wm.pipeline_sana_wm import DEFAULT_CHI_PROMPT
from numpy.typing import NDArray
from PIL import Image

from teacher_service.recent import Recent
from teacher_service.worlds.base import Photo
from teacher_service.worlds.diffusion_loading import ALIVE_A_PIXEL, ALIVE_A_TOKEN, REMEMBERED, Loaded, Sampler
from teacher_service.worlds.takes import Audience
from world2vlm.cameras import Floats

_REMEDY = "set offload, or lower width, height, max_batch or the path's length"


@dataclass(frozen=True)
class _Text:
    """Embeddings (1, 1, L, D) and masks (1, L) of a prompt and of its negative."""

    given: torch.Tensor
    given_mask: torch.Tensor
    negative: torch.Tensor
    negative_mask: torch.Tensor


class SanaSampler(Sampler):
    """Denoises camera paths.

    Args:
        loaded: a `SanaWMPipeline`.
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 = none.
    """

    def __init__(self, loaded: Loaded, steps: int, guidance: float) -> None:
        super().__init__(loaded, steps, guidance)
        self._texts: Recent[tuple[str, str], _Text] = Recent(REMEMBERED)
        self._firsts: Recent[str, torch.Tensor] = Recent(REMEMBERED)

    @torch.no_grad()
    def sample(
        self, photo: Photo, prompts: tuple[str, str], poses: Floats, seeds: Sequence[int], audience: Audience
    ) -> NDArray[np.uint8]:
        """Make a video for each path.

        Args:
            photo: of the frames' size.
            prompts: what the photo shows, and what it does not.
            poses: float64 (B, F, 4, 4) c2w; F = 8 k + 1.
            seeds: B of them.
            audience: who waits; told after each step.

        Returns:
            uint8 (B, F, height, width, 3).

        Raises:
            Stopped: nobody waits any more.
            OverloadedError: too little free memory.
        """
        with self._working(self._working_bytes(photo, *poses.shape[:2]), _REMEDY):
            text = self._texts.get(prompts, lambda: self._encode_prompts(prompts))
            first = self._firsts.get(photo.digest, lambda: self._encode_photo(photo))
            latents = self._denoise(photo, text, first, poses, seeds, audience)
            return np.stack([self._decode(latent[None]) for latent in latents])

    def _denoise(
        self, photo: Photo, text: _Text, first: torch.Tensor, poses: Floats, seeds: Sequence[int], audience: Audience
    ) -> torch.Tensor:
        pipe, guided = self._pipe, self._guidance > 1
        height, width = photo.pixels.shape[:2]
        dtype = pipe.transformer.dtype
        start = [self._noise(first, poses.shape[1], height, width, seed) for seed in seeds]
        latents, held = (torch.cat(parts) for parts in zip(*start, strict=True))
        embeds, mask = _repeated(text, len(seeds), guided)
        cameras = _doubled(self._cameras(photo, poses), guided)
        sizes = {"img_hw": torch.tensor([[height, width]], dtype=torch.float, device=self._device)}
        pipe.scheduler.set_timesteps(self._steps, device=self._device)
        for step, time in enumerate(pipe.scheduler.timesteps):
            times = torch.min(time.expand(held.shape).float(), (1.0 - held) * 1000.0)
            both = torch.cat([latents, latents]) if guided else latents
            noise = pipe.transformer(
                both,
                (torch.cat([times, times]) if guided else times)[:, :1, :, 0, 0],
                embeds,
                return_dict=False,
                data_info=sizes,
                mask=mask,
                **cameras,
            )[0]
            if guided:
                without, given = noise.chunk(2)
                noise = without + self._guidance * (given - without)
            moved = pipe.scheduler.step(
                -noise.flatten(2).transpose(1, 2),
                time,
                latents.flatten(2).transpose(1, 2),
                per_token_timesteps=times.flatten(2)[:, 0],
                return_dict=False,
            )[0]
            moved = moved.transpose(1, 2).reshape(latents.shape)
            latents = torch.where(time / 1000.0 - 1e-6 < (1.0 - held), moved, latents).to(dtype)
            audience.tell(step + 1, self._steps)
        return latents

    def _noise(
        self, first: torch.Tensor, frames: int, height: int, width: int, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Drawn on the CPU, so that a seed means the same on every device.
        generator = torch.Generator().manual_seed(seed)
        latents, held = self._pipe.prepare_latents(first, frames, height, width, first.dtype, self._device, generator)
        return latents, held

    def _cameras(self, photo: Photo, poses: Floats) -> dict[str, torch.Tensor]:
        """Return the rays of each path as the transformer takes them, (B, ...)."""
        k = photo.intrinsics
        intrinsics = np.tile(np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], np.float32), (poses.shape[1], 1))
        packed = [
            self._pipe._build_camera_kwargs(
                path.astype(np.float32),
                intrinsics,
                photo.pixels.shape[:2],
                device=self._device,
                dtype=self._pipe.transformer.dtype,
                do_cfg=False,
            )
            for path in poses
        ]
        return {name: torch.cat([camera[name] for camera in packed]) for name in packed[0]}

    def _decode(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        video = self._pipe.video_processor.postprocess_video(self._pipe._decode_latents(latents), output_type="np")[0]
        return np.asarray(np.rint(video * 255), dtype=np.uint8)

    def _encode_prompts(self, prompts: tuple[str, str]) -> _Text:
        return _Text(*self._pipe.encode_prompt(*prompts, device=self._device, chi_prompt=DEFAULT_CHI_PROMPT))

    def _encode_photo(self, photo: Photo) -> torch.Tensor:
        """Return the photo's latent frame, (1, C, 1, h, w)."""
        height, width = photo.pixels.shape[:2]
        values = self._pipe.image_processor.preprocess(Image.fromarray(photo.pixels), height=height, width=width)
        latent: torch.Tensor = self._pipe._encode_first_frame(values, self._device, self._pipe.transformer.dtype)
        return latent

    def _working_bytes(self, photo: Photo, paths: int, frames: int) -> float:
        """Estimate what a call needs beside the weights; the decoder takes one video at a time."""
        pipe, pixels = self._pipe, photo.pixels.shape[0] * photo.pixels.shape[1]
        strides = pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio
        tokens = pixels / strides[0] ** 2 * ((frames - 1) / strides[1] + 1) * paths * (2 if self._guidance > 1 else 1)
        vae = pipe.vae.config
        decoded = frames * pixels / vae.patch_size**2 * vae.decoder_block_out_channels[0]
        denoising = ALIVE_A_TOKEN * tokens * pipe.transformer.config.hidden_size * pipe.transformer.dtype.itemsize
        return float(max(denoising, ALIVE_A_PIXEL * decoded * pipe.vae.dtype.itemsize))


def _repeated(text: _Text, paths: int, guided: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the prompts of a batch, those to go away from first."""
    given, mask = text.given.expand(paths, -1, -1, -1), text.given_mask.expand(paths, -1)
    if not guided:
        return given, mask
    negative, negative_mask = text.negative.expand(paths, -1, -1, -1), text.negative_mask.expand(paths, -1)
    return torch.cat([negative, given]), torch.cat([negative_mask, mask])


def _doubled(cameras: dict[str, torch.Tensor], guided: bool) -> dict[str, torch.Tensor]:
    return {name: torch.cat([each, each]) if guided else each for name, each in cameras.items()}
