"""Tiny metric depth models of transformers with random weights, as folders."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BeitConfig,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    Dinov2Config,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
)

SIDE = 56


def save(model: Any, folder: Path, size: tuple[int, int]) -> str:
    model.eval().save_pretrained(folder, safe_serialization=True)
    preparation = {"size": {"height": size[0], "width": size[1]}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation), encoding="utf-8")
    return str(folder)


def depth_anything(folder: Path, kind: str = "metric") -> str:
    torch.manual_seed(0)
    backbone = Dinov2Config(
        image_size=SIDE,
        patch_size=14,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        out_features=["stage1", "stage2"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20,
    )
    return save(DepthAnythingForDepthEstimation(config), folder, (SIDE, SIDE))


def zoedepth(folder: Path) -> str:
    torch.manual_seed(0)
    backbone = BeitConfig(
        image_size=SIDE,
        patch_size=14,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        use_relative_position_bias=True,
    )
    config = ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_relative_features=8,
        bin_embedding_dim=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.1, "max_depth": 10.0}],
    )
    return save(ZoeDepthForDepthEstimation(config), folder, (64, 64))


def depth_pro(folder: Path) -> str:
    torch.manual_seed(0)
    encoder = {
        "model_type": "dinov2",
        "image_size": 16,
        "patch_size": 4,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = DepthProConfig(
        patch_size=16,
        fusion_hidden_size=16,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.5, 0.25],
        scaled_images_feature_dims=[16, 16, 16],
        image_model_config=encoder,
        patch_model_config=encoder,
        fov_model_config=encoder,
        use_fov_model=False,
    )
    return save(DepthProForDepthEstimation(config), folder, (64, 64))
