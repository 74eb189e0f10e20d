"""Worlds: one file each behind the port in `base`."""
