"""``wsipipe info`` and ``wsipipe demo-slide``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsipipe.cli.main import main
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.slide import open_slide


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    code = main([str(a) for a in args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_info_of_a_real_slide(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "info", shared_data / "slides" / "CMU-1-Small-Region.svs")
    assert code == 0
    for text in ("openslide", "aperio", "2,220 x 2,967 px", "0.499 µm/px (vendor property)", "20x"):
        assert text in out


def test_info_shows_an_absurd_resolution(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared_data / "slides" / "variants" / "CMU-1-Small-Region.jpeg.tiff"
    code, out, _ = run(capsys, "info", path)
    assert code == 0
    assert "0.00499 µm/px (TIFF resolution), implausible" in out
    code, out, _ = run(capsys, "info", path, "--mpp", "0.499", "--json")
    report = json.loads(out)
    assert (code, report["mpp"], report["mpp_source"], report["warnings"]) == (0, [0.499, 0.499], "override", [])


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_a_slide_cut_short_is_told_in_words(kept: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.svs"
    write_phantom(path, PhantomSettings(width=300, height=200, seed=1, mpp=0.5))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    code, _, said = run(capsys, "info", path)
    assert code == 3 and said.startswith("wsipipe: error: cannot open") and said.count("\n") == 1
    assert "cut.svs" in said and "ends before all that it announces" in said


def test_info_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    code, out, _ = run(capsys, "info", path, "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["backend"], report["size"], report["mpp"], report["mpp_plausible"]) == (
        "picture",
        [30, 20],
        None,
        None,
    )
    assert run(capsys, "info", path)[1].count("not stated: give it with --mpp") == 1


def test_info_of_what_is_no_slide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.svs").write_text("text")
    for name in ("a.svs", "b.svs", "."):
        code, out, err = run(capsys, "info", tmp_path / name)
        assert (code, out) == (3, "")
        assert err.startswith("wsipipe: error: ") and err.count("\n") == 1


def test_demo_slide_with_its_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide, truth, labels = tmp_path / "d.tiff", tmp_path / "d.geojson", tmp_path / "d.png"
    options = ["--width", "800", "--height", "600", "--seed", "3", "--tissue", "0.8", "--mpp", "0.5"]
    code, out, _ = run(capsys, "demo-slide", slide, *options, "--truth", truth, "--labels", labels)
    assert code == 0
    assert "800 x 600 px, 80% tissue, seed 3" in out
    with open_slide(slide) as opened:
        assert (opened.info.size, opened.info.mpp) == ((800, 600), (0.5, 0.5))
    numbered = np.asarray(Image.open(labels))
    features = json.loads(truth.read_text())["features"]
    assert numbered.shape == (600, 800) and 0 < numbered.max() <= len(features)
    assert {f["properties"]["objectType"] for f in features} == {"detection"}
    assert len({f["id"] for f in features}) == len(features)
    ring = features[0]["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1] and len(ring) > 30


def test_demo_slide_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = ["--width", "30000", "--height", "30000", "--labels", tmp_path / "l.png"]
    cases: list[tuple[list[str | Path], int, str]] = [
        ([Path(__file__) / "d.tiff"], 6, "a file where a folder is expected"),
        ([tmp_path / "d.tiff", "--width", "3"], 2, "--width: width is 3; expected 64 to"),
        ([tmp_path / "d.tiff", *large], 2, "too many for one picture of labels"),
        ([tmp_path / "d.tiff", "--bounds", "0,0,9000,9"], 2, "bounds (0, 0, 9000, 9) are not inside"),
    ]
    for args, expected, message in cases:
        code, _, err = run(capsys, "demo-slide", *args)
        assert code == expected and message in err
    assert not list(tmp_path.iterdir())
