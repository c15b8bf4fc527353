"""A small HTTP server on loopback that serves ranges, and misbehaves as told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

Mischief = Callable[["Handler", bytes], bool]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        with server.lock:
            server.asked.append((unquote(self.path[1:]), self.headers.get("Range"), time.monotonic()))
            mischief = server.mischief.pop(0) if server.mischief else None
        body = server.files.get(unquote(self.path[1:]))
        if mischief is not None and mischief(self, body or b""):
            return
        if body is None:
            self.reply(404, b"")
            return
        first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
        piece = body[first : last + 1]
        if not piece:
            self.reply(416, b"")
            return
        self.reply(206, piece, f"bytes {first}-{first + len(piece) - 1}/{len(body)}")

    def reply(self, status: int, body: bytes, content_range: str | None = None, **headers: str):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.mischief: list[Mischief | None] = []
        self.asked: list[tuple[str, str | None, float]] = []
        self.lock = threading.Lock()
        self.root = f"http://127.0.0.1:{self.server_address[1]}/"


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    with Server(files) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
