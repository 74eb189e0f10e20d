"""Suites from the Hugging Face hub: fetched into the hub's own cache, then read like any folder."""

import logging
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trainer.suites.archives import unpack
from trainer.suites.suite import Suite
from world2vlm.errors import InvalidInputError, NotFoundError, UnavailableError

_log = logging.getLogger(__name__)
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Located:
    """Where a suite's files lie.

    Attributes:
        path: their folder, or one of them.
        repository: the hub's data set that they were fetched from; empty where they were there already.
        revision: its commit, in hex; empty likewise.
    """

    path: Path
    repository: str = ""
    revision: str = ""


def locate(suite: Suite, data: str = "", revision: str = "") -> Located:
    """Find a suite's files on this machine, or fetch them from the hub.

    Args:
        suite: the suite.
        data: their folder, or one of them; or `owner/name` of a data set on the hub that has the same files; empty for
            the one that the suite is published as.
        revision: a commit, tag or branch of that data set; empty for its main branch.

    Raises:
        InvalidInputError: a revision of a folder, or what was fetched is broken or unsafe.
        NotFoundError: no such data set or revision, or one without the suite's files.
        UnavailableError: the hub cannot be reached, or does not let one have it, or the cache cannot be written.
    """
    if not data or (_REPOSITORY.fullmatch(data) and not Path(data).exists()):
        return _fetch(suite, data or suite.repository, revision)
    if revision:
        raise InvalidInputError(f"--revision is for data sets on the hub; {data} is read as it lies there")
    return Located(Path(data))


def _fetch(suite: Suite, repository: str, revision: str) -> Located:
    from huggingface_hub import constants

    snapshot = folder = _download(suite, repository, revision)
    archives = [snapshot / name for name in suite.archives]
    missing = [archive.name for archive in archives if not archive.is_file()]
    if not missing and archives:
        # Beside its cache of files the hub has one for what is made of them: library, name, kind.
        made = Path(constants.HF_ASSETS_CACHE).expanduser() / "world2vlm" / repository.replace("/", "--")
        folder = made / "unpacked" / snapshot.name
        try:
            unpack(archives, [path for pattern in suite.files for path in snapshot.glob(pattern)], folder)
        except OSError as error:
            raise UnavailableError(f"the archives of {repository} cannot be unpacked: {error}") from error
    if missing or suite.find(folder) is None:
        wanted = ", ".join(missing) or " or ".join(suite.files)
        raise NotFoundError(f"the hub's {repository} has no {wanted} at revision {snapshot.name}; name another one")
    return Located(folder, repository, snapshot.name)


def _download(suite: Suite, repository: str, revision: str) -> Path:
    """The snapshot with the suite's files, in a folder that is called like its commit."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils.tqdm import tqdm

    # Bars on a terminal only: elsewhere they would fill a log.
    _log.info("fetching %s from the hub, or looking whether all of it is in %s", repository, constants.HF_HUB_CACHE)
    bars: Any = partial(tqdm, disable=None)
    try:
        return Path(
            snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision or None,
                allow_patterns=[*suite.files, *suite.archives],
                tqdm_class=bars,
            )
        )
    except GatedRepoError as error:
        page = f"{constants.ENDPOINT}/datasets/{repository}"
        raise UnavailableError(
            f"{repository} is gated: accept its terms at {page}, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise NotFoundError(
            f"{repository!r} is no folder here, and the hub has no data set of that name, or a private one"
        ) from error
    except RevisionNotFoundError as error:
        raise NotFoundError(f"the hub's {repository} has no revision {revision!r}") from error
    except Exception as error:  # its transports have errors of their own, without a common base
        reason = " ".join(str(error).split())
        raise UnavailableError(
            f"{repository} is no folder here, not whole in the hub's cache, and cannot be fetched now: {reason} Get it "
            f"where there is a network: {suite.download(Path(suite.name), repository)}; then name its folder by --data"
        ) from error
