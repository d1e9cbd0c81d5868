"""`wsipipe tile` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsipipe.cli.main import main
from wsipipe.store import open_store


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(*args: object) -> int:
    return main(["tile", *map(str, args)])


def test_writes_a_store_once(small_slide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store, h5, tissue = tmp_path / "s.zarr", tmp_path / "s.h5", tmp_path / "t.geojson"
    options = ["-o", store, "--trident", h5, "--tissue-out", tissue]
    assert run(small_slide, *options) == 0
    assert "written" in capfd.readouterr().err and h5.stat().st_size and json.loads(tissue.read_bytes())["features"]
    assert open_store(store).raster.selected.any()
    assert run(small_slide, *options) == 0
    assert "there already, up to date" in capfd.readouterr().err


def test_dry_run_writes_nothing(small_slide: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(small_slide, "-o", tmp_path / "s.zarr", "--dry-run") == 0
    said = capfd.readouterr().out
    assert "tiles   9 of 9" in said and "µm/px" in said and not (tmp_path / "s.zarr").exists()


def test_bounds(small_slide: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A store of a part holds what cells in the part depend on, and says what it holds when more is asked for."""
    store, bounds = tmp_path / "part.zarr", "0,0,120,120"
    options = ["--tissue", "none", "--bounds", bounds, "--config", _config(tmp_path)]
    assert run(small_slide, "-o", store, *options) == 0
    part = open_store(store).raster.selected
    assert part[0, 0] and not part.all()
    cells = ["--model", str(tiny_model), "--device", "cpu", "--tissue", "none"]
    of_store, of_slide = tmp_path / "store.parquet", tmp_path / "slide.parquet"
    for source, out in ((store, of_store), (small_slide, of_slide)):
        assert main(["segment", str(source), "-o", str(out), "--bounds", bounds, *cells]) == 0
    assert of_store.read_bytes() == of_slide.read_bytes()
    capfd.readouterr()
    assert main(["segment", str(store), "-o", str(tmp_path / "all.parquet"), *cells]) == 8
    assert f"it holds --bounds {bounds}" in capfd.readouterr().err


def _config(folder: Path) -> Path:
    path = folder / "run.toml"
    path.write_text("[store]\nreach_um = 60\n")
    return path


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--bounds", "9000,9000,9100,9100"], 2, "lies outside the slide"),
        (["--bounds", "1,2,3"], 2, "is not a box"),
        (["--shard", "1000"], 2, "expected a multiple of 512"),
        (["--mpp", "50"], 3, "50"),
    ],
)
def test_what_is_refused(
    small_slide: Path, tmp_path: Path, options: list[str], code: int, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(small_slide, "-o", tmp_path / "s.zarr", *options) == code
    assert says in capfd.readouterr().err and not (tmp_path / "s.zarr").exists()


def test_a_missing_slide(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "no.svs", "-o", tmp_path / "s.zarr") == 3
    assert "no.svs" in capfd.readouterr().err
