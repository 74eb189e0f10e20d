"""GRPO of published vision-language models after their fine-tuning (`trainer.grpo` does the built-in student's).

Importing it imports no torch; `trainer.finetune.grpo.training` does.
"""

from trainer.finetune.grpo.config import FinetuneGrpoConfig

__all__ = ["FinetuneGrpoConfig"]
