"""A real Triton server with the student in it: starting it, putting checkpoints into it, watching it."""
