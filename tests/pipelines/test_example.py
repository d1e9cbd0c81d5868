"""`wsipipe example-slide`: whole, checked, continued; offline said in one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranges import Site, serve
from wsipipe.cli.main import main
from wsipipe.pipelines import example
from wsipipe.pipelines.example import NAME, SHA256, checksum, download_example


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Serve a file that stands for the slide, whose real bytes are not at hand everywhere."""
    folder = tmp_path / "site"
    folder.mkdir()
    data = bytes(range(256)) * 1500
    (folder / NAME).write_bytes(data)
    monkeypatch.setattr(example, "SIZE", len(data))
    monkeypatch.setattr(example, "SHA256", checksum(folder / NAME))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve(folder) as served:
        yield served


def url(site: Site) -> str:
    return f"{site.address}/{NAME}"


def test_the_checksum_is_that_of_the_slide(shared_data: Path) -> None:
    path = shared_data / "slides" / NAME
    assert (checksum(path), path.stat().st_size) == (SHA256, example.SIZE)


def test_the_real_slide_by_a_copy(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (shared_data / "slides" / NAME).resolve().as_uri()
    assert main(["example-slide", str(tmp_path), "--url", source]) == 0
    assert checksum(tmp_path / NAME) == SHA256
    assert f"try: wsipipe segment {tmp_path / NAME}" in capsys.readouterr().out


def test_downloaded_once(site: Site, tmp_path: Path) -> None:
    out, seen = tmp_path / "new" / "slide.svs", []
    assert download_example(out, url(site), seen.append)
    assert out.read_bytes() == (site.folder / NAME).read_bytes()
    assert seen == sorted(seen) and seen[-1] == example.SIZE and len(seen) > 3
    assert not download_example(out, url(site)) and len(site.asked) == 1
    assert list(out.parent.iterdir()) == [out], "nothing else stays"


@pytest.mark.parametrize("ranges", [True, False])
def test_what_was_cut_short_goes_on(
    site: Site, tmp_path: Path, ranges: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    site.ranges, site.cut = ranges, 100_000
    assert main(["example-slide", str(tmp_path / "a.svs"), "--url", url(site)]) == 3
    assert f"ended early, {example.SIZE - 100_000:,} bytes are lacking" in capsys.readouterr().err
    assert not (tmp_path / "a.svs").exists()
    site.cut, site.sent = 0, 0
    assert main(["example-slide", str(tmp_path / "a.svs"), "--url", url(site)]) == 0
    assert (tmp_path / "a.svs").read_bytes() == (site.folder / NAME).read_bytes()
    assert site.asked[-1][2] == "bytes=100000-"
    assert site.sent == example.SIZE - (100_000 if ranges else 0)


def test_another_file_is_refused_and_goes(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.folder / NAME).write_bytes(b"x" * example.SIZE)
    assert main(["example-slide", str(tmp_path / "a.svs"), "--url", url(site)]) == 3
    assert "gave another file than" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize("how", ["no server", "404", "a login page"])
def test_offline_in_one_line(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    address = "http://127.0.0.1:9/x.svs" if how == "no server" else url(site)
    if how == "404":
        site.refuse = 404
    if how == "a login page":
        (site.folder / NAME).write_bytes(b"<html>" * example.SIZE)
    assert main(["example-slide", str(tmp_path / "a.svs"), "--url", address]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    expected = {"no server": "refused", "404": "answered 404", "a login page": "another file"}[how]
    assert expected in line and ("demo-slide" in line or "mirror" in line)
    assert not (tmp_path / "a.svs").exists()


def test_somebody_elses_file_stays(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.svs").write_text("mine")
    assert main(["example-slide", str(tmp_path / "a.svs"), "--url", url(site)]) == 6
    assert (tmp_path / "a.svs").read_text() == "mine" and not site.asked
    shutil.copy(site.folder / NAME, tmp_path / "a.svs")
    assert main(["example-slide", str(tmp_path / "a.svs"), "--url", url(site)]) == 0
    assert "there already" in capsys.readouterr().out
