"""HY-WorldPlay (Tencent, December 2025), in its own process."""
