"""A small web server for tests: files of a folder, with ranges, and what can go wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Site:
    """What is served, how, and what was asked for.

    Attributes
    ----------
    ranges : bool
        Whether parts of a file can be asked for.
    cut : int
        Bytes after which an answer breaks off; 0: never.
    refuse : int
        Status of every answer; 0: as it should be.
    asked : list of (str, str, str)
        Method, path and Range header of each request.
    sent : int
        Bytes of bodies.
    """

    folder: Path
    ranges: bool = True
    cut: int = 0
    refuse: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    sent: int = 0
    address: str = ""


@contextmanager
def serve(folder: Path) -> Iterator[Site]:
    """Serve *folder* on this machine as long as the block lasts."""
    site = Site(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None: ...

        def _answer(self, body: bool) -> None:
            asked = self.headers.get("Range", "")
            site.asked.append((self.command, self.path, asked))
            file = folder / self.path.partition("?")[0].lstrip("/")
            if site.refuse or not file.is_file():
                self.send_response(site.refuse or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = file.read_bytes()
            size, first, last, status = len(data), 0, len(data) - 1, 200
            found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked) if site.ranges else None
            if found:
                first = int(found[1]) if found[1] else size - int(found[2])
                last = min(last, int(found[2])) if found[2] and found[1] else last
                status = 206 if first < size else 416
            part = data[first : last + 1] if status != 416 else b""
            self.send_response(status)
            if site.ranges:
                self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("ETag", f'"{hash(data)}"')
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if body:
                part = part[: site.cut] if site.cut else part
                self.wfile.write(part)
                site.sent += len(part)
            if site.cut:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
