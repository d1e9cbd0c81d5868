"""Slides on DICOMweb servers (extra ``dicom``): ``dicomweb://server/…/studies/UID/series/UID``, or the same by https.

Frames are fetched when they are read. A server that wants to know who asks is given ``DICOMWEB_TOKEN`` as a bearer
token, or what ``~/.netrc`` says of it.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from wsipipe.artifacts import digest
from wsipipe.errors import MissingDependency, SlideNotFound, UnreadableSlide, WsipipeError, in_words

if TYPE_CHECKING:
    from wsidicom import WsiDicom

SERIES = re.compile(
    r"(?P<scheme>dicomweb|dicomweb\+http|https?)://(?P<service>[^?#]+?)/studies/(?P<study>[\d.]+)/series/(?P<series>[\d.]+)/?"
)
SCHEMES = {"dicomweb": "https", "dicomweb+http": "http"}
TOKEN = "DICOMWEB_TOKEN"
"""Name of the environment variable."""
VOLUME = ("SOPInstanceUID", "Rows", "Columns", "NumberOfFrames", "TotalPixelMatrixColumns", "TotalPixelMatrixRows")
"""What is asked of an instance for the fingerprint. A UID stands for content that never changes."""


class Series(NamedTuple):
    """A series of a study on a server: one slide."""

    service: str
    study: str
    series: str


def series_at(url: str) -> Series | None:
    """Return the series that *url* names, None where it is another kind of address."""
    match = SERIES.fullmatch(url)
    if match is None:
        return None
    scheme = SCHEMES.get(match["scheme"], match["scheme"])
    return Series(f"{scheme}://{match['service']}", match["study"], match["series"])


def is_dicomweb(url: str) -> bool:
    """Whether *url* is of a DICOMweb server: by its scheme, or as it names a series."""
    return url.partition("://")[0] in SCHEMES or series_at(url) is not None


def open_series(url: str) -> WsiDicom:
    """Return the open slide at *url*.

    Raises
    ------
    SlideNotFound, UnreadableSlide, MissingDependency
    """
    where = _wanted(url)
    with in_words_of_dicomweb(url):
        from wsidicom import WsiDicom, WsiDicomWebClient

        client = WsiDicomWebClient(_client(where.service))
        return WsiDicom.open_web(client, where.study, where.series)


@functools.lru_cache(256)
def series_digest(url: str) -> str:
    """Return the fingerprint of the slide at *url*: of the identities and sizes of its instances; asked for once.

    Raises
    ------
    SlideNotFound, UnreadableSlide, MissingDependency
    """
    where = _wanted(url)
    with in_words_of_dicomweb(url):
        from pydicom import Dataset

        client = _client(where.service)
        found = [Dataset.from_json(one) for one in client.retrieve_series_metadata(where.study, where.series)]
        known = sorted([str(one.get(name, "")) for name in VOLUME] for one in found if one.get("Modality") == "SM")
    if not known:
        raise SlideNotFound(f"no such slide: {url}")
    return digest(["wsipipe dicomweb fingerprint 1", where.study, where.series, known])


def _wanted(url: str) -> Series:
    where = series_at(url)
    if where is None:
        raise UnreadableSlide(
            f"cannot open {url}: names no slide; expected dicomweb://SERVER/.../studies/UID/series/UID"
        )
    return where


def _client(service: str) -> Any:
    from dicomweb_client.api import DICOMwebClient

    token = os.environ.get(TOKEN, "")
    return DICOMwebClient(service, headers={"Authorization": f"Bearer {token}"} if token else None)


@contextmanager
def in_words_of_dicomweb(url: str) -> Iterator[None]:
    """Turn what the libraries raise while *url* is opened into one line of wsipipe's own."""
    try:
        yield
    except WsipipeError:
        raise
    except ImportError as error:
        raise MissingDependency.of("wsidicom", "dicom", "reading slides from DICOMweb servers") from error
    except Exception as error:
        raise _refusal(url, error) from error


def _refusal(url: str, error: Exception) -> WsipipeError:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status == 404 or type(error).__name__ == "WsiDicomNotFoundError":
        return SlideNotFound(f"no such slide: {url}")
    if status in (401, 403):
        return UnreadableSlide(f"cannot open {url}: no permission; give {TOKEN}, or name and password in ~/.netrc")
    return UnreadableSlide(f"cannot open {url}: {in_words(error)}; is the address right, and the network up?")
