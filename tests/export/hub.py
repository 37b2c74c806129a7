"""A stand-in for the Hugging Face Hub on this machine: takes repositories and commits, and remembers them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What was asked of it.

    Args:
        url: Where it listens.
        tokens: The tokens that were shown.
        made: Requests to make a repository.
        files: Content by path of what was committed.
        refuse: Whether every request is forbidden.
    """

    url: str = ""
    tokens: set[str | None] = field(default_factory=set)
    made: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    refuse: bool = False


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub until the end of the block."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def _say(self, content: Any, status: int = 200) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            hub.tokens.add(self.headers.get("Authorization"))
            self._say({"id": "me/mine", "sha": "0" * 40, "siblings": []})

        def do_POST(self) -> None:
            hub.tokens.add(self.headers.get("Authorization"))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if hub.refuse:
                self._say({"error": "no"}, 403)
            elif self.path == "/api/validate-yaml":
                self._say({"errors": [], "warnings": []})
            elif self.path == "/api/repos/create":
                hub.made.append(json.loads(body))
                self._say({"url": f"{hub.url}/me/mine", "name": "me/mine"})
            elif "/preupload/" in self.path:
                files = [
                    {"path": row["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for row in json.loads(body)["files"]
                ]
                self._say({"files": files})
            elif "/commit/" in self.path:
                for row in map(json.loads, body.decode().splitlines()):
                    if row["key"] == "file":
                        hub.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                url = f"{hub.url}/me/mine/commit/{'0' * 40}"
                self._say({"commitUrl": url, "commitOid": "0" * 40, "success": True})
            else:
                self._say({"error": self.path}, 404)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
