"""What is printed and written down at the end: the machine, the figures, and each claim with what was measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from world2vlm.files import write_atomically
from world2vlm.report.machine import describe_machine, describe_versions


@dataclass(frozen=True)
class Claim:
    """What should hold: `figure` is at most `bound`, or at least where `is_least`."""

    text: str
    figure: float
    bound: float
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it holds; a figure that is none meets nothing."""
        return self.figure >= self.bound if self.is_least else self.figure <= self.bound

    def __str__(self) -> str:
        sign = "≥" if self.is_least else "≤"
        return f"{'met   ' if self.is_met else 'MISSED'} {self.text}: {self.figure:.4g} ({sign} {self.bound:g})"


@dataclass(frozen=True)
class Part:
    """One part of the benchmark: its figures, and the claims that they are measured for."""

    figures: Mapping[str, Any]
    claims: Sequence[Claim] = field(default_factory=tuple)

    def show(self, name: str) -> None:
        """Print it."""
        print(f"\n== {name}", flush=True)
        _show(self.figures, "")
        for claim in self.claims:
            print(claim, flush=True)


def header(benchmark: str, also: Sequence[str]) -> dict[str, Any]:
    """The machine and the versions, those of `also` among them, printed and returned."""
    machine, versions = describe_machine(), describe_versions()
    for package in also:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}")
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    return {"benchmark": benchmark, "machine": machine, "versions": versions}


def write(path: Path, head: Mapping[str, Any], options: Mapping[str, Any], parts: Mapping[str, Part]) -> None:
    """Write all of it as JSON."""
    content = {
        **head,
        "options": dict(options),
        "parts": {
            name: {**part.figures, "claims": [{**asdict(claim), "is_met": claim.is_met} for claim in part.claims]}
            for name, part in parts.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=2, default=str).encode())


def _show(figures: Mapping[str, Any], indent: str) -> None:
    for name, figure in figures.items():
        if isinstance(figure, Mapping) and any(isinstance(value, Mapping) for value in figure.values()):
            print(f"{indent}{name}")
            _show(figure, indent + "  ")
        elif isinstance(figure, Mapping):
            print(f"{indent}{name}: " + ", ".join(f"{key} {_number(value)}" for key, value in figure.items()))
        else:
            print(f"{indent}{name}: {_number(figure)}")


def _number(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_number(each) for each in value)
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
