"""The composed stack, built and started for real: every service gets healthy, and the student answers a question."""

import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from PIL import Image

from world2vlm.v1 import spatial_pb2, student_pb2, student_pb2_grpc, teacher_pb2, teacher_pb2_grpc

ROOT = Path(__file__).parents[2]
TOKEN = "token-of-the-container-tests"
# The first test waits for the images, whose libraries weigh gigabytes.
pytestmark = pytest.mark.timeout(1800)
SERVICES = {"redis", "teacher", "student", "worker", "beat", "flower"}


class Stack:
    """One compose project of its own: own containers, volumes and free ports."""

    def __init__(self) -> None:
        self._environment = os.environ | {
            "COMPOSE_PROJECT_NAME": f"world2vlm-test-{os.getpid()}",
            "WORLD2VLM_CONTROL_TOKEN": TOKEN,
            "TEACHER_PORT": "0",
            "STUDENT_PORT": "0",
            "FLOWER_PORT": "0",
        }

    def __call__(self, *arguments: str, timeout: float = 120, check: bool = True) -> str:
        command = ["docker", "compose", *arguments]
        finished = subprocess.run(
            command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True, timeout=timeout, check=check
        )
        return finished.stdout

    def address(self, service: str, port: int) -> str:
        """Where a container's port is published."""
        return self("port", service, str(port)).strip()

    def states(self) -> dict[str, dict[str, str]]:
        """What `docker compose ps` says of each service, stopped ones included."""
        lines = self("ps", "--all", "--format", "json").splitlines()
        return {state["Service"]: state for state in map(json.loads, lines)}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    compose = Stack()
    try:
        # One image after another: a builder that can't share steps would install PyTorch three times at once.
        for service in ("teacher", "student", "worker"):
            compose("build", service, timeout=1200)
        compose("up", "--detach", "--wait", "--wait-timeout", "300", timeout=400)
        yield compose
    finally:
        print(compose("logs", "--no-color", "--tail", "60", check=False))
        compose("down", "--volumes", "--timeout", "10", check=False)
        # The images of the run before and the stages of this one lost their names: 5 GB a run if they stayed.
        prune = ["docker", "image", "prune", "--force", "--filter", "label=org.opencontainers.image.title=world2vlm"]
        subprocess.run(prune, check=False)


def picture() -> spatial_pb2.Image:
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128), (90, 140, 200)).save(buffer, "PNG")
    return spatial_pb2.Image(data=buffer.getvalue())


def question() -> student_pb2.ReasonRequest:
    """D2: is the object still in view after the action?"""
    return student_pb2.ReasonRequest(
        images=[picture()],
        task=student_pb2.TaskQuestion(
            task=student_pb2.TASK_TYPE_D2,
            actions=[spatial_pb2.Action(primitive=spatial_pb2.PRIMITIVE_TURN_LEFT, magnitude=30)],
            object="chair",
            box=spatial_pb2.Box(x1=200, y1=300, x2=500, y2=900),
        ),
    )


def ask(stack: Stack) -> student_pb2.ReasonResponse:
    with grpc.insecure_channel(stack.address("student", 50052)) as channel:
        return student_pb2_grpc.StudentServiceStub(channel).Reason(question(), timeout=60, wait_for_ready=True)


def test_every_service_runs_and_is_healthy(stack: Stack) -> None:
    states = stack.states()
    assert states.keys() == SERVICES
    assert {name: state["State"] for name, state in states.items()} == dict.fromkeys(SERVICES, "running")
    assert all(states[name]["Health"] == "healthy" for name in ("redis", "teacher", "student", "worker"))


def test_the_student_answers_a_question(stack: Stack) -> None:
    reply = ask(stack)
    assert reply.text
    assert int(reply.checkpoint_version) >= 1
    assert 0 <= reply.probability <= 1


def test_the_teacher_imagines_a_room(stack: Stack) -> None:
    with grpc.insecure_channel(stack.address("teacher", 50051)) as channel:
        about = teacher_pb2_grpc.TeacherServiceStub(channel).DescribeTeacher(
            teacher_pb2.DescribeTeacherRequest(), timeout=60
        )
    assert "renderer" in {world.name for world in about.worlds}


def test_a_swap_needs_the_token(stack: Stack) -> None:
    with grpc.insecure_channel(stack.address("student", 50052)) as channel:
        stub = student_pb2_grpc.CheckpointServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.RollBackCheckpoint(student_pb2.RollBackCheckpointRequest(), timeout=60)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_worker_takes_what_the_queues_bring(stack: Stack) -> None:
    queues = stack(
        "exec", "-T", "worker", "celery", "--broker=redis://redis:6379/0", "inspect", "active_queues", "--json"
    )
    taken = {queue["name"] for worker in json.loads(queues).values() for queue in worker}
    assert taken == {"light", "heavy"}


def test_a_stopped_service_has_drained_and_comes_back(stack: Stack) -> None:
    version = ask(stack).checkpoint_version
    stack("stop", "student", "worker")
    states = stack.states()
    assert {states[name]["ExitCode"] for name in ("student", "worker")} == {0}, "SIGTERM was not honoured"
    stack("up", "--detach", "--wait", "--wait-timeout", "300", "--no-build", "student", "worker", timeout=400)
    assert ask(stack).checkpoint_version == version
