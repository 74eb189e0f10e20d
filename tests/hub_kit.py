"""A Hugging Face hub on this machine: as much of its HTTP interface as fetching a data set takes."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

Files = Mapping[str, bytes]
_PATH = re.compile(r"(?:/api)?/datasets/([^/]+/[^/]+)/(revision|tree|resolve)/([^/]+)/?(.*)")


class Hub(ThreadingHTTPServer):
    """Data sets with their commits; `asked` is what was asked for, as method and path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.commits: dict[str, dict[str, Files]] = {}
        self.gated: set[str] = set()
        self.broken = False
        self.asked: list[tuple[str, str]] = []

    def publish(self, name: str, files: Files) -> str:
        """Add a commit to a data set, which is its `main` from now on."""
        commit = hashlib.sha1(b"".join(key.encode() + files[key] for key in sorted(files))).hexdigest()
        revisions = self.commits.setdefault(name, {})
        revisions[commit] = revisions["main"] = files
        return commit

    def fetched(self) -> list[str]:
        """The files whose content was asked for, since this was asked last."""
        found = [_PATH.fullmatch(path) for method, path in self.asked if method == "GET"]
        self.asked.clear()
        return sorted(match[4] for match in found if match and match[2] == "resolve")


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        found = _PATH.fullmatch(path)
        if self.server.broken:
            return self._send(500)
        if found is None:
            return self._send(404)
        name, what, revision, file = found.groups()
        revisions = self.server.commits.get(name)
        if revisions is None:
            return self._send(404, error="RepoNotFound")
        if revision not in revisions:
            return self._send(404, error="RevisionNotFound")
        files = revisions[revision]
        commit = next(key for key, value in revisions.items() if value is files and key != "main")
        if what == "revision":
            return self._send_json({"id": name, "sha": commit, "siblings": [{"rfilename": key} for key in files]})
        if what == "tree":
            return self._send_json(
                [{"type": "file", "path": key, "size": len(data), "oid": _oid(data)} for key, data in files.items()]
            )
        if name in self.server.gated:
            return self._send(403, error="GatedRepo")
        if file not in files:
            return self._send(404, error="EntryNotFound")
        return self._send(200, files[file], {"ETag": f'"{_oid(files[file])}"', "X-Repo-Commit": commit})

    def _send_json(self, payload: Any) -> None:
        self._send(200, json.dumps(payload).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in {**(headers or {}), **({"X-Error-Code": error} if error else {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Hub]:
    with Hub() as hub:
        Thread(target=hub.serve_forever, args=(0.05,), daemon=True).start()
        yield hub
        hub.shutdown()


def packed(files: Files) -> bytes:
    """A zip archive of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    """All files under a folder, by their paths in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
