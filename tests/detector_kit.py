"""Detectors for tests: one that says what it is told, and tiny models of the real classes with random weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

from teacher_service.objects import Detection
from world2vlm.bundles import Frame

LABELS = {0: "Chair", 1: "dining_table"}
WORDS = ("chair", "dining table")
SIDE = 64

_SMALL = {
    "encoder_hidden_dim": 16,
    "d_model": 16,
    "encoder_in_channels": [16, 16, 16],
    "encoder_layers": 1,
    "encoder_ffn_dim": 16,
    "encoder_attention_heads": 2,
    "decoder_in_channels": [16, 16, 16],
    "decoder_ffn_dim": 16,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "num_queries": 8,
    "num_denoising": 0,
    "id2label": LABELS,
    "label2id": {label: index for index, label in LABELS.items()},
}


class GivenDetections:
    """Says of each frame in turn what it was told."""

    digest = "given"

    def __init__(self, answers: Sequence[Sequence[Detection]]) -> None:
        self._answers: Iterator[Sequence[Detection]] = iter(answers)

    def detect(self, frame: Frame) -> tuple[Detection, ...]:
        return tuple(next(self._answers))


def save_d_fine(folder: Path) -> Path:
    """A D-FINE of about 30,000 random weights."""
    four, ones = [16] * 4, [1] * 4
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 16, 16],
        stage_mid_channels=[8] * 4,
        stage_out_channels=four,
        stage_num_blocks=ones,
        stage_numb_of_layers=ones,
        stage_downsample=[False, True, True, True],
        stage_light_block=[False] * 4,
        stage_kernel_size=[3] * 4,
        embedding_size=8,
        hidden_sizes=four,
        depths=ones,
        out_features=["stage2", "stage3", "stage4"],
    )
    torch.manual_seed(0)
    config = transformers.DFineConfig(backbone_config=backbone, decoder_n_points=[2, 2, 2], **_SMALL)
    transformers.DFineForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def save_rt_detr_v2(folder: Path) -> Path:
    """An RT-DETR v2 with random weights."""
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1] * 4,
        out_features=["stage2", "stage3", "stage4"],
    )
    torch.manual_seed(0)
    config = transformers.RTDetrV2Config(backbone_config=backbone, decoder_n_points=2, **_SMALL)
    transformers.RTDetrV2ForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def save_grounding_dino(folder: Path) -> Path:
    """A Grounding DINO with random weights and a vocabulary of ten words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "chair", "dining", "table", "?"]
    tokenizer = transformers.BertTokenizer(vocab={word: index for index, word in enumerate(words)})
    swin = transformers.SwinConfig(
        image_size=SIDE, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
    )
    bert = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    config = transformers.GroundingDinoConfig(
        backbone_config=swin,
        text_config=bert,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_queries=8,
        encoder_n_points=2,
        decoder_n_points=2,
    )
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 96, "longest_edge": 128})
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder
