"""The teacher's benchmarks: what its worlds imagine against what is really there, and how fast."""
