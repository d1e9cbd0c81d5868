"""Slides on a DICOMweb server: the pixels of the local files, few frames, and clear words when it does not work."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests import dicomweb
from tests.dicom import write_dicom
from tests.dicomweb import Archive
from tests.slide.helpers import need
from tests.slide.stacks import Pixels, planes
from wsipipe.cli.main import main
from wsipipe.errors import MissingDependency, SlideNotFound, TileReadError, UnreadableSlide
from wsipipe.slide import fingerprint, open_slide
from wsipipe.slide.dicomweb import is_dicomweb, series_at, series_digest


@pytest.fixture
def folder(picture: Pixels, tmp_path: Path) -> Path:
    need("dicom")
    (tmp_path / "slide").mkdir()
    write_dicom(tmp_path / "slide" / "a.dcm", picture, 0.5)
    return tmp_path / "slide"


@pytest.fixture
def archive(folder: Path) -> Iterator[Archive]:
    series_digest.cache_clear()
    with dicomweb.serve(folder) as served:
        yield served


def same_pixels(folder: Path, url: str) -> None:
    with open_slide(folder) as here, open_slide(url) as there:
        assert (there.info.levels, there.info.mpp) == (here.info.levels, here.info.mpp)
        assert there.info.backend == "dicom"
        for level, x, y in ((0, 0, 0), (0, 700, 300), (len(here.info.levels) - 1, 0, 0)):
            expected = here.read_region(level, x, y, 300, 200)
            assert np.array_equal(there.read_region(level, x, y, 300, 200), expected)


def test_pixels(folder: Path, archive: Archive) -> None:
    same_pixels(folder, archive.url)
    same_pixels(folder, archive.url.replace("http://", "dicomweb+http://"))


def test_pixels_of_a_real_slide(shared_data: Path) -> None:
    need("dicom")
    folder = shared_data / "slides" / "variants" / "CMU-1-Small-Region-dicom"
    with dicomweb.serve(folder) as served:
        same_pixels(folder, served.url)


def test_only_the_frames_that_are_read_are_fetched_and_once(archive: Archive) -> None:
    with open_slide(archive.url) as slide:
        archive.frames.clear()
        slide.read_region(0, 130, 130, 100, 100)
        assert archive.frames == [1 + 12 + 1], "the frame of the second row and column, of twelve in a row"
        slide.read_region(0, 140, 140, 50, 50)
        assert len(archive.frames) == 1
    with pickle.loads(pickle.dumps(slide)) as copy:
        assert copy.info == slide.info


def test_fingerprint_is_of_the_series(archive: Archive, picture: Pixels) -> None:
    first = fingerprint(archive.url)
    series_digest.cache_clear()
    assert fingerprint(archive.url) == first
    archive.instances[0].SOPInstanceUID = "1.2.3.9"
    series_digest.cache_clear()
    assert fingerprint(archive.url) != first


def test_focal_planes(picture: Pixels, tmp_path: Path) -> None:
    need("dicom")
    stack = planes(picture[:256, :256])
    (tmp_path / "slide").mkdir()
    write_dicom(tmp_path / "slide" / "a.dcm", stack[0], 0.5, above=stack[1:])
    with dicomweb.serve(tmp_path / "slide") as served, open_slide(served.url, plane="sharpest") as slide:
        assert slide.info.plane == 2
        assert np.abs(slide.read_region(0, 0, 0, 256, 256).astype(float) - stack[2]).mean() < 3


def test_cells(folder: Path, archive: Archive, tmp_path: Path) -> None:
    """The same cells; their ids differ, as the server cannot be asked for the bytes of the files."""
    counts = {}
    for name, slide in (("here", str(folder)), ("there", archive.url)):
        out = tmp_path / f"{name}.csv"
        assert main(["segment", slide, "-o", str(out), "--device", "cpu", "--bounds", "0,0,512,512"]) == 0
        lines = out.read_text().splitlines()
        counts[name] = [line.split(",")[1:] for line in lines]
    assert len(counts["here"]) > 5 and counts["here"] == counts["there"]


def test_a_token_is_sent(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.token = "secret"
    with pytest.raises(UnreadableSlide, match="no permission; give DICOMWEB_TOKEN, or name and password in"):
        open_slide(archive.url)
    monkeypatch.setenv("DICOMWEB_TOKEN", "secret")
    open_slide(archive.url).close()
    assert len(fingerprint(archive.url)) == 64


def test_what_is_not_there(archive: Archive) -> None:
    for url in (archive.url + ".7", archive.url.replace("/dicom-web", "/elsewhere")):
        for look in (open_slide, fingerprint):
            with pytest.raises(SlideNotFound, match="no such slide: http"):
                look(url)
    with pytest.raises(UnreadableSlide, match=r"names no slide; expected dicomweb://SERVER/\.\.\./studies/UID/series"):
        open_slide("dicomweb://host/studies/1.2")


def test_no_server() -> None:
    need("dicom")
    for look in (open_slide, fingerprint):
        with pytest.raises(UnreadableSlide, match=r"cannot open .*; is the address right, and the network up\?"):
            look("http://127.0.0.1:9/studies/1.2/series/1.3")


def test_a_frame_that_does_not_come(archive: Archive) -> None:
    with open_slide(archive.url) as slide:
        archive.refuse = 500
        with pytest.raises(TileReadError, match="cannot decode level 0"):
            slide.read_region(0, 0, 0, 64, 64)
        archive.refuse = 0
        assert slide.read_region(0, 0, 0, 64, 64).shape == (64, 64, 3)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dicomweb_client.api", None)
    with pytest.raises(MissingDependency, match=r"needs the package wsidicom.*pip install '\.\[dicom\]'"):
        fingerprint("dicomweb://host/studies/1.2/series/1.3")


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("dicomweb://h/dicom-web/studies/1.2/series/3.4", "https://h/dicom-web"),
        ("https://h:8042/a/b/studies/1.2/series/3.4/", "https://h:8042/a/b"),
        ("dicomweb+http://h/studies/1.2/series/3.4", "http://h"),
        ("https://h/studies/1.2/series/3.4/instances/5", None),
        ("https://h/slides/a.svs", None),
        ("s3://b/studies/1.2/series/3.4", None),
    ],
)
def test_addresses(url: str, service: str | None) -> None:
    found = series_at(url)
    assert (found and found.service) == service and is_dicomweb(url) == (service is not None)
    assert found is None or found[1:] == ("1.2", "3.4")
