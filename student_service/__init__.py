"""The student service: a vision-language model that answers spatial questions while its checkpoints change."""
