"""A web server on this machine that misbehaves as a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What one path answers: ``cut`` closes the connection after so many bytes of an answer, as
    often as ``cuts`` says; ``ranges`` says whether the server can begin in the middle."""

    content: bytes = b""
    status: int = 200
    kind: str = "application/octet-stream"
    location: str = ""
    ranges: bool = True
    cut: int = 0
    cuts: int = 0
    length: bool = True


@dataclass
class Server:
    address: str
    pages: dict[str, Page] = field(default_factory=dict)
    #: The path and the Range header of every request.
    requests: list[tuple[str, str]] = field(default_factory=list)


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append((self.path, self.headers.get("Range", "")))
            page = server.pages.get(self.path, Page(b"not here", status=404))
            start = 0
            asked = self.headers.get("Range", "")
            if asked and page.ranges and page.status == 200:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(page.content):
                    self.send_error(416)
                    return
            body = page.content[start:]
            self.send_response(206 if start else page.status)
            self.send_header("Content-Type", page.kind)
            if page.length:
                self.send_header("Content-Length", str(len(body)))
            if start:
                last, total = len(page.content) - 1, len(page.content)
                self.send_header("Content-Range", f"bytes {start}-{last}/{total}")
            if page.location:
                self.send_header("Location", page.location)
            self.end_headers()
            if page.cuts:
                page.cuts -= 1
                body = body[: page.cut]
            with suppress(ConnectionError):  # a client that has seen enough
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    """A server whose pages the test sets."""
    server = Server("")
    web = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.address = f"http://127.0.0.1:{web.server_address[1]}"
    thread = threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
