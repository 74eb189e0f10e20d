"""`hyvideo.pipelines.worldplay_video_pipeline`: a video in chunks of four latents, each with its camera and label."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from standin_painting import loading, step, view

from hyvideo.commons import infer_state, parallel_states


@dataclass
class HunyuanVideoPipelineOutput:
    videos: torch.Tensor


class Transformer(torch.nn.Module):
    def forward(self, number):
        step(number)


class HunyuanVideo_1_5_Pipeline:
    def __init__(self):
        self.transformer = Transformer()

    @classmethod
    def create_pipeline(
        cls,
        pretrained_model_name_or_path,
        transformer_version,
        create_sr_pipeline=False,
        force_sparse_attn=False,
        transformer_dtype=torch.bfloat16,
        enable_offloading=None,
        enable_group_offloading=None,
        overlap_group_offloading=True,
        device=None,
        action_ckpt=None,
        **kwargs,
    ):
        loading()
        assert infer_state.state is not None and parallel_states.state == 1
        assert transformer_version == "480p_i2v" and not kwargs
        assert os.path.isfile(action_ckpt)
        return cls()

    @torch.no_grad()
    def __call__(
        self,
        prompt,
        aspect_ratio,
        video_length,
        prompt_rewrite=True,
        num_inference_steps=50,
        guidance_scale=None,
        enable_sr=True,
        sr_num_inference_steps=None,
        negative_prompt=None,
        generator=None,
        seed=None,
        flow_shift=None,
        embedded_guidance_scale=None,
        reference_image=None,
        output_type="pt",
        return_dict=True,
        return_pre_sr_video=False,
        viewmats=None,
        Ks=None,
        action=None,
        few_step=False,
        chunk_latent_frames=4,
        model_type="ar",
        user_height=None,
        user_width=None,
        **kwargs,
    ):
        assert isinstance(prompt, str) and not prompt_rewrite and not enable_sr and model_type == "ar"
        latents = viewmats.shape[1]
        assert latents % chunk_latent_frames == 0 and video_length == 4 * latents - 3
        assert viewmats.shape == (1, latents, 4, 4) and Ks.shape == (1, latents, 3, 3) and action.shape == (1, latents)
        painting = np.asarray(Image.open(reference_image).convert("RGB"))
        assert painting.shape == (user_height, user_width, 3)
        k = Ks[0, 0].numpy().copy()
        assert np.allclose(k[:2, 2], 0.5)
        k[:2] *= [[user_width], [user_height]]
        c2ws = np.linalg.inv(viewmats[0].numpy())
        assert action[0].tolist() == [0, *map(label, c2ws[:-1], c2ws[1:])]
        for number in range(num_inference_steps * (latents // chunk_latent_frames)):
            self.transformer(number)
        noise = np.random.default_rng(seed).integers(0, 3, (*painting.shape[:2], 1), dtype=np.uint8)
        shown = [np.clip(view(painting, k, c2w), 0, 252) + noise for c2w in c2ws]
        frames = shown[:1] + [picture for picture in shown[1:] for _ in range(4)]
        video = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None].float() / 255
        return HunyuanVideoPipelineOutput(videos=video)


def label(before, after):
    """The class of a step, from nothing but its two cameras: 9 * translation + rotation."""
    relative = np.linalg.inv(before) @ after
    x, _, z = relative[:3, 3]
    distance = np.linalg.norm(relative[:3, 3])
    # Within 60 degrees of an axis counts as along it.
    along = (x / distance, z / distance) if distance > 1e-4 else (0, 0)
    translation = [[4, 0, 3], [6, 1, 5], [8, 2, 7]][_side(along[1])][_side(along[0]) + 1]
    turn = np.degrees(np.arctan2(relative[0, 2], relative[2, 2]))
    tilt = np.degrees(np.arctan2(-relative[1, 2], relative[1, 1]))
    rotation = {(0, 0): 0, (1, 0): 1, (-1, 0): 2, (0, 1): 3, (0, -1): 4}[_side(turn, 0.05), _side(tilt, 0.05)]
    return 9 * translation + rotation


def _side(value, least=0.5):
    return int(value > least) - int(value < -least)
