"""gRPC at both ends: the servers' builder, channels, and the one mapping between domain errors and statuses."""

from world2vlm.rpc.attempts import Attempts
from world2vlm.rpc.channels import MAX_MESSAGE_BYTES, REQUEST_ID, aio_channel, channel
from world2vlm.rpc.server import Server, Service, in_background
from world2vlm.rpc.statuses import Metadata, raise_domain_error, to_status

__all__ = [
    "MAX_MESSAGE_BYTES",
    "REQUEST_ID",
    "Attempts",
    "Metadata",
    "Server",
    "Service",
    "aio_channel",
    "channel",
    "in_background",
    "raise_domain_error",
    "to_status",
]
