from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely

from tests.conftest import Phantom
from wsipipe.corpus.candidates import Look
from wsipipe.corpus.filters import Measures, measure, why_not
from wsipipe.errors import SettingsError
from wsipipe.quality.fields import measure_field
from wsipipe.quality.focus import LEAST_SHARPNESS
from wsipipe.settings import CorpusSettings, SlideSettings, TissueSettings
from wsipipe.slide import ArraySlide, open_slide, require_mpp
from wsipipe.tissue import Tissue, find_tissue, viewer_origin
from wsipipe.tissue.search import tissue_mask

UM = 8.0
WHITE = (255, 255, 255)
BLUE, GREEN, RED, BLACK = (30, 60, 190), (20, 130, 70), (210, 25, 35), (25, 22, 30)


def glass(
    colour: tuple[int, int, int] = (244, 244, 244), noise: float = 1.5, shape: tuple[int, int] = (500, 700)
) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.clip(np.array(colour) + rng.normal(0, noise, (*shape, 3)), 0, 255).astype(np.uint8)


def with_tissue(picture: np.ndarray, colour: tuple[int, int, int] = (196, 141, 177)) -> tuple[np.ndarray, np.ndarray]:
    """Return *picture* with two textured pieces of tissue, and where they are."""
    where = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(where, (250, 280), (130, 160), 20, 0, 360, 1, -1)
    cv2.ellipse(where, (520, 380), (70, 60), 0, 0, 360, 1, -1)
    texture = cv2.GaussianBlur(np.random.default_rng(2).normal(0, 40, where.shape), (0, 0), 1.5)[..., None]
    stained = np.clip(picture.astype(float) * np.array(colour) / 244 + texture, 0, 255)
    return np.where(where[..., None] > 0, stained, picture).astype(np.uint8), where.astype(bool)


def found(picture: np.ndarray, fill: tuple[int, int, int] = WHITE) -> np.ndarray:
    return tissue_mask(picture, UM, TissueSettings(), fill)


def assert_right(mask: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> None:
    """Assert that *mask* holds the tissue and stays within 8 px (64 µm) of it."""
    keep = np.ones_like(truth) if ignore is None else ~ignore
    near = cv2.dilate(truth.astype(np.uint8), np.ones((17, 17), np.uint8)).astype(bool)
    assert mask[truth & keep].mean() > 0.98
    assert mask[~near].sum() == 0


@pytest.mark.parametrize("colour", [(244, 244, 244), (205, 205, 207), (160, 160, 163), (240, 236, 222)])
@pytest.mark.parametrize("stain", [(196, 141, 177), (214, 199, 203), (120, 90, 150)], ids=["usual", "pale", "dark"])
def test_tissue_on_white_grey_and_tinted_glass(colour: tuple[int, int, int], stain: tuple[int, int, int]) -> None:
    picture, truth = with_tissue(glass(colour), stain)
    picture[:, -20:] = 255  # never scanned
    truth[:, -20:] = False
    assert_right(found(picture), truth)


@pytest.mark.parametrize("ink", [BLUE, GREEN, RED, BLACK, (0, 90, 160)], ids=["blue", "green", "red", "black", "cyan"])
@pytest.mark.parametrize("width", [10, 18])
def test_pen_is_not_tissue(ink: tuple[int, int, int], width: int) -> None:
    picture, truth = with_tissue(glass())
    stroke = np.zeros(truth.shape, np.uint8)
    for points in ([(420, 60), (620, 90), (480, 220)], [(60, 60), (420, 460)]):  # on glass, and across the tissue
        line = np.array([points], np.int32)
        cv2.polylines(picture, line, False, ink, width, cv2.LINE_AA)
        cv2.polylines(stroke, line, False, 1, width)
    around = cv2.dilate(stroke, np.ones((13, 13), np.uint8)).astype(bool)
    mask = found(picture)
    assert_right(mask, truth, ignore=around)
    assert mask[stroke > 0].mean() < 0.03


def test_dust_and_coverslip_edges_are_not_tissue() -> None:
    picture, truth = with_tissue(glass())
    rng = np.random.default_rng(3)
    for _ in range(40):
        centre = (int(rng.integers(0, 700)), int(rng.integers(0, 90)))
        cv2.circle(picture, centre, int(rng.integers(1, 5)), (70, 65, 60), -1, cv2.LINE_AA)
    cv2.line(picture, (0, 110), (699, 100), (170, 170, 172), 3, cv2.LINE_AA)
    assert_right(found(picture), truth)


def test_small_pieces_and_small_holes() -> None:
    picture = glass()
    cv2.circle(picture, (100, 100), 7, (190, 130, 180), -1)  # 9,900 µm²: dust
    cv2.circle(picture, (350, 250), 100, (190, 130, 180), -1)
    cv2.circle(picture, (320, 250), 4, (244, 244, 244), -1)  # 3,200 µm²: filled
    cv2.circle(picture, (390, 250), 25, (244, 244, 244), -1)
    mask = found(picture)
    assert not mask[90:110, 90:110].any()
    assert mask[250, 320]
    assert not mask[250, 390]


@pytest.mark.parametrize("noise", [0, 1.5, 6, 12])
@pytest.mark.parametrize("level", [255, 244, 200, 140, 0])
def test_an_empty_slide_has_no_tissue(level: int, noise: float) -> None:
    assert not found(glass((level,) * 3, noise)).any()


def test_uneven_light_is_not_tissue() -> None:
    fall = np.hypot(*np.mgrid[-250:250, -350:350])[..., None] * 0.1
    assert not found(((235 - fall) * np.array([1, 0.995, 0.98])).astype(np.uint8)).any()


def test_a_picture_of_nothing_but_tissue() -> None:
    texture = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 60, (300, 300)), (0, 0), 2)[..., None]
    picture = np.clip(np.array((180, 120, 170)) + texture, 0, 255).astype(np.uint8)
    assert found(picture).all()


def slide_of(picture: np.ndarray, mpp: float = UM) -> ArraySlide:
    return ArraySlide([picture], mpp=mpp)


def search(slide: ArraySlide, **changes: object) -> Tissue:
    return find_tissue(slide, require_mpp(slide.info, SlideSettings(force_mpp=True)), TissueSettings(**changes))  # type: ignore[arg-type]


def test_polygons_lie_in_base_pixels_and_their_area_is_right() -> None:
    picture, truth = with_tissue(glass(noise=0))
    slide = ArraySlide([picture.repeat(4, 0).repeat(4, 1)], mpp=UM / 4)
    tissue = search(slide, margin_um=0)
    assert len(tissue.polygons) == 2
    assert all(p.is_valid and not p.interiors for p in tissue.polygons)
    assert tissue.source == "auto"
    assert tissue.area_um2 == pytest.approx(truth.sum() * UM**2, rel=0.12)
    assert tissue.area_um2 == pytest.approx(sum(p.area for p in tissue.polygons) * (UM / 4) ** 2)
    mask = tissue.mask((4.0, 4.0), (0, 0, 700, 500))
    assert_right(mask, truth)
    wide = search(slide, margin_um=80)
    assert all(any(w.contains(p) for w in wide.polygons) for p in tissue.polygons)
    assert shapely.union_all(wide.polygons).hausdorff_distance(shapely.union_all(tissue.polygons)) < 60


def test_an_empty_slide_gives_an_empty_result() -> None:
    tissue = search(slide_of(glass()))
    assert tissue.is_empty and tissue.area_um2 == 0 and tissue.warnings == ()
    assert not tissue.mask((1.0, 1.0), (0, 0, 50, 50)).any()
    assert not tissue.overlaps(np.array([[0, 0, 700, 500]])).any()
    assert not tissue.contains(np.array([5.0]), np.array([5.0])).any()


def test_none_takes_every_pixel() -> None:
    tissue = search(slide_of(glass()), tissue="none")
    assert tissue.source == "none"
    assert tissue.mask((1.0, 1.0), (0, 0, 700, 500)).all()
    assert tissue.area_um2 == 700 * 500 * UM**2


def test_mask_is_the_pixel_centre_rule() -> None:
    ring = shapely.Point(50.3, 40.7).buffer(33.3) - shapely.Point(45, 42).buffer(12.1)
    parts = (ring, shapely.box(90.2, 10.6, 99.5, 30.4))
    tissue = Tissue(parts, 1.0, "file")
    box = (-7, 3, 80, 61)
    scale = (1.7, 1.3)
    x, y = np.meshgrid((np.arange(-7, 80) + 0.5) * scale[0], (np.arange(3, 61) + 0.5) * scale[1])
    assert np.array_equal(tissue.mask(scale, box), tissue.contains(x, y))
    assert tissue.overlaps(np.array([[58, 8, 59, 9], [26, 31, 27, 32]]), scale).tolist() == [True, False]


def test_geojson_round_trip(tmp_path: Path) -> None:
    picture, _ = with_tissue(glass())
    slide = slide_of(picture)
    tissue = search(slide)
    path = tmp_path / "tissue.geojson"
    tissue.to_geojson(path)
    again = search(slide, tissue=str(path))
    assert again.source == "file"
    assert again.area_um2 == tissue.area_um2
    assert [p.wkb for p in again.polygons] == [p.wkb for p in tissue.polygons]
    features = json.loads(path.read_text())["features"]
    assert all(f["properties"]["objectType"] == "annotation" for f in features)
    assert all("color" in f["properties"]["classification"] and f["id"] for f in features)


def test_geojson_of_a_slide_that_the_viewer_crops(tmp_path: Path) -> None:
    picture, _ = with_tissue(glass())
    slide = ArraySlide([picture], mpp=UM, bounds=(40, 30, 690, 480))
    assert viewer_origin(slide.info) == (40, 30)
    tissue = search(slide)
    path = tmp_path / "tissue.geojson"
    tissue.to_geojson(path, viewer_origin(slide.info))
    assert search(slide, tissue=str(path)).area_um2 == pytest.approx(tissue.area_um2)
    uncropped = ArraySlide([picture], mpp=UM, bounds=(0, 0, 700, 400))
    assert viewer_origin(uncropped.info) == (0, 0)


SQUARE = {"type": "Polygon", "coordinates": [[[10, 10], [60, 10], [60, 60], [10, 60], [10, 10]]]}
BOWTIE = {"type": "Polygon", "coordinates": [[[0, 0], [40, 40], [40, 0], [0, 40], [0, 0]]]}


@pytest.mark.parametrize(
    ("content", "area"),
    [
        (SQUARE, 2500),
        ({"type": "Feature", "geometry": SQUARE, "properties": {}}, 2500),
        ([{"type": "Feature", "geometry": SQUARE}, {"type": "Feature", "geometry": SQUARE}], 2500),
        ({"type": "FeatureCollection", "features": []}, 0),
        ({"type": "Feature", "geometry": BOWTIE}, 800),
        ({"type": "MultiPolygon", "coordinates": [[[[-50, -50], [20, -50], [20, 20], [-50, 20], [-50, -50]]]]}, 400),
        (
            {
                "type": "FeatureCollection",
                "features": [
                    {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}},
                    {"type": "Feature", "geometry": SQUARE},
                ],
            },
            2500,
        ),
    ],
)
def test_drawn_polygons(content: object, area: float, tmp_path: Path) -> None:
    path = tmp_path / "drawn.geojson"
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    tissue = search(slide_of(glass(), mpp=1.0), tissue=str(path))
    assert tissue.area_um2 == pytest.approx(area)
    assert all(p.is_valid for p in tissue.polygons)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("not json", "not a GeoJSON file"),
        ("[" * 100_000, "not a GeoJSON file"),
        ('{"features": 5}', "not a GeoJSON file of features"),
        ("42", "not a GeoJSON file of features"),
        ('{"type": "Cube"}', "not a GeoJSON file of features"),
        ('{"type": "Point", "coordinates": [1, 2]}', "no polygon among its 1 features"),
        (json.dumps(SQUARE).replace("10", "9910").replace("60", "9960"), "none of its 1 polygons lies on the slide"),
    ],
)
def test_files_that_are_not_tissue(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.geojson"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        search(slide_of(glass()), tissue=str(path))
    assert "\n" not in str(caught.value)


def star(vertices: int) -> list[list[float]]:
    """Return the coordinates of a ring that jumps about, and crosses itself about vertices² / 5 times."""
    ring = np.random.default_rng(0).uniform(0, 600, (vertices, 2)).tolist()
    return [*ring, ring[0]]


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"type": "Polygon", "coordinates": [star(3000)]}, "crosses itself more than"),
        ({"type": "MultiPolygon", "coordinates": [[star(1500)]] * 3}, "crosses itself more than"),
        (
            {"type": "GeometryCollection", "geometries": [{"type": "MultiPolygon", "coordinates": [[star(1500)]] * 3}]},
            "crosses itself more than",
        ),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1e300, 0], [5, 5], [0, 0]]]}, "coordinates beyond"),
        ({"type": "Polygon", "coordinates": [[[0, 0]]]}, "not a GeoJSON"),
        ({"type": "Polygon", "coordinates": [[["a", "b"]]]}, "not a GeoJSON"),
        ({"type": "Polygon", "coordinates": 5}, "not a GeoJSON"),
    ],
)
def test_hostile_outlines(geometry: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.geojson"
    path.write_text(json.dumps(geometry))
    with pytest.raises(SettingsError, match=message):
        search(slide_of(glass()), tissue=str(path))


def test_a_lasso_that_crosses_itself_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "drawn.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [star(40)]}))
    assert search(slide_of(glass()), tissue=str(path)).area_um2 > 0


REAL = ["CMU-1-Small-Region.svs", "tma-core-he.ome.tif"]


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest, shared_data: Path) -> np.ndarray:
    """Return the pixels of a real H&E slide at 0.5 µm/px."""
    with open_slide(shared_data / "slides" / request.param) as slide:
        return slide.read_region(0, 0, 0, *slide.info.size)


def warnings_for(pixels: np.ndarray) -> tuple[str, ...]:
    return search(ArraySlide([pixels], mpp=0.5), tissue="auto").warnings


def test_real_slides_raise_no_doubt(real: np.ndarray) -> None:
    assert warnings_for(real) == ()


def test_a_blurred_slide_is_out_of_focus(real: np.ndarray) -> None:
    (line,) = warnings_for(np.asarray(cv2.GaussianBlur(real, (0, 0), 3.5)))
    assert line.startswith("looks out of focus")


def test_a_blurred_part_is_told_and_where_only_that_is_looked_at(phantom: Phantom) -> None:
    """A third of a slide out of focus, as where the scanner lost it; a region is judged by itself."""
    with open_slide(phantom.path) as slide:
        pixels = slide.read_region(0, 0, 0, *slide.info.size)
    assert warnings_for(pixels) == ()
    pixels[:, :700] = cv2.GaussianBlur(pixels[:, :700], (0, 0), 4)
    blurred, sharp = (0, 0, 700, 1024), (720, 0, 1536, 1024)
    (line,) = warnings_for(pixels)
    assert "fields of the tissue looks out of focus" in line
    slide = ArraySlide([pixels], mpp=0.5)
    (line,) = find_tissue(slide, (0.5, 0.5), TissueSettings(), blurred).warnings
    assert line.startswith("looks out of focus")
    assert find_tissue(slide, (0.5, 0.5), TissueSettings(), sharp).warnings == ()


def test_slides_and_patches_are_judged_by_one_focus(phantom: Phantom) -> None:
    with open_slide(phantom.path) as slide:
        pixels = slide.read_region(0, 512, 256, 512, 512)
    look = Look(np.full(3, 243, np.float32), 0.2, 0.5)
    for sigma in (0.0, 4.0):
        shown = np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8) if sigma else pixels
        found = measure(shown, 0.5, look).focus
        assert found == measure_field(shown).sharpness
        assert (found < LEAST_SHARPNESS) == (why_not(Measures(0, 0, found, 0), CorpusSettings()) == "blur")
        assert (found < LEAST_SHARPNESS) == bool(sigma)


def test_a_brown_slide_is_not_he(real: np.ndarray) -> None:
    """Where haematoxylin was, DAB: red and blue change places in the darker half."""
    density = -np.log((real.astype(np.float32) + 1) / 256)
    brown = density.sum(axis=2, keepdims=True) * np.array([0.16, 0.34, 0.50])
    pixels = np.where(density.sum(axis=2, keepdims=True) > 0.9, brown, density)
    lines = warnings_for((256 * np.exp(-pixels) - 1).clip(0, 255).astype(np.uint8))
    assert any("immunohistochemistry" in line for line in lines)


def test_a_slide_without_nuclei(real: np.ndarray) -> None:
    """Only the red of eosin is left."""
    density = -np.log((real.astype(np.float32) + 1) / 256)
    eosin = density[..., 1:2] * np.array([0.08, 0.8, 0.3])
    lines = warnings_for((256 * np.exp(-eosin) - 1).clip(0, 255).astype(np.uint8))
    assert any("no haematoxylin" in line for line in lines)


def test_area_of_real_tissue(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / REAL[0]) as slide:
        tissue = find_tissue(slide, require_mpp(slide.info, SlideSettings()), TissueSettings())
    assert len(tissue.polygons) == 1
    assert 0.6e6 < tissue.area_um2 < 0.85e6
    assert tissue.contains(np.array([1100.0, 200.0]), np.array([2000.0, 300.0])).tolist() == [True, False]
