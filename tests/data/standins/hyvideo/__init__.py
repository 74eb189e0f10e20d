"""Stand-in for `hyvideo`; see ../README.md."""
