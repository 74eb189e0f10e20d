"""The sides of `benchmarks.training`."""
