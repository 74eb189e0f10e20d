"""Settings: one frozen class per process, read from `WORLD2VLM_*` and `world2vlm.toml`, strict at start.

The processes share one environment and one file, so a key counts as known where any of the classes has it. What must
differ between the processes on one machine (their ports) goes into the file's tables `[teacher]`, `[student]` and
`[trainer]`, which win over its top level; the environment wins over the file, and arguments win over both.
"""

import os
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from world2vlm.errors import InvalidInputError
from world2vlm.licences import Policy
from world2vlm.tls import ClientTls, ServerTls

PREFIX = "WORLD2VLM_"
FILE = "world2vlm.toml"
# Opens control calls on a machine's own loopback; `Settings` refuses it on any other address.
DEVELOPMENT_TOKEN = "development-only"


TrackerName = Literal["tensorboard", "mlflow", "wandb"]


class Settings(BaseSettings):
    """What every process has.

    Attributes:
        store: folder or fsspec URL of the store.
        redis_url: Redis or Valkey; None starts an embedded one.
        teacher_url, student_url: `host:port` of the two services.
        host: address that a service listens on.
        control_token: bearer token of control calls (swap, roll back).
        tls_ca: PEM file that clients verify servers with; None = no TLS.
        tls_client_cert, tls_client_key: PEM files of what clients show to servers that ask for it; both or neither.
        tls_cert, tls_key: PEM files of a service's certificate; both or neither.
        tls_client_ca: PEM file of the CA whose clients a service lets in, and no others (mTLS); None = everybody.
        threads: numeric libraries' threads; 0: one for the student, one a core for the trainer, the teacher's default.
        log_format: `plain` lines or one JSON object a line.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)
    table: ClassVar[str] = ""

    store: str = "runs/store"
    redis_url: str | None = None
    teacher_url: str = "localhost:50051"
    student_url: str = "localhost:50052"
    student: str = Field("student", pattern=r"^[a-z0-9][a-z0-9-]*$")
    host: str = "127.0.0.1"
    control_token: SecretStr = SecretStr(DEVELOPMENT_TOKEN)
    tls_ca: Path | None = None
    tls_client_cert: Path | None = None
    tls_client_key: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    threads: int = Field(0, ge=0)
    log_format: Literal["plain", "json"] = "plain"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _check_exposure(self) -> Self:
        if (self.tls_cert is None) is not (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if (self.tls_client_cert is None) is not (self.tls_client_key is None):
            raise ValueError("tls_client_cert and tls_client_key go together")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        if self.tls_client_cert and not self.tls_ca:
            raise ValueError("tls_client_cert and tls_client_key need tls_ca")
        if not _is_loopback(self.host) and self.control_token.get_secret_value() == DEVELOPMENT_TOKEN:
            raise ValueError(f"set {PREFIX}CONTROL_TOKEN to listen on {self.host}: the default is for loopback only")
        return self

    @property
    def server_tls(self) -> ServerTls | None:
        """How a service of this process shows itself; None = no TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return ServerTls(self.tls_cert, self.tls_key, self.tls_client_ca)

    @property
    def client_tls(self) -> ClientTls | None:
        """How a client in this process connects; None = no TLS."""
        return None if self.tls_ca is None else ClientTls(self.tls_ca, self.tls_client_cert, self.tls_client_key)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the file."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, cls._read_file(Path(FILE)))

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings; `overrides` win.

        Raises:
            InvalidInputError: an unknown key or a bad value, named.
        """
        unknown = [key for key in os.environ if key.startswith(PREFIX) and not _is_known(key.removeprefix(PREFIX))]
        if unknown:
            raise InvalidInputError(f"unknown settings in the environment: {', '.join(sorted(unknown))}")
        try:
            return cls(**overrides)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
            raise InvalidInputError("bad settings: " + "; ".join(problems)) from error

    @classmethod
    def _read_file(cls, path: Path) -> dict[str, Any]:
        if not path.exists():
            return {}
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{path}: {error}") from error
        # `student` is a setting where it is a string and the student's table where it is one.
        names = [kind.table for kind in _PROCESSES if isinstance(content.get(kind.table), dict)]
        tables = {name: content.pop(name) for name in names}
        unknown = [key for key in content if not _is_known(key)]
        if unknown:
            raise InvalidInputError(f"{path}: unknown settings: {', '.join(sorted(unknown))}")
        shared = {key: value for key, value in content.items() if key in cls.model_fields}
        return {**shared, **tables.get(cls.table, {})}


class ServiceSettings(Settings):
    """What the two gRPC services have; sizes bound what one request may cost.

    Attributes:
        port, metrics_port: 0 picks a free port; `metrics_port` -1 serves no metrics.
        max_queue: requests that may wait; one more is answered RESOURCE_EXHAUSTED.
        drain_seconds: how long requests in flight may take after SIGTERM.
        reflection: whether anybody may ask a service for its schema.
        otlp_endpoint: gRPC URL of an OpenTelemetry collector that traces go to (extra `tracing`); None = no traces.
    """

    port: int = Field(0, ge=0, le=65535)
    metrics_port: int = Field(-1, ge=-1, le=65535)
    max_queue: int = Field(64, ge=0)
    max_image_bytes: int = Field(16 << 20, ge=1)
    max_image_pixels: int = Field(40_000_000, ge=1)
    drain_seconds: float = Field(30.0, ge=0)
    reflection: bool = True
    otlp_endpoint: str | None = None


class TeacherSettings(ServiceSettings):
    """The teacher service.

    Attributes:
        worlds: names of the worlds to serve, in order of preference (entry points `world2vlm.worlds`).
        world_options: each world's own options, by its name (`[teacher.world_options.NAME]` in the file).
        max_workers: trajectories made at the same time; worlds with lanes of their own are not counted.
        max_frames: frames of one trajectory.
        scene_cache: furnished rooms kept in memory.
        detector: folder or hub name of what finds objects in photos (D-FINE, RT-DETR v2, Grounding DINO); empty = they
            come without objects.
        vocabulary: what to look for, for a detector of an open vocabulary.
        depth_model: estimates the depth of photos that come without it, for a detector's objects and for gates with
            `estimate_depth`: `tiny` (in the package), `none`, or a folder or hub name of a metric depth model of
            transformers.
        device: torch device of the detector and of the depth model; `auto`: a GPU where there is one.
        with_gates: whether what generative worlds make of photos is judged, frame by frame.
        gates: the limits of these gates that differ from the defaults (`teacher_service.gates.settings`).
        cache_dir: folder that keeps trajectories, so that none is made twice; None keeps none. Services may share one.
        cache_bytes: of that folder; those used longest ago go first.
        min_clearance_m: the collision gate's distance; 0 turns it off.
        min_object_area: the empty-view gate's share of a key frame's pixels; 0 turns it off.
        min_observed_share: the unobserved gate's share of a frame that the photo must back; 0 turns it off.
    """

    table: ClassVar[str] = "teacher"

    port: int = Field(50051, ge=0, le=65535)
    metrics_port: int = Field(9101, ge=-1, le=65535)
    worlds: tuple[str, ...] = ("renderer", "geometric")
    world_options: dict[str, dict[str, Any]] = {}
    max_workers: int = Field(2, ge=1)
    max_frames: int = Field(512, ge=1)
    scene_cache: int = Field(32, ge=1)
    detector: str = ""
    vocabulary: tuple[str, ...] = ()
    depth_model: str = "tiny"
    device: str = "auto"
    with_gates: bool = True
    gates: dict[str, float | bool] = {}
    cache_dir: Path | None = None
    cache_bytes: int = Field(8 << 30, ge=0)
    min_clearance_m: float = Field(0.25, ge=0)
    min_object_area: float = Field(0.006, ge=0, lt=1)
    min_observed_share: float = Field(0.3, ge=0, lt=1)


class StudentSettings(ServiceSettings):
    """The student service.

    Attributes:
        engine: `local` answers with transformers, `onnx` with onnxruntime, `auto` takes
            onnxruntime for small students on a CPU and transformers else, `triton` asks the Triton server at
            `triton_url`.
        device: torch device of the engines `local` and `onnx`; `auto`: a GPU where there is one.
        onnx_cache: folder for exported graphs; the engine `onnx` exports each architecture but the shipped one once.
        workers: processes that each hold the checkpoint and answer; 0 = one a core for small students, 4 at most, and
            one for others. A worker of a student above 64 MB gets all cores, unless `threads` says otherwise.
        max_batch: requests answered at once, in all processes together.
        max_images: images in one request.
        max_question_tokens, max_new_tokens: tokens of a question and of an answer.
        watch_seconds: how long a swap's new version is watched, and taken off again where it fails; 0 turns that off.
        watch_max_error_rate: share of requests that may fail by the version's own fault meanwhile.
        watch_min_requests: requests below which that share says nothing; the canary is asked again all the same.
        shadow_version: a candidate that is asked a share of what others ask, its answers compared and never returned;
            0 = none.
        shadow_share: the share of live queries that the candidate gets, 0 to 1.
    """

    table: ClassVar[str] = "student"

    port: int = Field(50052, ge=0, le=65535)
    metrics_port: int = Field(9102, ge=-1, le=65535)
    engine: Literal["auto", "local", "onnx", "triton"] = "auto"
    onnx_cache: Path = Path("runs/onnx")
    triton_url: str = "localhost:8001"
    device: str = "auto"
    workers: int = Field(0, ge=0)
    max_batch: int = Field(16, ge=1)
    max_images: int = Field(2, ge=1)
    max_question_tokens: int = Field(512, ge=1)
    max_new_tokens: int = Field(64, ge=1)
    watch_seconds: float = Field(60.0, ge=0)
    watch_max_error_rate: float = Field(0.05, ge=0, le=1)
    watch_min_requests: int = Field(20, ge=1)
    shadow_version: int = Field(0, ge=0)
    shadow_share: float = Field(0.1, ge=0, le=1)


class TrainerSettings(Settings):
    """The trainer's worker and its scheduler.

    Attributes:
        metrics_port: for Prometheus; 0: any free one, -1: none.
        device: torch's.
        max_workers: pieces of work at once.
        keep_rejected: whether trajectories that a gate rejects are kept aside, with the reason, in the store's
            `rejected/`.
        accepted_terms: names of the worlds whose terms were read and are kept: without it nobody learns from the frames
            of a world with restrictive or unknown terms.
        region: where this is done, an ISO 3166 alpha-2 code or EU; worlds whose terms exclude it are refused.
        commercial: whether what is trained is used commercially; worlds whose terms forbid that are refused.
        trackers: where a training's curves go; none: nowhere.
        tracking: folder of TensorBoard's files; default: `tracking` in the store where that is a folder.
        nightly_photos: folder of photographs that nightly rounds imagine, gathered anew each night by the worker that
            starts the round; None = procedural rooms.
        nightly_fov_deg: horizontal field of view of these photographs; None = what each one's EXIF says.
        nightly_world: the teacher's world for nightly rounds; empty = `renderer`, or `geometric` with photographs.
    """

    table: ClassVar[str] = "trainer"

    metrics_port: int = Field(9103, ge=-1, le=65535)
    device: str = "cpu"
    max_workers: int = Field(2, ge=1)
    keep_rejected: bool = True
    accepted_terms: frozenset[str] = frozenset()
    region: str = Field("", pattern="^([A-Z]{2})?$")
    commercial: bool = False
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    tracking: Path | None = None
    nightly_photos: Path | None = None
    nightly_fov_deg: float | None = Field(None, ge=10, le=150)
    nightly_world: str = ""

    @property
    def policy(self) -> Policy:
        """Whose terms are kept."""
        return Policy(self.accepted_terms, self.region, self.commercial)


_PROCESSES: tuple[type[Settings], ...] = (TeacherSettings, StudentSettings, TrainerSettings)


def _is_known(key: str) -> bool:
    return any(key.lower() in process.model_fields for process in _PROCESSES)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
