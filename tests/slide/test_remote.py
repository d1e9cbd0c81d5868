"""Slides at a distance: the same pixels as from the disk, few bytes, and clear words when it does not work.

Needs aiohttp for ``http://`` and moto with s3fs for ``s3://`` (the extra ``remote``); without them those tests skip.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT, Phantom
from tests.ranges import Site, serve
from wsipipe.cli.main import main
from wsipipe.errors import MissingDependency, SlideNotFound, TileReadError, UnreadableSlide
from wsipipe.slide import fingerprint, open_slide, remote
from wsipipe.slide.remote import Blocks, again

HTTP = importlib.util.find_spec("aiohttp") is not None
S3 = all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask"))
needs_http = pytest.mark.skipif(not HTTP, reason="aiohttp is not installed (extra remote)")


@pytest.fixture
def site(phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "phantom.tiff").symlink_to(phantom.path)
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    with serve(tmp_path) as served:
        yield served


def url(site: Site) -> str:
    return f"{site.address}/phantom.tiff"


def same_pixels(path: Path, where: str) -> None:
    with open_slide(path, backend="tiffslide") as here, open_slide(where) as there:
        assert there.info.levels == here.info.levels and there.info.mpp == here.info.mpp
        for level, x, y in ((0, 0, 0), (0, 700, 300), (len(here.info.levels) - 1, 0, 0)):
            expected = here.read_region(level, x, y, 300, 200)
            assert np.array_equal(there.read_region(level, x, y, 300, 200), expected)
    assert fingerprint(where) == fingerprint(path)


def test_a_file_url(phantom: Phantom) -> None:
    same_pixels(phantom.path, phantom.path.as_uri())


@needs_http
def test_pixels_and_fingerprint_over_http(phantom: Phantom, site: Site) -> None:
    same_pixels(phantom.path, url(site))
    assert all(asked for method, _, asked in site.asked if method == "GET"), "only parts are asked for"


@needs_http
def test_only_the_blocks_that_are_read_are_fetched_and_once(
    phantom: Phantom, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 1 << 14)
    with open_slide(url(site)) as slide:
        slide.read_region(0, 0, 0, 64, 64)
        once = site.sent
        slide.read_region(0, 0, 0, 64, 64)
        assert site.sent == once, "blocks are kept"
    assert 0 < once < phantom.path.stat().st_size / 2


@needs_http
def test_cells_are_those_of_the_local_file(phantom: Phantom, site: Site, tmp_path: Path) -> None:
    options = ["--backend", "tiffslide", "--device", "cpu", "--bounds", "0,0,512,512"]
    for slide, name in ((str(phantom.path), "here"), (url(site), "there")):
        command = [sys.executable, "-m", "wsipipe", "segment", slide, "-o", str(tmp_path / f"{name}.geojson"), *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "here.geojson").read_bytes() == (tmp_path / "there.geojson").read_bytes()


@needs_http
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("missing", SlideNotFound, "no such slide: http"),
        ("forbidden", UnreadableSlide, "no permission; the address needs a login"),
        ("no ranges", UnreadableSlide, "gives files only as a whole; download it first"),
        ("no server", UnreadableSlide, "is the address right, and the network up"),
        ("no slide", UnreadableSlide, "from afar only TIFF files are read"),
    ],
)
def test_refusals(
    site: Site, tmp_path: Path, how: str, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "BLOCK", 1 << 12)
    address = {"missing": f"{site.address}/none.svs", "no server": "http://127.0.0.1:9/a.svs"}.get(how, url(site))
    site.refuse, site.ranges = 403 if how == "forbidden" else 0, how != "no ranges"
    if how == "no slide":
        (tmp_path / "text.svs").write_text("no slide" * 1000)
        address = f"{site.address}/text.svs"
    with pytest.raises(error, match=words):
        open_slide(address)
    if how != "no slide":
        with pytest.raises(error, match=words):
            fingerprint(address)


@needs_http
def test_a_server_that_fails_and_comes_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK", 1 << 12)
    with open_slide(url(site)) as slide, Blocks(url(site), keep=False) as blocks:
        expected = slide.read_region(0, 512, 512, 64, 64)
        site.refuse = 503
        with pytest.raises(OSError, match="503"):
            blocks.read(10)
        with pytest.raises(TileReadError):
            slide.read_region(0, 1200, 700, 64, 64)
        site.refuse = 0
        assert blocks.read(10) == (site.folder / "phantom.tiff").read_bytes()[:10]
        assert np.array_equal(slide.read_region(0, 512, 512, 64, 64), expected)


def test_a_block_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    tries = []

    def read() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionResetError("gone")
        return 7

    assert again(read) == 7 and len(tries) == 3
    tries[:] = [1] * -10
    with pytest.raises(OSError, match="gone"):
        again(lambda: (_ for _ in ()).throw(ConnectionResetError("gone")))


@pytest.mark.parametrize(
    ("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs"), ("https", "aiohttp")]
)
def test_a_missing_package_is_named(
    scheme: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none_here(_: str) -> None:
        raise ImportError("not here")

    monkeypatch.setattr(remote.fsspec.core, "url_to_fs", none_here)
    with pytest.raises(MissingDependency, match=f"reading {scheme}:// slides needs the package {package}"):
        open_slide(f"{scheme}://bucket/a.svs")
    assert main(["info", f"{scheme}://bucket/a.svs"]) == 7
    assert "[remote]" in capsys.readouterr().err


def test_an_unknown_kind_of_address() -> None:
    with pytest.raises(UnreadableSlide, match="unknown kind of address gopher"):
        open_slide("gopher://a/b.svs")


@pytest.mark.skipif(not S3, reason="moto and s3fs are not installed")
def test_s3(phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    _, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    try:
        import boto3

        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="slides")
        client.upload_file(str(phantom.path), "slides", "a/phantom.tiff")
        same_pixels(phantom.path, "s3://slides/a/phantom.tiff")
        with pytest.raises(SlideNotFound, match="no such slide: s3"):
            open_slide("s3://slides/none.svs")
        with pytest.raises((SlideNotFound, UnreadableSlide)):
            open_slide("s3://no-bucket/none.svs")
    finally:
        server.stop()
