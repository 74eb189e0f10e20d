"""Reading recipes, and what they resolve to."""

import hashlib
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, ValidationInfo

from trainer.base_config import BaseConfig
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.grpo.config import FinetuneGrpoConfig
from trainer.grpo.config import GrpoConfig
from trainer.ranges import TaskCode
from trainer.sft_config import SftConfig
from world2vlm.errors import InvalidInputError
from world2vlm.files import canonical_json, write_atomically
from world2vlm.records import TaskRecord

RECIPE_FILE = "recipe.json"
"""Within a checkpoint: the recipe as it was resolved, with its digest."""

_SUFFIX = ".toml"


def _read_grpo(value: object, info: ValidationInfo) -> object:
    """[grpo] has other settings behind [finetune]."""
    after = info.data.get("finetune") is not None
    return TypeAdapter(FinetuneGrpoConfig if after else GrpoConfig).validate_python(value)


_Grpo = Annotated[GrpoConfig | FinetuneGrpoConfig, BeforeValidator(_read_grpo)]


@dataclass(frozen=True)
class Recipe:
    """How a student is trained: its stages, one after the other.

    Attributes:
        name: the file's.
        description: one sentence.
        tasks: the tasks whose records are used; empty: all.
        sft: supervised fine-tuning of the built-in student (`trainer.sft`).
        finetune: supervised fine-tuning of any vision-language model of transformers (`trainer.finetune`).
        grpo: what follows either, or what is done to a built-in student that knows the tasks already (`trainer.grpo`,
            `trainer.finetune.grpo`).
        base: pre-training of a base student from nothing (`trainer.base_student`); alone.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    name: str
    description: str
    tasks: tuple[TaskCode, ...] = ()
    sft: SftConfig | None = None
    finetune: FinetuneConfig | None = None
    grpo: _Grpo | None = None
    base: BaseConfig | None = None

    def __post_init__(self) -> None:
        tiny = self.sft is not None or isinstance(self.grpo, GrpoConfig)
        lost = isinstance(self.grpo, FinetuneGrpoConfig) and self.finetune is None
        if lost or [tiny, self.finetune is not None, self.base is not None].count(True) != 1:
            raise InvalidInputError(
                f"recipe {self.name}: either [sft] and [grpo], or one of the two, or [finetune] and perhaps [grpo], "
                "or [base]"
            )

    def select(self, records: Iterable[TaskRecord]) -> list[TaskRecord]:
        """The records of its tasks."""
        return [record for record in records if not self.tasks or record.task_type in self.tasks]

    def to_json(self) -> dict[str, Any]:
        """Everything, the defaults included; stages that there are none of are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @property
    def digest(self) -> str:
        """sha256 of `to_json`: two trainings with the same one differ in their data and parents alone."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()

    @property
    def resolved(self) -> dict[str, Any]:
        """`to_json` with the digest."""
        return {**self.to_json(), "digest": self.digest}

    def write(self, folder: Path) -> None:
        """Put it beside what it trained."""
        write_atomically(folder / RECIPE_FILE, canonical_json(self.resolved).encode())

    @property
    def steps(self) -> int:
        """Steps of the built-in student's stages together; a fine-tuning's depend on its examples' lengths."""
        return sum(stage.steps for stage in (self.base, self.sft, self.grpo) if stage is not None)

    def adjusted(self, *, steps: int = 0, seed: int | None = None, threads: int = 0) -> "Recipe":
        """With other steps (of the first stage), another seed, other threads; 0 and None leave them.

        Threads are the built-in student's.
        """
        changes: dict[str, Any] = {}
        if seed is not None:
            changes["seed"] = seed
        if threads:
            changes["threads"] = threads
        sft, grpo, finetune, base = self.sft, self.grpo, self.finetune, self.base
        if base is not None:
            base = replace(base, steps=steps or base.steps, seed=base.seed if seed is None else seed)
        if finetune is not None:
            finetune = replace(finetune, steps=steps or finetune.steps, seed=finetune.seed if seed is None else seed)
        if sft is not None:
            sft = replace(sft, **changes, steps=steps or sft.steps)
        if grpo is not None:
            kept = changes if isinstance(grpo, GrpoConfig) else {"seed": changes.get("seed", grpo.seed)}
            alone = sft is None and finetune is None
            grpo = replace(grpo, **kept, steps=steps or grpo.steps if alone else grpo.steps)
        return replace(self, sft=sft, grpo=grpo, finetune=finetune, base=base)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the trainer."""
    return sorted(name.removesuffix(_SUFFIX) for name in _shipped())


def load_recipe(name: str) -> Recipe:
    """Read a recipe.

    Args:
        name: of one that comes with the trainer, or the path of a file of the same form.

    Raises:
        InvalidInputError: there is none, or it is broken, or it sets something that there isn't.
    """
    if name.endswith(_SUFFIX):
        path = Path(name)
        try:
            return _parse(path.stem, path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"{name} cannot be read: {error}") from error
    if name not in recipe_names():
        raise InvalidInputError(f"unknown recipe {name!r}; known are {', '.join(recipe_names())}, or a .toml file")
    return _parse(name, (files(__package__) / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))


def _parse(name: str, text: str) -> Recipe:
    try:
        return _adapter().validate_python({"name": name, **tomllib.loads(text)})
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"recipe {name} is no TOML: {error}") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidInputError(f"recipe {name}: {found}") from error


@cache
def _adapter() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)


def _shipped() -> Iterator[str]:
    return (entry.name for entry in files(__package__).iterdir() if entry.name.endswith(_SUFFIX))
