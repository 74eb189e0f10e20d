"""Stable Virtual Camera (Zhou et al., 2025, arXiv 2503.14489), in its own process."""
