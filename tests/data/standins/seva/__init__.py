"""Stand-in for `seva`; see ../README.md."""
