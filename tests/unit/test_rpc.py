import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY

from tests.tls_kit import Authority, make_authority, needs_openssl
from world2vlm import errors, rpc
from world2vlm.health import is_serving
from world2vlm.tls import ClientTls
from world2vlm.v1 import teacher_pb2, teacher_pb2_grpc

NAME = "world2vlm.v1.TeacherService"
CATALOGUE: list[errors.World2VLMError] = [
    errors.InvalidInputError("bad"),
    errors.NotFoundError("none"),
    errors.GateRejectedError("collision", 0.125, "too near: 12 cm – really"),
    errors.DivergedError("the loss is nan at step 7"),
    errors.PreconditionError("not now"),
    errors.DataCorruptedError("flipped"),
    errors.OverloadedError("full", 0.25),
    errors.UnavailableError("away"),
    errors.UnsupportedError("not here"),
    errors.UnauthenticatedError("no token"),
]


class Failing(teacher_pb2_grpc.TeacherServiceServicer):
    """Fails with `error`, in the stream after one message; without an error the stream waits for `go`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.go = asyncio.Event()

    async def DescribeTeacher(self, request: Any, context: Any) -> teacher_pb2.DescribeTeacherResponse:
        if self.error:
            raise self.error
        return teacher_pb2.DescribeTeacherResponse()

    async def Imagine(self, request: Any, context: Any) -> AsyncIterator[teacher_pb2.ImagineResponse]:
        yield teacher_pb2.ImagineResponse()
        if self.error:
            raise self.error
        await self.go.wait()
        yield teacher_pb2.ImagineResponse()


def service_of(servicer: Failing) -> rpc.Service:
    return rpc.Service(NAME, servicer, teacher_pb2_grpc.add_TeacherServiceServicer_to_server)


def server_of(servicer: Failing, port: int = 0) -> rpc.Server:
    return rpc.Server([service_of(servicer)], port=port)


def calls(port: int) -> list[Any]:
    stub = teacher_pb2_grpc.TeacherServiceStub(rpc.channel(f"127.0.0.1:{port}"))
    return [
        lambda: stub.DescribeTeacher(teacher_pb2.DescribeTeacherRequest(), timeout=10),
        lambda: list(stub.Imagine(teacher_pb2.ImagineRequest(), timeout=10)),
    ]


@pytest.mark.parametrize("error", CATALOGUE, ids=lambda error: error.code)
def test_every_error_of_the_catalogue_crosses_the_wire_whole(error: errors.World2VLMError) -> None:
    with rpc.in_background(lambda: server_of(Failing(error))) as port:
        for call in calls(port):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is rpc.to_status(error)[0]
            with pytest.raises(type(error)) as back:
                rpc.raise_domain_error(caught.value)
            assert str(back.value) == str(error)
            if isinstance(back.value, errors.GateRejectedError):
                assert (back.value.gate, back.value.figure) == ("collision", 0.125)
            if isinstance(back.value, errors.OverloadedError):
                assert back.value.retry_after_s == 0.25


def test_the_catalogue_is_complete() -> None:
    assert {type(error) for error in CATALOGUE} == set(errors.World2VLMError.__subclasses__())
    assert len({rpc.to_status(error)[1][0] for error in CATALOGUE}) == len(CATALOGUE)


def test_other_errors_are_internal_and_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with rpc.in_background(lambda: server_of(Failing(RuntimeError("a secret")))) as port:
        for call in calls(port):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in caught.value.details()
            with pytest.raises(errors.World2VLMError, match=r"^internal error in request [0-9a-f]{32}$"):
                rpc.raise_domain_error(caught.value)
    assert caplog.text.count("a secret") == 2


def test_bytes_that_are_no_message_are_invalid_and_the_parser_s_words_stay_inside() -> None:
    with rpc.in_background(lambda: server_of(Failing())) as port, rpc.channel(f"127.0.0.1:{port}") as channel:
        for call in (
            lambda: channel.unary_unary(f"/{NAME}/DescribeTeacher")(b"\xff\xff", timeout=10),
            lambda: list(channel.unary_stream(f"/{NAME}/Imagine")(b"\xff\xff", timeout=10)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == "the request is not a message of this call's type"


def test_a_door_refuses_calls_before_their_requests_are_read() -> None:
    errand: list[errors.World2VLMError] = [errors.OverloadedError("full", 0.25)]

    def door() -> None:
        if errand:
            raise errand[0]

    def make() -> rpc.Server:
        service = service_of(Failing(errors.NotFoundError("none")))
        return rpc.Server([replace(service, doors={"DescribeTeacher": door})])

    with rpc.in_background(make) as port, rpc.channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(f"/{NAME}/DescribeTeacher")
        # These bytes are no message: whoever read them would say so.
        refused = call.future(b"\xff" * 2_000_000, timeout=10, metadata=((rpc.REQUEST_ID, "robot-7"),))
        with pytest.raises(errors.OverloadedError, match="full") as caught:
            rpc.raise_domain_error(refused.exception())
        assert caught.value.retry_after_s == 0.25
        assert dict(refused.trailing_metadata())[rpc.REQUEST_ID] == "robot-7"
        with pytest.raises(grpc.RpcError) as other:
            list(channel.unary_stream(f"/{NAME}/Imagine")(b"", timeout=10))
        assert other.value.code() is grpc.StatusCode.NOT_FOUND
        errand.clear()
        with pytest.raises(grpc.RpcError) as read:
            call(b"\xff", timeout=10)
        assert read.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("sent", "kept"), [("robot-7:42", True), ("", False), ("two words", False), ("x" * 65, False)])
def test_a_call_keeps_its_request_id_and_gets_one_where_it_has_none(sent: str, kept: bool) -> None:
    for error in (None, errors.NotFoundError("none"), RuntimeError("inside")):
        with rpc.in_background(lambda error=error: server_of(Failing(error))) as port:  # type: ignore[misc]
            stub = teacher_pb2_grpc.TeacherServiceStub(rpc.channel(f"127.0.0.1:{port}"))
            call = stub.DescribeTeacher.future(
                teacher_pb2.DescribeTeacherRequest(), timeout=10, metadata=((rpc.REQUEST_ID, sent),)
            )
            assert call.code() is not grpc.StatusCode.UNAVAILABLE
            name = dict(call.trailing_metadata())[rpc.REQUEST_ID]
        assert name == sent if kept else re.fullmatch("[0-9a-f]{32}", name)
        if isinstance(error, RuntimeError):
            assert call.details() == f"internal error in request {name}"


def test_calls_are_counted_by_status() -> None:
    def count(status: str) -> float:
        labels = {"method": f"/{NAME}/DescribeTeacher", "status": status}
        return REGISTRY.get_sample_value("world2vlm_requests_total", labels) or 0.0

    before = count("OK"), count("NOT_FOUND")
    with rpc.in_background(lambda: server_of(Failing())) as port:
        calls(port)[0]()
    with (
        rpc.in_background(lambda: server_of(Failing(errors.NotFoundError("none")))) as port,
        pytest.raises(grpc.RpcError),
    ):
        calls(port)[0]()
    assert (count("OK"), count("NOT_FOUND")) == (before[0] + 1, before[1] + 1)


def test_nobody_there_and_too_slow_are_unavailable() -> None:
    with pytest.raises(grpc.RpcError) as caught:
        calls(1)[0]()
    with pytest.raises(errors.UnavailableError):
        rpc.raise_domain_error(caught.value)
    with rpc.in_background(lambda: server_of(Failing()), grace=0) as port:
        stub = teacher_pb2_grpc.TeacherServiceStub(rpc.channel(f"127.0.0.1:{port}"))
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Imagine(teacher_pb2.ImagineRequest(), timeout=0.2))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(errors.UnavailableError):
        rpc.raise_domain_error(caught.value)


def test_health_and_reflection_know_the_service() -> None:
    with rpc.in_background(lambda: server_of(Failing())) as port:
        channel = rpc.channel(f"127.0.0.1:{port}")
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            reply = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
        assert NAME in {service.name for service in answer.list_services_response.service}


def test_without_reflection_nobody_sees_the_schema() -> None:
    with rpc.in_background(lambda: rpc.Server([service_of(Failing())], with_reflection=False)) as port:
        assert is_serving(f"127.0.0.1:{port}", service=NAME)
        stub = reflection_pb2_grpc.ServerReflectionStub(rpc.channel(f"127.0.0.1:{port}"))
        with pytest.raises(grpc.RpcError) as caught:
            list(
                stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10)
            )
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    """Ours and a stranger's."""
    folder = tmp_path_factory.mktemp("certificates")
    return make_authority(folder / "ours"), make_authority(folder / "theirs")


@needs_openssl
def test_tls_is_spoken_with_those_who_trust_the_server(authorities: tuple[Authority, Authority]) -> None:
    ours, theirs = authorities
    with rpc.in_background(lambda: rpc.Server([service_of(Failing())], tls=ours.server())) as port:
        url = f"localhost:{port}"
        assert is_serving(url, tls=ours.client())
        assert not is_serving(url, tls=theirs.client(), timeout=2)
        assert not is_serving(url, timeout=2)


@needs_openssl
def test_mtls_lets_in_only_those_with_a_certificate_of_the_client_ca(authorities: tuple[Authority, Authority]) -> None:
    ours, theirs = authorities
    with rpc.in_background(lambda: rpc.Server([service_of(Failing())], tls=ours.server(ours.ca))) as port:
        url = f"localhost:{port}"
        assert is_serving(url, tls=ours.client("robot"))
        assert not is_serving(url, tls=ours.client(), timeout=2)
        certificate, key = ours.certificate("robot")
        shown = {"WORLD2VLM_TLS_CLIENT_CERT": str(certificate), "WORLD2VLM_TLS_CLIENT_KEY": str(key)}
        for environment, code in (({}, 1), ({"WORLD2VLM_TLS_CA": str(ours.ca), **shown}, 0)):
            command = [sys.executable, "-m", "world2vlm.health", url, "--timeout", "3"]
            assert subprocess.run(command, env={**os.environ, **environment}, timeout=60).returncode == code
        stranger = ClientTls(ours.ca, *theirs.certificate("robot"))
        assert not is_serving(url, tls=stranger, timeout=2)


def test_a_taken_port_is_refused() -> None:
    with (
        rpc.in_background(lambda: server_of(Failing())) as port,
        pytest.raises(errors.UnavailableError, match=str(port)),
        rpc.in_background(lambda: server_of(Failing(), port)),
    ):
        pass


def test_a_missing_ca_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidInputError, match=r"ca\.pem"):
        rpc.channel("localhost:1", ClientTls(tmp_path / "ca.pem"))


async def test_stop_says_not_serving_and_lets_a_stream_finish() -> None:
    servicer = Failing()
    server = server_of(servicer)
    address = f"127.0.0.1:{await server.start()}"
    async with rpc.aio_channel(address) as channel:
        stream = teacher_pb2_grpc.TeacherServiceStub(channel).Imagine(teacher_pb2.ImagineRequest(), timeout=20)
        assert await stream.read()
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME), timeout=20)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(server.stop(20))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        start = time.monotonic()
        servicer.go.set()
        assert await stream.read()
        assert await stream.read() is grpc.aio.EOF
        await stopping
        assert time.monotonic() - start < 15
