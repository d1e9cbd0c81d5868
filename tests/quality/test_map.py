"""The quality map: faults painted on a drawn slide are found where they are, real slides are judged as they look."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from numpy.typing import NDArray

from tests.conftest import Phantom
from tests.damage import pages, spoil_level
from tests.masters import write_master
from wsipipe.cli.main import main
from wsipipe.errors import SettingsError
from wsipipe.formats.parquet import metadata
from wsipipe.phantom.slide import write_phantom
from wsipipe.phantom.truth import PhantomTruth
from wsipipe.quality.blur import CURVE_RATIO, CURVE_UM, blur_um, detail, detail_ratio
from wsipipe.quality.map import FAULTS, MOST_BLUR_UM, Quality, QualityMap, faults_named, quality_map
from wsipipe.settings import PhantomSettings, TissueSettings
from wsipipe.slide import ArraySlide, fingerprint, open_slide
from wsipipe.tissue import find_tissue

MPP = 0.5
SIDE = 2560
Painted = dict[Quality, NDArray[np.bool_]]


def paint(blur: float = 1.5) -> tuple[NDArray[np.uint8], Painted]:
    """Return a drawn slide with a fault of each kind, and where they are (px of the slide)."""
    picture = PhantomTruth(PhantomSettings(width=SIDE, height=SIDE, mpp=MPP, seed=5, tissue=0.75)).picture(
        (0, 0, SIDE, SIDE)
    )
    tissue = cv2.erode((picture.min(axis=2) < 225).astype(np.uint8), np.ones((3, 3))) > 0
    tissue = cv2.morphologyEx(tissue.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((31, 31))) > 0
    y, x = np.mgrid[:SIDE, :SIDE]
    light = picture.astype(np.float64)

    blurred = (x > 1250) & (x < 1800) & (y > 400) & (y < 900)
    light[blurred] = cv2.GaussianBlur(light, (0, 0), blur / MPP)[blurred]
    fold = (np.abs(x - 2150 - 40 * np.sin(y / 120)) < 45) & (y > 1350) & (y < 2050)
    for shift in (90, 200, 310):
        light[fold] *= np.roll(light, shift, axis=1)[fold] / 243
    away = np.hypot(x - 1500, y - 1700)
    light *= np.where(np.abs(away - 240) < 18, 0.4, 1.0)[..., None]
    bubble = away < 258
    pen = (np.abs(y - 140 - 0.02 * (x - 1000)) < 80) & (x > 220) & (x < 2350)
    light[pen] = light[pen] * np.array([0.12, 0.2, 0.75])
    dust = np.zeros((SIDE, SIDE), np.uint8)
    for k, (cx, cy) in enumerate([(1200, 300), (2480, 60), (100, 2450), (2450, 2440), (2500, 1200), (50, 1300)]):
        cv2.circle(dust, (cx, cy), 14 + 3 * k, 1, -1)
    light[dust > 0] = 40
    noise = np.random.default_rng(0).normal(0, 1.0, (SIDE, SIDE, 1))
    where = {
        Quality.OUT_OF_FOCUS: blurred & tissue,
        Quality.FOLD: fold & tissue,
        Quality.BUBBLE: bubble,
        Quality.PEN: pen,
        Quality.DUST: dust > 0,
    }
    return np.clip(light + noise + 0.5, 0, 255).astype(np.uint8), where


def dice(found: QualityMap, kind: Quality, true: NDArray[np.bool_]) -> float:
    height, width = found.classes.shape
    small = cv2.resize(true.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) >= 0.5
    same = found.classes == kind
    return float(2 * (same & small).sum() / max(1, same.sum() + small.sum()))


@pytest.fixture(scope="module")
def painted() -> tuple[ArraySlide, Painted, QualityMap]:
    picture, where = paint()
    slide = ArraySlide([picture], MPP)
    return slide, where, quality_map(slide, (MPP, MPP))


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        (Quality.OUT_OF_FOCUS, 0.85),
        (Quality.PEN, 0.85),
        (Quality.FOLD, 0.7),
        (Quality.BUBBLE, 0.9),
        (Quality.DUST, 0.7),
    ],
)
def test_a_painted_fault_is_found(painted: tuple[ArraySlide, Painted, QualityMap], kind: Quality, least: float) -> None:
    _, where, found = painted
    assert dice(found, kind, where[kind]) >= least


def test_nothing_is_wrong_with_a_sharp_slide() -> None:
    picture = PhantomTruth(PhantomSettings(width=1280, height=1280, mpp=MPP, seed=6)).picture((0, 0, 1280, 1280))
    found = quality_map(ArraySlide([picture], MPP), (MPP, MPP))
    assert sum(found.area_mm2(kind) for kind in FAULTS) < 0.003 * found.area_mm2(Quality.FINE)
    assert found.area_mm2(Quality.GLASS) > 0.1


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
def test_blur_is_told_in_um(sigma: float) -> None:
    picture = PhantomTruth(PhantomSettings(width=512, height=512, mpp=MPP, seed=3, tissue=1.0)).picture(
        (0, 0, 512, 512)
    )
    light = cv2.GaussianBlur(picture.astype(np.float64), (0, 0), sigma / MPP)
    light += np.random.default_rng(1).normal(0, 1.0, light.shape)
    seen = blur_um(*detail(np.clip(light + 0.5, 0, 255).astype(np.uint8), MPP, 16), 8.0)
    assert np.nanmedian(seen) == pytest.approx(sigma, abs=0.45)
    sharp = blur_um(*detail(picture, MPP, 16), 8.0)
    assert np.nanquantile(sharp, 0.99) < MOST_BLUR_UM


def test_blur_does_not_depend_on_the_stain() -> None:
    picture = PhantomTruth(PhantomSettings(width=512, height=512, mpp=MPP, seed=3, tissue=1.0)).picture(
        (0, 0, 512, 512)
    )
    pale = (243 - (243 - picture.astype(np.float64)) * 0.5 + 0.5).astype(np.uint8)
    ratios = [np.median(detail_ratio(*detail(p, MPP, 16), 8.0)[0]) for p in (picture, pale)]
    assert ratios[1] == pytest.approx(ratios[0], rel=0.1)


def test_the_curve_falls() -> None:
    assert list(CURVE_UM) == sorted(CURVE_UM) and list(CURVE_RATIO) == sorted(CURVE_RATIO, reverse=True)


def test_glass_has_no_fault_and_no_blur() -> None:
    found = quality_map(ArraySlide([np.full((900, 900, 3), 243, np.uint8)], MPP), (MPP, MPP))
    assert (found.classes == Quality.GLASS).all() and np.isnan(found.blur).all()


def test_a_coarse_slide_is_not_judged_by_its_focus() -> None:
    picture = PhantomTruth(PhantomSettings(width=600, height=600, mpp=2.0, seed=3)).picture((0, 0, 600, 600))
    found = quality_map(ArraySlide([picture], 2.0), (2.0, 2.0))
    assert "too coarse to judge its focus" in found.warnings[0]
    assert not (found.classes == Quality.OUT_OF_FOCUS).any()


def test_finer_pixels_give_the_same_map() -> None:
    picture, _ = paint()
    part = picture[200:1480, 900:2180]
    coarse = quality_map(ArraySlide([part], MPP), (MPP, MPP))
    doubled = cv2.resize(part, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    fine = quality_map(ArraySlide([doubled], MPP / 2), (MPP / 2, MPP / 2))
    assert fine.classes.shape == coarse.classes.shape
    assert (fine.classes == coarse.classes).mean() > 0.97


def test_the_right_names() -> None:
    assert faults_named("pen, out-of-focus,pen", "--x") == (Quality.PEN, Quality.OUT_OF_FOCUS)
    assert faults_named("all", "--x") == FAULTS
    with pytest.raises(SettingsError, match="--x names 'folds'; expected some of out-of-focus, pen, fold"):
        faults_named("folds", "--x")


def test_nothing_is_left_out_unless_asked(painted: tuple[ArraySlide, Painted, QualityMap]) -> None:
    slide, where, found = painted
    whole = find_tissue(slide, (MPP, MPP), TissueSettings())
    less = find_tissue(slide, (MPP, MPP), TissueSettings(exclude_quality="out-of-focus,fold"))
    lost = whole.area_um2 - less.area_um2
    assert lost * 1e-6 == pytest.approx(found.area_mm2(Quality.OUT_OF_FOCUS) + found.area_mm2(Quality.FOLD), rel=0.1)
    assert any("left out by --exclude-quality (out of focus, fold)" in line for line in less.warnings)
    middle = np.argwhere(where[Quality.OUT_OF_FOCUS]).mean(axis=0)
    assert whole.contains(middle[1:], middle[:1])[0] and not less.contains(middle[1:], middle[:1])[0]


def test_real_slides(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "tma-core-he.ome.tif") as slide:
        found = quality_map(slide, (0.5, 0.5))
        corner = shapely.box(950, 130, 1140, 330)
        areas = found.areas(Quality.OUT_OF_FOCUS)
        assert areas and all(corner.contains(shapely.centroid(area)) for area in areas)
        assert sum(area.area for area in areas) > 5000  # px of 0.5 µm
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        found = quality_map(slide, (0.499, 0.499))
        assert found.area_mm2(Quality.OUT_OF_FOCUS) == 0 == found.area_mm2(Quality.PEN)
        assert sum(found.area_mm2(kind) for kind in FAULTS) < 0.05 * found.area_mm2(Quality.FINE)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(painted: tuple[ArraySlide, Painted, QualityMap], tmp_path: Path) -> None:
    slide, _, found = painted
    path = tmp_path / "slide.tif"
    picture = slide.read_region(0, 0, 0, SIDE, SIDE)
    resolution = (1e4 / MPP, 1e4 / MPP)
    tifffile.imwrite(
        path, picture, tile=(256, 256), photometric="rgb", resolution=resolution, resolutionunit="CENTIMETER"
    )
    out = [str(tmp_path / name) for name in ("q.geojson", "q.csv", "q.png")]
    assert main(["quality", str(path), "-o", out[0], "-o", out[1], "--overlay", out[2]]) == 0
    table = pd.read_csv(out[1]).set_index("quality")
    for kind in Quality:
        assert table.loc[kind.label, "area_mm2"] == pytest.approx(found.area_mm2(kind), rel=0.02, abs=0.001)
    features = json.loads(Path(out[0]).read_text())["features"]
    assert {f["properties"]["classification"]["name"] for f in features} == {k.label.capitalize() for k in FAULTS}
    assert len(features) == table["areas"].sum()
    assert Path(out[2]).stat().st_size > 10_000


def test_outputs_that_cannot_be(phantom: Phantom, capsys: pytest.CaptureFixture[str]) -> None:
    for options, words in (["-o", "a.xlsx"], ".geojson or .csv"), (["--overlay", "a.jpg"], "ends in .png"):
        assert main(["quality", str(phantom.path), *options]) == 2
        assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def written(
    painted: tuple[ArraySlide, Painted, QualityMap], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return the painted slide as a file, and a cells file on it."""
    folder = tmp_path_factory.mktemp("quality")
    slide, picture = folder / "slide.tif", painted[0].read_region(0, 0, 0, SIDE, SIDE)
    how = {"tile": (256, 256), "photometric": "rgb", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(slide, picture, **how)
    xy = np.stack([a.ravel() for a in np.mgrid[40:SIDE:80, 40:SIDE:80]], axis=1)[:, ::-1]
    about = {"fingerprint": fingerprint(slide), "size": [SIDE, SIDE], "mpp": [0.5, 0.5], "settings": {}}
    return slide, write_master(folder / "cells.parquet", xy, 0, 6.0, **about)


def test_cells_are_counted_and_given_a_column(
    written: tuple[Path, Path], painted: tuple[ArraySlide, Painted, QualityMap], tmp_path: Path
) -> None:
    slide, cells = written
    table, more = tmp_path / "q.csv", tmp_path / "more.parquet"
    assert main(["quality", str(slide), "--cells", str(cells), "-o", str(table)]) == 0
    counts = pd.read_csv(table).set_index("quality")["cells"]
    assert counts.sum() == 32 * 32
    assert main(["measure", str(cells), "--slide", str(slide), "--add", "quality", "-o", str(more)]) == 0
    measured = pd.read_parquet(more)
    for kind in Quality:
        assert (measured["quality"] == kind).sum() == counts[kind.label]
    inside = painted[1][Quality.OUT_OF_FOCUS][measured["y"].astype(int), measured["x"].astype(int)]
    assert (measured["quality"][inside] == Quality.OUT_OF_FOCUS).mean() > 0.8
    assert measured["blur_um"][inside].median() > 1.0


def test_the_report_has_a_panel(written: tuple[Path, Path], tmp_path: Path) -> None:
    slide, cells = written
    plain, told = tmp_path / "plain.html", tmp_path / "told.html"
    assert main(["report", str(cells), "--slide", str(slide), "-o", str(plain)]) == 0
    assert main(["report", str(cells), "--slide", str(slide), "--quality", "-o", str(told)]) == 0
    assert "<h2>Quality</h2>" not in plain.read_text()
    page = told.read_text()
    assert "<h2>Quality</h2>" in page and all(f"</span>{kind.label}</td>" in page for kind in FAULTS)
    assert page.count('fill-opacity=".45"') == len(FAULTS)


def test_a_wrong_fault_stops_a_run_before_it_begins(
    written: tuple[Path, Path], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.parquet"
    options = ["--model", str(tiny_model), "--exclude-quality", "blur", "-o", str(out)]
    assert main(["segment", str(written[0]), *options]) == 2
    assert "--exclude-quality names 'blur'; expected some of out-of-focus, pen" in capsys.readouterr().err
    assert not out.exists()


def test_a_run_tells_what_it_left_out(
    painted: tuple[ArraySlide, Painted, QualityMap],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slide, out = tmp_path / "part.tif", tmp_path / "cells.parquet"
    how = {"tile": (256, 256), "photometric": "rgb", "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(slide, painted[0].read_region(0, 1500, 600, 512, 512), **how)
    with open_slide(slide) as opened:
        whole = find_tissue(opened, (MPP, MPP), TissueSettings())
    options = ["--model", str(tiny_model), "-o", str(out), "--exclude-quality", "out-of-focus,bubble"]
    assert main(["segment", str(slide), *options]) == 0
    about = metadata(out)
    assert "left out by --exclude-quality (out of focus, bubble)" in capsys.readouterr().err
    assert about["tissue_area_um2"] < 0.8 * whole.area_um2
    assert about["settings"]["tissue"]["exclude_quality"] == "out-of-focus,bubble"


def test_what_cannot_be_read_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It has the colour of glass in the map, which nobody may take for what is there."""
    path = tmp_path / "slide.tiff"
    write_phantom(path, PhantomSettings(width=900, height=700, mpp=MPP, seed=5, tissue=0.9))
    assert main(["quality", str(path)]) == 0
    assert "cannot be read" not in capfd.readouterr().err
    for level in range(len(pages(path))):
        spoil_level(path, level)
    assert main(["quality", str(path), "-o", str(tmp_path / "q.csv")]) == 0
    assert "mm² of the slide cannot be read in any pyramid level: taken for glass" in capfd.readouterr().err
