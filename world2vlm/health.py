"""Ask a gRPC server whether it is SERVING: `python -m world2vlm.health HOST:PORT`, the containers' health check."""

import argparse
import os
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from world2vlm.errors import World2VLMError
from world2vlm.rpc import channel
from world2vlm.tls import ClientTls


def is_serving(address: str, timeout: float = 5.0, service: str = "", tls: ClientTls | None = None) -> bool:
    """Whether the server at `address` says within `timeout` seconds that it serves; one out of reach does not.

    Args:
        address: `host:port`.
        timeout: seconds to wait for the answer.
        service: a full gRPC service name; empty = the server as a whole.
        tls: what to trust and to show; None = no TLS.

    Raises:
        InvalidInputError: a PEM file can't be read.
    """
    with channel(address, tls) as connection:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            reply = health_pb2_grpc.HealthStub(connection).Check(request, timeout=timeout)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def main() -> int:
    """Check the server that the command line names; 0 if it serves, 1 if not, 2 if that can't be asked."""
    parser = argparse.ArgumentParser(prog="python -m world2vlm.health", description="Ask a gRPC server's health.")
    parser.add_argument("address", metavar="HOST:PORT")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--service", default="", help="a full gRPC service name; default: the server as a whole")
    _add_pem(parser, "--ca", "WORLD2VLM_TLS_CA", "to verify the server with; without it there is no TLS")
    _add_pem(parser, "--cert", "WORLD2VLM_TLS_CLIENT_CERT", "to show to a server that asks for it")
    _add_pem(parser, "--key", "WORLD2VLM_TLS_CLIENT_KEY", "of that certificate")
    arguments = parser.parse_args()
    tls = ClientTls(arguments.ca, arguments.cert, arguments.key) if arguments.ca else None
    try:
        serving = is_serving(arguments.address, arguments.timeout, arguments.service, tls)
    except World2VLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("SERVING" if serving else "NOT SERVING")
    return 0 if serving else 1


def _add_pem(parser: argparse.ArgumentParser, option: str, variable: str, purpose: str) -> None:
    # argparse makes a path of a default that is a string, too.
    parser.add_argument(option, type=Path, default=os.environ.get(variable), help=f"PEM file {purpose}; ${variable}")


if __name__ == "__main__":
    sys.exit(main())
