"""A hub on loopback that takes one upload and remembers what it was sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = (".safetensors", ".onnx")  # what it wants by LFS, as the real one


class Handler(BaseHTTPRequestHandler):
    """The requests of `create_repo` and `create_commit`, answered as the hub's API documents them."""

    server: "FakeHub"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        body = self._body()
        self.server.requests.append(("POST", self.path, self.headers.get("Authorization")))
        if self.server.status != 200:
            self._answer({"error": "Invalid credentials"}, self.server.status)
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._answer({"url": f"{self.server.url}/owner/name", "name": "owner/name"})
        elif "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in files}
            self._answer({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            actions = [{**o, "actions": {"upload": {"href": f"{self.server.url}/lfs/{o['oid']}"}}} for o in objects]
            self._answer({"transfer": "basic", "objects": actions})
        elif "/commit/" in self.path:
            self.server.commit = [json.loads(line) for line in body.splitlines()]
            self._answer({"commitUrl": f"{self.server.url}/owner/name/commit/{'0' * 40}", "commitOid": "0" * 40})
        else:
            self._answer({"error": "unknown"}, 404)

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self._body()
        self._answer({})


class FakeHub(ThreadingHTTPServer):
    """What arrived: requests, the repository asked for, large files by SHA-256, and the commit's lines."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.requests: list[tuple[str, str, str | None]] = []
        self.created: dict[str, Any] = {}
        self.objects: dict[str, bytes] = {}
        self.commit: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Answer requests meanwhile."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def fake_hub(status: int = 200) -> Iterator[FakeHub]:
    """Serve; with another `status` every request is refused with it."""
    hub = FakeHub(status)
    with serving(hub):
        yield hub
