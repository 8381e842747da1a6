"""A package index on this machine: the JSON simple API and files, with a connection that can fail on demand."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class LocalIndex:
    """The state of the index. ``files`` are served by name; ``yanked`` are listed as such,
    and ``requires_python`` is what the page says of a file.

    ``cut_after`` ends the next answers with a file after that many bytes, one entry for each answer. ``refusals`` are
    the statuses of the next answers. ``ranges`` are the received ``Range`` headers, ``None`` for a request without one.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    yanked: set[str] = field(default_factory=set)
    requires_python: dict[str, str] = field(default_factory=dict)
    resumes: bool = True
    cut_after: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    url: str = ""

    def page(self, project: str) -> bytes | None:
        """The project's page, or ``None`` without a file of that project."""
        names = [name for name in self.files if normal(re.split(r"-\d", name)[0]) == normal(project)]
        if not names:
            return None
        listed = [
            {
                "filename": name,
                "url": f"/files/{name}",
                "hashes": {"sha256": hashlib.sha256(self.files[name]).hexdigest()},
                "size": len(self.files[name]),
                "yanked": name in self.yanked,
                "requires-python": self.requires_python.get(name),
            }
            for name in names
        ]
        meta = {"meta": {"api-version": "1.1"}, "name": project, "versions": [], "files": listed}
        return json.dumps(meta).encode()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Server(ThreadingHTTPServer):
    """The server, with the state that its handlers share."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.index = LocalIndex(url=f"http://127.0.0.1:{self.server_port}/simple/")

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore interrupted clients: some tests interrupt them on purpose."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        folder, _, name = self.path.strip("/").partition("/")
        if self.server.index.refusals:
            self.answer(self.server.index.refusals.pop(0), b"")
        elif folder == "simple":
            page = self.server.index.page(name)
            self.answer(404 if page is None else 200, page or b"", "application/vnd.pypi.simple.v1+json")
        elif name in self.server.index.files:
            self.file(self.server.index.files[name])
        else:
            self.answer(404, b"")

    def file(self, content: bytes) -> None:
        asked = self.headers.get("Range")
        self.server.index.ranges.append(asked)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "") if self.server.index.resumes else None
        if wanted is None:
            self.answer(200, content)
            return
        start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
        if start >= len(content):
            self.answer(416, b"")
            return
        self.answer(206, content[start : end + 1], extra=f"bytes {start}-{end}/{len(content)}")

    def answer(self, status: int, body: bytes, kind: str = "application/octet-stream", extra: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes" if self.server.index.resumes else "none")
        if extra:
            self.send_header("Content-Range", extra)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.index.cut_after and "octet-stream" in kind:
            body = body[: self.server.index.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@contextlib.contextmanager
def serve() -> Iterator[LocalIndex]:
    """Serve until the block ends."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.index
        finally:
            server.shutdown()
            thread.join()
