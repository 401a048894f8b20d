"""A hub on loopback that serves one data set repository from memory, with faults if asked."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_hub import serving
from huggingface_hub import constants


class Handler(BaseHTTPRequestHandler):
    """What the client asks for one commit: information, list of files, and their content, from any byte on."""

    server: "SmallHub"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, content: bytes, status: int = 200, sent: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:sent])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, (path, _, _) = self.server, self.path.partition("?")
        if hub.busy:
            hub.busy -= 1
            self._answer(b"", 503)
            return
        listed = [{"type": "file", "path": n, "size": len(c), "oid": git_sha1(c)} for n, c in hub.files.items()]
        if path == f"/api/datasets/{hub.name}/revision/{hub.revision}":
            siblings = [{"rfilename": name} for name in hub.files]
            self._answer(json.dumps({"id": hub.name, "sha": hub.revision, "siblings": siblings}).encode())
        elif path == f"/api/datasets/{hub.name}/tree/{hub.revision}":
            self._answer(json.dumps(listed).encode())
        elif (name := path.removeprefix(f"/datasets/{hub.name}/resolve/{hub.revision}/")) in hub.files:
            self._file(hub.files[name])
        else:
            code = "RevisionNotFound" if hub.name in path else "RepoNotFound"
            self._answer(b"{}", 404, X_Error_Code=code)

    def _file(self, content: bytes) -> None:
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        where = {"Content_Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if first else {}
        headers = {"ETag": f'"{git_sha1(content)}"', "X_Repo_Commit": self.server.revision, **where}
        cut = self.command == "GET" and self.server.cuts > 0
        self.server.cuts -= cut
        self._answer(content[first:], 206 if first else 200, len(content) // 2 - first if cut else None, **headers)


def git_sha1(content: bytes) -> str:
    """The digest by which git, and the hub, name a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class SmallHub(ThreadingHTTPServer):
    """One data set repository at one commit; busy for the first so many requests; the first `cuts` files break off."""

    def __init__(self, name: str, revision: str, files: Mapping[str, bytes], cuts: int, busy: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.revision, self.files = name, revision, files
        self.cuts, self.busy = cuts, busy

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def small_hub(name: str, revision: str, files: Mapping[str, bytes], cuts: int = 0, busy: int = 0) -> Iterator[SmallHub]:
    """Serve, and stop serving afterwards."""
    hub = SmallHub(name, revision, files, cuts, busy)
    with serving(hub):
        yield hub


def use_hub(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process's hub client at an address, with a cache of its own."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
