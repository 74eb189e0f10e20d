"""The suites that are known: where they come from, how they are read, and what their overall score is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.suites import mindcube, sat, vsi_bench
from trainer.suites.items import SuiteItem
from world2vlm.errors import InvalidInputError


@dataclass(frozen=True)
class Suite:
    """One published suite.

    Attributes:
        name: what it is called on the command line.
        repository: its data set on the Hugging Face hub.
        files: where its test questions are in a folder it was downloaded to, the first that is there (glob patterns).
        load: reads one such file.
        tasks: question type -> task, where the overall score is the mean over tasks and a task's the mean over its
            types; empty where it is the mean over all questions.
        packed: whether its pictures come in archives that must be unpacked.
    """

    name: str
    repository: str
    files: tuple[str, ...]
    load: Callable[[Path], list[SuiteItem]]
    tasks: Mapping[str, str]
    packed: bool

    def read(self, path: Path) -> list[SuiteItem]:
        """Read the suite from the folder it was downloaded to, or from one of its files.

        Raises:
            InvalidInputError: nothing there, with how to get it; or a broken file, with its name and row.
        """
        if path.is_file():
            return self.load(path)
        found = next((match for pattern in self.files for match in sorted(path.glob(pattern))), None)
        if found is None:
            raise InvalidInputError(f"{path}: no {' or '.join(self.files)} in it; get it with: {self.download(path)}")
        return self.load(found)

    def download(self, path: Path) -> str:
        """The command that downloads it to a folder."""
        # Without archives the questions are one file of many, and the others are large.
        only, unpack = ("", f" && (cd {path} && unzip -q '*.zip')") if self.packed else (f" {self.files[0]}", "")
        return f"hf download {self.repository}{only} --repo-type dataset --local-dir {path}{unpack}"


SUITES = {
    suite.name: suite
    for suite in (
        Suite("sat", sat.REPOSITORY, sat.FILES, sat.load, {}, packed=False),
        Suite("vsi-bench", vsi_bench.REPOSITORY, vsi_bench.FILES, vsi_bench.load, vsi_bench.TASKS, packed=True),
        Suite("mindcube", mindcube.REPOSITORY, mindcube.FILES, mindcube.load, {}, packed=True),
    )
}
"""All suites by name."""
