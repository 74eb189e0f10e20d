"""`RepositoryModelLoad` as a swap."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from student_service.swap import Swapper
from world2vlm.checkpoints import Registry
from world2vlm.errors import (
    DataCorruptedError,
    GateRejectedError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    UnsupportedError,
)
from world2vlm.kserve.tensors import parse_version

_REFUSALS = (DataCorruptedError, GateRejectedError, InvalidInputError, NotFoundError, PreconditionError)
_MOST_CONFIG = 1 << 16


def refuse_repository(request: Any) -> None:
    """Do nothing for a request that names no repository.

    Raises:
        UnsupportedError: it names one.
    """
    if request.repository_name:
        raise UnsupportedError("'repository_name' specification is not supported")


def load(swapper: Swapper, registry: Registry, name: str, parameters: Mapping[str, Any]) -> None:
    """Swap to the newest published version, or to the one that the parameters choose. Blocks.

    The parameter `version` chooses one, an integer or text; so does `config`, with which Triton's clients load: a model
    configuration in JSON, that says nothing but `{"version_policy": {"specific": {"versions": [3]}}}`.

    Raises:
        InvalidInputError: the load is refused, for whatever reason; the text says it, and what served still does.
    """
    try:
        version = _chosen_version(parameters) or _newest(registry)
        swapper.swap(version)
    except _REFUSALS as error:
        raise InvalidInputError(f"load failed for model {name!r}: {error}") from error


def _newest(registry: Registry) -> int:
    versions = registry.versions()
    if not versions:
        raise NotFoundError("no version is published")
    return versions[-1]


def _chosen_version(parameters: Mapping[str, Any]) -> int | None:
    if unknown := sorted(set(parameters) - {"version", "config"}):
        raise InvalidInputError(
            f"unrecognized load parameter {unknown[0][:40]!r}; nothing but published versions loads"
        )
    if len(parameters) > 1:
        raise InvalidInputError("the parameters version and config exclude each other")
    if "config" in parameters:
        return _configured_version(parameters["config"].string_param)
    if "version" not in parameters:
        return None
    given = parameters["version"]
    kind = given.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "string_param"):
        raise InvalidInputError("the parameter version must be an integer or a string")
    version = parse_version(str(getattr(given, kind)))
    if not version:
        raise InvalidInputError("the parameter version must name a version, from 1 on")
    return version


def _configured_version(text: str) -> int:
    if len(text) > _MOST_CONFIG:
        raise InvalidInputError(f"the config has more than {_MOST_CONFIG} characters")
    try:
        config = json_format.Parse(text, model_config_pb2.ModelConfig())
    except (json_format.ParseError, RecursionError) as error:
        raise InvalidInputError("the config is not the JSON of a model configuration") from error
    versions = config.version_policy.specific.versions
    said = {field.name for field, _ in config.ListFields()}
    if said != {"version_policy"} or len(versions) != 1 or versions[0] < 1:
        raise InvalidInputError("the config may choose one version, by version_policy.specific, and nothing else")
    return int(versions[0])
