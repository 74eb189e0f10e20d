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
        archives: what its pictures, and maybe its questions, are packed in.
    """

    name: str
    repository: str
    files: tuple[str, ...]
    load: Callable[[Path], list[SuiteItem]]
    tasks: Mapping[str, str]
    archives: tuple[str, ...]

    def read(self, path: Path) -> list[SuiteItem]:
        """Read the suite from the folder it was downloaded to, or from one of its files.

        Raises:
            InvalidInputError: nothing there, with how to get it; or a broken file, with its name and row.
        """
        if path.is_file():
            return self.load(path)
        found = self.find(path)
        if found is None:
            raise InvalidInputError(f"{path}: no {' or '.join(self.files)} in it; get it with: {self.download(path)}")
        return self.load(found)

    def find(self, path: Path) -> Path | None:
        """The file with its test questions in a folder; None where there is none."""
        return next((match for pattern in self.files for match in sorted(path.glob(pattern))), None)

    def download(self, path: Path, repository: str = "") -> str:
        """The command that downloads it to a folder, from its own or from another data set."""
        # Without archives the questions are one file of many, and the others are large.
        only, unpack = ("", f" && (cd {path} && unzip -q '*.zip')") if self.archives else (f" {self.files[0]}", "")
        return f"hf download {repository or self.repository}{only} --repo-type dataset --local-dir {path}{unpack}"


SUITES = {
    suite.name: suite
    for suite in (
        Suite("sat", sat.REPOSITORY, sat.FILES, sat.load, {}, archives=()),
        Suite("vsi-bench", vsi_bench.REPOSITORY, vsi_bench.FILES, vsi_bench.load, vsi_bench.TASKS, vsi_bench.ARCHIVES),
        Suite("mindcube", mindcube.REPOSITORY, mindcube.FILES, mindcube.load, {}, mindcube.ARCHIVES),
    )
}
"""All suites by name."""
