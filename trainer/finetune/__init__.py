"""Supervised fine-tuning of published vision-language models by name, from one CPU to many GPUs.

The tiny built-in student has a trainer of its own (`trainer.sft`); this package is for transformers' full-size models.
Importing it imports no torch; `trainer.finetune.training` does.
"""

from trainer.finetune.config import FinetuneConfig

__all__ = ["FinetuneConfig"]
