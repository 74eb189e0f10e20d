"""The trainer: turns bundles into datasets, datasets into checkpoints, and checkpoints into a serving student."""
