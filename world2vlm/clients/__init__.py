"""Synchronous clients of the two services. They raise the errors of `world2vlm.errors`, never gRPC's."""
