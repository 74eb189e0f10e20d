"""What schemas can't see in the compose files, the Dockerfiles and the Kubernetes manifests: that names meet."""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from trainer.pieces import QUEUES
from world2vlm.settings import ServiceSettings, Settings, StudentSettings, TeacherSettings, TrainerSettings

ROOT = Path(__file__).parents[2]
OVERLAYS = ("base", "overlays/local", "overlays/gpu")
COMPOSE_FILES = (("docker-compose.yml",), ("docker-compose.yml", "docker-compose.gpu.yml"))
PROCESSES: dict[str, type[Settings]] = {
    "teacher": TeacherSettings,
    "student": StudentSettings,
    "trainer": TrainerSettings,
}
WORKLOADS = ("Deployment", "StatefulSet")
Resource = dict[str, Any]


def program(name: str) -> str:
    """A program that the dev extra brings."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert path, f"{name} is missing: install world2vlm[dev]"
    return path


@cache
def rendered(overlay: str) -> list[Resource]:
    command = [program("kubectl"), "kustomize", str(ROOT / "k8s" / overlay)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return list(yaml.safe_load_all(output))


@cache
def composed(files: tuple[str, ...]) -> dict[str, Resource]:
    """The services of compose files as Compose itself reads them."""
    arguments = [argument for file in files for argument in ("-f", file)]
    command = [program("docker-compose"), *arguments, "--profile", "*", "config", "--format", "json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=ROOT).stdout
    services: dict[str, Resource] = json.loads(output)["services"]
    return services


def of_kind(overlay: str, *kinds: str) -> list[Resource]:
    return [resource for resource in rendered(overlay) if resource["kind"] in kinds]


def named(overlay: str, *kinds: str) -> dict[str, Resource]:
    return {resource["metadata"]["name"]: resource for resource in of_kind(overlay, *kinds)}


def container(workload: Resource) -> Resource:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(only)


def selected(overlay: str, selector: dict[str, str]) -> list[Resource]:
    """The workloads whose pods a selector matches."""
    return [
        workload
        for workload in of_kind(overlay, *WORKLOADS)
        if selector.items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    ]


def port_names(workload: Resource) -> set[str]:
    return {port["name"] for port in container(workload).get("ports", [])}


def process_of(image: str) -> type[Settings] | None:
    return PROCESSES.get(image.split(":")[0].removeprefix("world2vlm-"))


def ours(environment: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith("WORLD2VLM_")}


def load(process: type[Settings], environment: dict[str, str], patch: pytest.MonkeyPatch, folder: Path) -> Settings:
    """The settings that a process would start with in a container."""
    patch.chdir(folder)
    for key, value in ours(environment).items():
        assert key.removeprefix("WORLD2VLM_").lower() in process.model_fields, key
        patch.setenv(key, value)
    return process.load()


def kubernetes_environment(overlay: str, workload: Resource) -> dict[str, str]:
    maps = named(overlay, "ConfigMap")
    environment: dict[str, str] = {}
    for source in container(workload).get("envFrom", []):
        environment |= maps[source["configMapRef"]["name"]]["data"]
    for entry in container(workload).get("env", []):
        environment[entry["name"]] = entry.get("value", "from-a-secret")
    return environment


# --- Compose ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", COMPOSE_FILES)
def test_compose_environments_are_settings(
    files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checked = 0
    for service in composed(files).values():
        process = process_of(service["image"])
        if process is None:
            continue
        with monkeypatch.context() as patch:
            settings = load(process, service["environment"], patch, tmp_path)
        checked += 1
        if isinstance(settings, ServiceSettings):
            assert settings.port in {port["target"] for port in service["ports"]}
            assert service["healthcheck"]["test"][-1] == f"localhost:{settings.port}"
            assert not settings.host.startswith("127."), "not reachable from outside the container"
    assert checked == 5


def test_compose_addresses_are_services() -> None:
    services = composed(COMPOSE_FILES[0])
    worker = services["worker"]["environment"]
    assert worker["WORLD2VLM_TEACHER_URL"] == f"teacher:{TeacherSettings.model_fields['port'].default}"
    assert worker["WORLD2VLM_STUDENT_URL"] == f"student:{StudentSettings.model_fields['port'].default}"
    assert worker["WORLD2VLM_REDIS_URL"].startswith("redis://redis:6379")
    assert {"redis", "teacher", "student"} <= services.keys()


def test_compose_publishes_on_this_machine_only() -> None:
    published = [port for service in composed(COMPOSE_FILES[0]).values() for port in service.get("ports", [])]
    assert published
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_compose_store_is_shared_and_on_a_volume() -> None:
    for name in ("student", "worker"):
        service = composed(COMPOSE_FILES[0])[name]
        (volume,) = (mount for mount in service["volumes"] if mount["source"] == "store")
        assert service["environment"]["WORLD2VLM_STORE"].startswith(volume["target"] + "/")


def test_compose_bounds_everything_and_reaps() -> None:
    for name, service in composed(COMPOSE_FILES[0]).items():
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        assert service["init"] is True, name


def test_gpu_overlay_gives_the_gpu_to_those_who_compute() -> None:
    services = composed(COMPOSE_FILES[1])
    with_gpu = {name for name, s in services.items() if "devices" in s["deploy"]["resources"].get("reservations", {})}
    assert with_gpu == {"teacher", "student", "worker"}


# --- Dockerfiles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["teacher_service", "student_service", "trainer"])
def test_dockerfile_builds_everywhere(package: str) -> None:
    text = (ROOT / package / "Dockerfile").read_text(encoding="utf-8")
    others = {"teacher_service", "student_service", "trainer"} - {package}
    assert "# syntax" not in text, "it would ask a registry"
    assert "<<" not in text, "heredocs need a newer front end"
    assert "://" not in text, "no hard-coded index"
    assert "USER 10001" in text
    assert f"COPY {package} {package}" in text
    assert not any(f"COPY {other}" in text for other in others)


# --- Kubernetes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_keep_to_the_schemas(overlay: str) -> None:
    for resource in rendered(overlay):
        if not resource["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(resource, "1.37", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_match_their_pods(overlay: str) -> None:
    for workload in of_kind(overlay, *WORKLOADS):
        match = workload["spec"]["selector"]["matchLabels"]
        assert selected(overlay, match) == [workload]
    for budget in of_kind(overlay, "PodDisruptionBudget"):
        assert len(selected(overlay, budget["spec"]["selector"]["matchLabels"])) == 1
    for policy in of_kind(overlay, "NetworkPolicy"):
        pods = selected(overlay, policy["spec"]["podSelector"].get("matchLabels", {}))
        names = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        peers = [peer for rule in policy["spec"]["ingress"] for peer in rule.get("from", []) if "podSelector" in peer]
        assert names <= set().union(*map(port_names, pods))
        assert all(selected(overlay, peer["podSelector"]["matchLabels"]) for peer in peers)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_reach_ports_that_exist(overlay: str) -> None:
    for service in of_kind(overlay, "Service"):
        (workload,) = selected(overlay, service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= port_names(workload)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_environments_are_settings(overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    services = named(overlay, "Service")
    for workload in of_kind(overlay, "Deployment"):
        process = process_of(container(workload)["image"])
        assert process is not None
        environment = kubernetes_environment(overlay, workload)
        with monkeypatch.context() as patch:
            settings = load(process, environment, patch, tmp_path)
        ports = {port["name"]: port["containerPort"] for port in container(workload).get("ports", [])}
        if isinstance(settings, ServiceSettings):
            assert ports == {"grpc": settings.port, "metrics": settings.metrics_port}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container(workload)[probe]["grpc"]["port"] == settings.port
        else:
            for url in (settings.teacher_url, settings.student_url, (settings.redis_url or "").split("//")[-1]):
                host, port = url.split("/")[0].split(":")
                assert int(port) in {entry["port"] for entry in services[host]["spec"]["ports"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_pods_refer_to_exists(overlay: str) -> None:
    claims = named(overlay, "PersistentVolumeClaim")
    secrets = named(overlay, "Secret")
    for workload in of_kind(overlay, "Deployment"):
        spec = workload["spec"]["template"]["spec"]
        wanted = {v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v}
        assert wanted <= claims.keys()
        references = {e["valueFrom"]["secretKeyRef"]["name"] for e in container(workload)["env"] if "valueFrom" in e}
        # Only the local overlay brings the Secret; elsewhere an operator makes it under this very name.
        assert references == (secrets.keys() or {"world2vlm-control"})
        store = kubernetes_environment(overlay, workload)["WORLD2VLM_STORE"]
        mounts = [mount["mountPath"] for mount in container(workload)["volumeMounts"]]
        assert workload["metadata"]["name"] == "teacher" or any(store.startswith(mount + "/") for mount in mounts)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_may_do_little(overlay: str) -> None:
    for workload in of_kind(overlay, *WORKLOADS):
        pod = workload["spec"]["template"]["spec"]
        rights = container(workload)["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container(workload)["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_never_a_second_scheduler(overlay: str) -> None:
    beat = named(overlay, "Deployment")["beat"]
    assert beat["spec"]["replicas"] == 1
    assert beat["spec"]["strategy"]["type"] == "Recreate"


def test_gpus_are_limits_of_those_who_compute() -> None:
    gpus = {
        name: container(workload)["resources"]["limits"].get("nvidia.com/gpu")
        for name, workload in named("overlays/gpu", "Deployment").items()
    }
    assert {name for name, count in gpus.items() if count} == {"teacher", "student", "worker-heavy"}


def test_keda_scales_workers_by_the_queues_that_they_take() -> None:
    workers = named("overlays/gpu", "Deployment")
    scalers = of_kind("overlays/gpu", "ScaledObject")
    assert {scaler["spec"]["triggers"][0]["metadata"]["listName"] for scaler in scalers} == set(QUEUES)
    for scaler in scalers:
        worker = workers[scaler["spec"]["scaleTargetRef"]["name"]]
        (trigger,) = scaler["spec"]["triggers"]
        assert "replicas" not in worker["spec"], "two would fight over the number"
        assert trigger["metadata"]["listName"] == container(worker)["command"][-1]
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        redis_url = kubernetes_environment("overlays/gpu", worker)["WORLD2VLM_REDIS_URL"]
        assert trigger["metadata"]["address"] in redis_url
