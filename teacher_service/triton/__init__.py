"""The teacher in a Triton server."""
