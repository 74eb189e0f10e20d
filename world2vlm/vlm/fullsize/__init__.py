"""Students of full size: transformers' own vision-language models, as `trainer.finetune` trains them.

What is trained is what is served: prompt, pictures and positions come from the same functions on both sides.
"""
