"""Timing sides against each other, and saying what came of it and where."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from world2vlm.files import write_atomically
from world2vlm.report.machine import describe_machine, describe_versions


def interleave(sides: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Run the sides in turn (A B A B), so that a machine that gets busier slows all of them. Returns seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, run in sides.items():
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)
    return seconds


@dataclass(frozen=True)
class Result:
    """What a benchmark found.

    Attributes:
        name: the benchmark's.
        unit: what a repetition works through, in the plural.
        amount: how many of them.
        sizes: what else its cost depends on.
        seconds: each side's repetitions, in the order they ran; the first side is the one to compare with.
    """

    name: str
    unit: str
    amount: int
    sizes: Mapping[str, int]
    seconds: Mapping[str, list[float]]

    @property
    def speeds(self) -> dict[str, float]:
        """How many times as fast as the first side each side is: the ratio of the medians."""
        medians = {side: median(seconds) for side, seconds in self.seconds.items()}
        first = next(iter(medians.values()))
        return {side: first / middle for side, middle in medians.items()}

    def as_json(self) -> dict[str, Any]:
        """The result with machine and versions."""
        return {
            "benchmark": self.name,
            "machine": describe_machine(),
            "versions": describe_versions(),
            "unit": self.unit,
            "amount": self.amount,
            "sizes": dict(self.sizes),
            "sides": {
                side: {
                    "seconds": seconds,
                    "min": min(seconds),
                    "median": median(seconds),
                    "per_second": self.amount / median(seconds),
                    "speed": self.speeds[side],
                }
                for side, seconds in self.seconds.items()
            },
        }

    def publish(self, path: Path | None) -> None:
        """Print the result, and write it as JSON where a path is given."""
        content = self.as_json()
        machine, versions = content["machine"], content["versions"]
        names = ("python", "torch", "transformers", "grpcio")
        print(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}")
        print(", ".join(f"{name} {versions.get(name, 'not installed')}" for name in names))
        sizes = {self.unit: self.amount, **self.sizes}
        print(", ".join(f"{name} {value:,}" for name, value in sizes.items()))
        first = next(iter(self.seconds))
        print(f"{'':<16}{'min s':>9}{'median s':>10}  {self.unit + '/s':>14}  times as fast as {first}")
        for name, side in content["sides"].items():
            figures = f"{side['min']:>9.3f}{side['median']:>10.3f}  {side['per_second']:>14.1f}  {side['speed']:.2f}"
            print(f"{name:<16}{figures}")
        if path is not None:
            write_atomically(path, json.dumps(content, indent=2).encode())
