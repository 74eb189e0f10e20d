"""Benchmarks: what two choices of the design cost or save, measured on the machine at hand (see README.md)."""
