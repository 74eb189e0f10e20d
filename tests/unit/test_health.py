import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from world2vlm.health import is_serving

Status = health_pb2.HealthCheckResponse


@pytest.fixture
def server() -> Iterator[tuple[str, health.HealthServicer]]:
    """A real gRPC server's address and what it says about its health."""
    servicer = health.HealthServicer()
    with futures.ThreadPoolExecutor(2) as pool:
        running = grpc.server(pool)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, running)
        port = running.add_insecure_port("localhost:0")
        running.start()
        yield f"localhost:{port}", servicer
        running.stop(None)


def test_a_serving_server_serves(server: tuple[str, health.HealthServicer]) -> None:
    address, servicer = server
    servicer.set("", Status.SERVING)
    assert is_serving(address)


def test_a_draining_server_does_not_serve(server: tuple[str, health.HealthServicer]) -> None:
    address, servicer = server
    servicer.set("", Status.SERVING)
    servicer.enter_graceful_shutdown()
    assert not is_serving(address)


def test_an_unknown_service_does_not_serve(server: tuple[str, health.HealthServicer]) -> None:
    address, _ = server
    assert not is_serving(address, service="world2vlm.v1.NoSuchService")


@pytest.mark.parametrize(("status", "code"), [(Status.SERVING, 0), (Status.NOT_SERVING, 1)])
def test_the_exit_status_says_it(server: tuple[str, health.HealthServicer], status: int, code: int) -> None:
    address, servicer = server
    servicer.set("", status)
    finished = subprocess.run([sys.executable, "-m", "world2vlm.health", address], timeout=60, check=False)
    assert finished.returncode == code


def test_nobody_there_is_not_serving() -> None:
    assert not is_serving("localhost:1", timeout=1)


def test_a_ca_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "world2vlm.health", "localhost:1", "--ca", str(tmp_path / "none.pem")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert "none.pem" in finished.stderr
