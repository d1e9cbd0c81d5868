"""A small DICOMweb server for tests: QIDO-RS (instances of a study) and WADO-RS (metadata, frames) of DICOM files."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom
from pydicom.encaps import generate_frames

BOUNDARY = "frames"
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality")


@dataclass
class Archive:
    """What is served, and what was asked for.

    Attributes
    ----------
    token : str
        Bearer token without which every answer is 401; "" for none.
    refuse : int
        Status of every answer about frames; 0: as it should be.
    frames : list of int
        Numbers of the frames that were sent.
    """

    instances: list[Any]
    token: str = ""
    refuse: int = 0
    frames: list[int] = field(default_factory=list)
    address: str = ""

    @property
    def url(self) -> str:
        """Address of the slide."""
        one = self.instances[0]
        return f"{self.address}/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"


@contextmanager
def serve(folder: Path) -> Iterator[Archive]:
    """Serve the DICOM files of *folder* on this machine as long as the block lasts."""
    archive = Archive([pydicom.dcmread(path) for path in sorted(folder.iterdir())])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if archive.token and self.headers.get("Authorization") != f"Bearer {archive.token}":
                self._send(401, "text/plain", b"who are you?")
                return
            parts = urlsplit(self.path)
            path = parts.path.removeprefix("/dicom-web")
            if match := re.fullmatch(r"/studies/([\d.]+)/instances", path):
                asked = parse_qs(parts.query)
                self._json([_header(i) for i in _matching(archive, match[1], asked)])
            elif match := re.fullmatch(r"/studies/([\d.]+)/series/([\d.]+)(?:/instances/([\d.]+))?/metadata", path):
                found = [i for i in archive.instances if _is(i, *match.groups())]
                self._json([_header(i) for i in found], 200 if found else 404)
            elif match := re.fullmatch(r"/studies/([\d.]+)/series/([\d.]+)/instances/([\d.]+)/frames/([\d,]+)", path):
                (found,) = (i for i in archive.instances if _is(i, *match.groups()[:3]))
                self._frames(found, [int(n) for n in match[4].split(",")])
            else:
                self._send(404, "text/plain", b"nothing here")

        def log_message(self, *_: object) -> None: ...

        def _json(self, content: Any, status: int = 200) -> None:
            self._send(status, "application/dicom+json", json.dumps(content).encode())

        def _frames(self, instance: Any, numbers: list[int]) -> None:
            if archive.refuse:
                self._send(archive.refuse, "text/plain", b"not now")
                return
            if "image/jpeg" not in self.headers.get("Accept", ""):
                self._send(406, "text/plain", b"only JPEG")
                return
            archive.frames += numbers
            all_ = list(generate_frames(instance.PixelData, number_of_frames=int(instance.NumberOfFrames)))
            parts = [
                f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\n\r\n".encode() + all_[n - 1] + b"\r\n" for n in numbers
            ]
            kind = f'multipart/related; type="image/jpeg"; boundary={BOUNDARY}'
            self._send(200, kind, b"".join(parts) + f"--{BOUNDARY}--".encode())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    archive.address = f"http://127.0.0.1:{server.server_port}/dicom-web"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _header(instance: Any) -> dict[str, Any]:
    return pydicom.Dataset({e.tag: e for e in instance if e.keyword != "PixelData"}).to_json_dict()


def _is(instance: Any, study: str, series: str, uid: str | None = None) -> bool:
    known = instance.StudyInstanceUID, instance.SeriesInstanceUID
    return known == (study, series) and uid in (None, instance.SOPInstanceUID)


def _matching(archive: Archive, study: str, asked: dict[str, list[str]]) -> list[Any]:
    """Return the instances of a study that have the asked attributes, by keyword or tag."""
    found = [i for i in archive.instances if i.StudyInstanceUID == study]
    for name in IDENTITY:
        tag = f"{pydicom.datadict.tag_for_keyword(name):08X}"
        wanted = ",".join(asked.get(name, []) + asked.get(tag, []) + asked.get(tag.lower(), []))
        if wanted:
            found = [i for i in found if str(i[name].value) in re.findall(r"[\w.]+", wanted)]
    return found
