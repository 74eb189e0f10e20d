"""Engines: what turns a checkpoint's folder into answers. One port (`base`), one file for each implementation."""
