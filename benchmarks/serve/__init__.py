"""The parts of `benchmarks.serving`: who serves, who asks, and what is measured meanwhile."""
