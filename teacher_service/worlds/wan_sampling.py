"""Wan-VACE: a control video, kept where it is known and made up where it is not. Imports torch."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from teacher_service.recent import Recent
from teacher_service.worlds.diffusion_loading import ALIVE_A_PIXEL, ALIVE_A_TOKEN, REMEMBERED, Loaded, Sampler
from teacher_service.worlds.takes import Audience

_REMEDY = "set offload, or lower width, height or the path's length"


class VaceSampler(Sampler):
    """Completes control videos.

    Args:
        loaded: a `WanVACEPipeline`.
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 = none.
    """

    def __init__(self, loaded: Loaded, steps: int, guidance: float) -> None:
        super().__init__(loaded, steps, guidance)
        self._texts: Recent[tuple[str, str], tuple[torch.Tensor, torch.Tensor | None]] = Recent(REMEMBERED)

    @torch.no_grad()
    def sample(
        self,
        video: NDArray[np.uint8],
        holes: NDArray[np.bool_],
        prompts: tuple[str, str],
        seed: int,
        audience: Audience,
    ) -> NDArray[np.uint8]:
        """Make the video whole.

        Args:
            video: uint8 (F, height, width, 3); F = 4 k + 1.
            holes: bool (F, height, width), what is to be made up.
            prompts: what the video shows, and what it does not.
            seed: of the noise.
            audience: who waits; told after each step.

        Returns:
            uint8 (F, height, width, 3): all of it is the model's, what was known included.

        Raises:
            Stopped: nobody waits any more.
            OverloadedError: too little free memory.
        """
        frames, height, width = holes.shape

        def after_step(_pipe: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            audience.tell(step + 1, self._steps)
            return values

        with self._working(self._working_bytes(frames, height, width), _REMEDY):
            given, negative = self._texts.get(prompts, lambda: self._encode_prompts(prompts))
            made = self._pipe(
                prompt_embeds=given,
                negative_prompt_embeds=negative,
                video=[Image.fromarray(frame) for frame in video],
                mask=[Image.fromarray(hole.astype(np.uint8) * np.uint8(255)) for hole in holes],
                height=height,
                width=width,
                num_frames=frames,
                num_inference_steps=self._steps,
                guidance_scale=self._guidance,
                # Drawn on the CPU, so that a seed means the same on every device.
                generator=torch.Generator().manual_seed(seed),
                callback_on_step_end=after_step,
                output_type="np",
            ).frames[0]
        return np.asarray(np.rint(made * 255), dtype=np.uint8)

    def _encode_prompts(self, prompts: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor | None]:
        given, negative = self._pipe.encode_prompt(
            *prompts,
            do_classifier_free_guidance=self._guidance > 1,
            max_sequence_length=512,
            device=self._pipe._execution_device,
        )
        return given, negative

    def _working_bytes(self, frames: int, height: int, width: int) -> float:
        """Estimate what a call needs beside the weights; the decoder holds one latent frame at a time."""
        pipe = self._pipe
        config, space, time = pipe.transformer.config, pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal
        tokens = ((frames - 1) / time + 1) * height * width / (space * config.patch_size[1]) ** 2
        channels = config.num_attention_heads * config.attention_head_dim
        decoded = height * width * (time * pipe.vae.config.base_dim * ALIVE_A_PIXEL + frames * 3)
        denoising = ALIVE_A_TOKEN * tokens * channels * pipe.transformer.dtype.itemsize
        return float(max(denoising, decoded * pipe.vae.dtype.itemsize))
