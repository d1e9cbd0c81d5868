"""`wsipipe measure`: what was found is found again, and the surroundings are what they are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from tests.conftest import Phantom
from wsipipe.cells.context import Crowd, ring_means
from wsipipe.cells.measure import MEASURES, measure
from wsipipe.cells.texture import haralick
from wsipipe.cli.main import main
from wsipipe.errors import OutputError, SettingsError, StoreError
from wsipipe.formats.geojson import write_geojson
from wsipipe.formats.imported import read_drawn
from wsipipe.formats.parquet import merge_parts, metadata, read_cells, write_part
from wsipipe.formats.table import BlankCells, cells_table
from wsipipe.raster import open_slide_raster
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation import measurer as remeasure
from wsipipe.segmentation.measurer import painted
from wsipipe.segmentation.measuring import MeasureJob, run_measure
from wsipipe.settings import MeasureSettings, SlideSettings
from wsipipe.stain.unmix import HE

COUNT = 60


@pytest.fixture(scope="module")
def cells(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Octagons on the phantom as cells that were never measured, but for their stain, which is all wrong."""
    rng = np.random.default_rng(3)
    place = np.stack(np.meshgrid(np.arange(40, 1440, 70), np.arange(40, 960, 70)), -1).reshape(-1, 2)
    xy = rng.permutation(place)[:COUNT] + rng.uniform(-9, 9, (COUNT, 2))
    polygons = np.array([shapely.Point(p).buffer(r, quad_segs=2) for p, r in zip(xy, rng.uniform(5, 12, COUNT))])
    polygons = shapely.transform(polygons, lambda c: np.round(c, 2))
    found = BlankCells(COUNT)
    found.sums = np.column_stack([np.ones(COUNT), xy]).astype(np.int64)
    found.probability = rng.random(COUNT, np.float32)
    measures = {name: np.full(COUNT, 99.0) for name in MEASURES} | {"x": xy[:, 0], "y": xy[:, 1]}
    folder = tmp_path_factory.mktemp("cells")
    raster = open_slide_raster(phantom.path, SlideSettings(), 0.5)
    about = {
        "fingerprint": raster.fingerprint,
        "size": [1536, 1024],
        "bounds": None,
        "mpp": [0.5, 0.5],
        "mpp_source": "vendor property",
        "working_mpp": [0.5, 0.5],
    }
    write_part(cells_table(found, polygons, measures, fingerprint=raster.fingerprint), folder / "part.arrow", 256)
    merge_parts([folder / "part.arrow"], folder / "cells.parquet", about, 256)
    return folder / "cells.parquet"


def _run(cells: Path, phantom: Phantom, out: Path, **settings: object) -> None:
    job = MeasureJob(cells, str(phantom.path), out, MeasureSettings(**settings))  # type: ignore[arg-type]
    assert run_measure(job, Progress()).cells == COUNT


def test_measures_are_those_of_segment(cells: Path, phantom: Phantom, tmp_path: Path) -> None:
    _run(cells, phantom, tmp_path / "a.parquet")
    before, after = read_cells(cells), read_cells(tmp_path / "a.parquet")
    assert list(after.columns) == list(before.columns)
    for name in ("cell_id", "probability", "oversize"):
        assert after[name].tolist() == before[name].tolist()
    assert shapely.equals(after.geometry.to_numpy(), before.geometry.to_numpy()).all()
    raster = open_slide_raster(phantom.path, SlideSettings(), 0.5)
    window = (0, 0, 1536, 1024)
    polygons = before.geometry.to_numpy()
    expected = measure(painted(polygons, window, (1.0, 1.0)), polygons, raster.read(window), raster.grid)
    for name in MEASURES:
        np.testing.assert_allclose(after[name], expected[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(after["area_um2"], before.geometry.area / 4, rtol=1e-6)
    assert metadata(tmp_path / "a.parquet")["measured"]["mpp"] == [0.5, 0.5]


def test_numbers_do_not_depend_on_squares(
    cells: Path, phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(cells, phantom, tmp_path / "a.parquet", add="neighbours,ring,quality")
    monkeypatch.setattr(remeasure, "SIDE", 200)
    _run(cells, phantom, tmp_path / "b.parquet", add="neighbours,ring,quality")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    frame = read_cells(tmp_path / "a.parquet")
    xy = frame[["x", "y"]].to_numpy() / 2
    apart = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_allclose(frame["nearest_um"], apart.min(axis=1), atol=0.2)  # of the centres that were given
    assert (frame["neighbours_50um"] == (apart <= 50).sum(axis=1)).mean() > 0.9
    assert np.isfinite(frame["ring_eosin_od_mean"]).all()


def test_cells_edited_in_qupath(cells: Path, phantom: Phantom, tmp_path: Path) -> None:
    """What QuPath exports comes back: identities, classes, one outline moved, one new, and a region left out."""
    write_geojson(cells, tmp_path / "a.geojson")
    content = json.loads((tmp_path / "a.geojson").read_text())
    features = content["features"]
    features[0]["properties"]["classification"] = {"name": "Tumor", "color": [200, 0, 0]}
    features[1]["geometry"]["coordinates"] = [[[100, 100], [120, 100], [120, 112], [100, 112], [100, 100]]]
    drawn = {"type": "Polygon", "coordinates": [[[300, 300], [310, 300], [310, 310], [300, 310], [300, 300]]]}
    features.append({"type": "Feature", "geometry": drawn, "properties": {"objectType": "annotation"}})
    region = {"type": "Polygon", "coordinates": [[[0, 0], [900, 0], [900, 900], [0, 900], [0, 0]]]}
    features.append({"type": "Feature", "geometry": region, "properties": {"objectType": "annotation"}})
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    done = run_measure(MeasureJob(tmp_path / "a.geojson", str(phantom.path), tmp_path / "b.parquet"), Progress())
    assert (done.cells, done.left_out) == (COUNT + 1, 1)
    _run(cells, phantom, tmp_path / "a.parquet")
    one, other = (read_cells(tmp_path / f"{name}.parquet").set_index("cell_id") for name in "ab")
    kept = [id_ for id_ in one.index if id_ != features[1]["id"]]
    assert set(one.index) <= set(other.index) and len(other) == len(one) + 1
    for name in MEASURES:
        np.testing.assert_allclose(other.loc[kept, name], one.loc[kept, name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(other.loc[kept, "probability"], one.loc[kept, "probability"], atol=6e-5)
    assert other.loc[features[1]["id"], "area_um2"] == pytest.approx(60)
    assert other["class"].dropna().to_dict() == {features[0]["id"]: "Tumor"}
    assert metadata(tmp_path / "b.parquet")["classes"] == {"Tumor": [200, 0, 0]}


def test_texture_tells_smooth_from_rough() -> None:
    pytest.importorskip("mahotas")
    rng = np.random.default_rng(0)
    labels = np.zeros((40, 80), np.int32)
    labels[5:35, 5:35], labels[5:35, 45:75], labels[0, 0] = 1, 2, 3
    image = np.full((40, 80), 0.8, np.float32)
    image[:, 40:] += rng.normal(0, 0.3, (40, 40)).astype(np.float32)
    found = haralick(labels, image, 16, 3)
    assert found.shape == (3, 13) and np.isnan(found[2]).all()
    assert found[0, 1] == 0 and found[1, 1] > 1  # contrast
    assert found[0, 8] == pytest.approx(0) and found[1, 8] > 2  # entropy
    other = image.copy()
    other[labels == 0] = 0
    np.testing.assert_array_equal(haralick(labels, other, 16, 3), found)


def test_rings_end_at_neighbours() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[8:12, 5:10], labels[8:12, 14:18] = 1, 2
    taken = labels > 0
    taken[0:6, :] = True
    stains = np.zeros((20, 30, 2), np.float32)
    stains[8:12, 3:5, 1] = 1
    stains[taken] = 7
    found = ring_means(labels, taken, stains, 2, 2)
    assert 0 < found[0, 1] < 1 and found[1].tolist() == [0, 0] and found[0, 0] == 0
    taken[:] = True
    assert np.isnan(ring_means(labels, taken, stains, 2, 2)).all()


def test_a_cell_alone_has_no_neighbour() -> None:
    nearest, count = Crowd(np.zeros((1, 2))).neighbours(np.zeros((1, 2)), 50.0)
    assert np.isnan(nearest).all() and count.tolist() == [0]


def test_amounts_agree_with_measure(phantom: Phantom) -> None:
    raster, box = open_slide_raster(phantom.path, SlideSettings(), 0.5), shapely.box(100, 100, 160, 150)
    rgb = raster.read((100, 100, 160, 150))
    cells = painted(np.array([box]), (100, 100, 160, 150), (1.0, 1.0))
    found = measure(cells, np.array([box]), rgb, raster.grid)
    mean = HE.amounts(rgb).reshape(-1, 2).mean(axis=0)
    assert mean == pytest.approx([found["hematoxylin_od_mean"][0], found["eosin_od_mean"][0]], abs=1e-5)


def test_a_small_file_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    """What would be valid, and empty, once it is unpacked."""
    path = tmp_path / "a.geojson.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * (80 << 20) + b"]"))
    with pytest.raises(StoreError, match="unpacks to more than 64 MiB"):
        read_drawn(path)


def test_errors(cells: Path, phantom: Phantom, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no measurement .colour.; expected some of .*, stains"):
        MeasureSettings(add="ring,colour")
    with pytest.raises(OutputError, match=r"measured cells are a \.parquet"):
        run_measure(MeasureJob(cells, str(phantom.path), tmp_path / "a.csv"), Progress())
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(StoreError, match="none of its 0 objects is the outline of a cell"):
        run_measure(MeasureJob(tmp_path / "a.geojson", str(phantom.path), tmp_path / "a.parquet"), Progress())
    (tmp_path / "a.geojson").write_text('{"type": "FeatureCollection", "features": [')
    with pytest.raises(StoreError, match="not GeoJSON as QuPath writes it"):
        run_measure(MeasureJob(tmp_path / "a.geojson", str(phantom.path), tmp_path / "a.parquet"), Progress())
    assert not [p for p in tmp_path.iterdir() if p.name != "a.geojson"]


# --- many slides ------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(cells: Path, phantom: Phantom, tmp_path: Path) -> Path:
    """Return a folder with slides/a and slides/sub/b, and the cells of each in found/."""
    for name in ("a", "sub/b"):
        slide, own = tmp_path / "slides" / f"{name}.tiff", tmp_path / "found" / f"{name}.parquet"
        for path, source in ((slide, phantom.path), (own, cells)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(Path(source).read_bytes())
    return tmp_path


def _statuses(folder: Path) -> dict[str, str]:
    return {s["name"]: s["status"] for s in json.loads((folder / "report.json").read_text())["slides"]}


def test_a_folder_goes_on_where_it_stopped(many: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found, out = many / "found", many / "out"
    run = ["measure", str(found), "--slide", str(many / "slides"), "-o", str(out), "--add", "neighbours"]
    assert main(run) == 0
    assert _statuses(out) == {"a": "done", "sub/b": "done"}
    alone = ["measure", str(found / "a.parquet"), "--slide", str(many / "slides" / "a.tiff"), "--add", "neighbours"]
    assert main([*alone, "-o", str(many / "alone.parquet")]) == 0
    first = (out / "a.parquet").read_bytes()
    assert first == (many / "alone.parquet").read_bytes() == (out / "sub" / "b.parquet").read_bytes()
    assert json.loads((out / "sub" / "b.run.json").read_text())["slide"] == str(many / "slides" / "sub" / "b.tiff")
    # an interrupted run, cells found anew, other settings: only what they change is done again
    (out / "a.parquet").unlink()
    capfd.readouterr()
    assert main(run) == 0 and _statuses(out) == {"a": "done", "sub/b": "skipped"}
    assert "up to date" in capfd.readouterr().out and (out / "a.parquet").read_bytes() == first
    (found / "a.parquet").touch()
    assert main(run) == 0 and _statuses(out) == {"a": "done", "sub/b": "skipped"}
    assert main([*run, "--neighbours-um", "40"]) == 0 and set(_statuses(out).values()) == {"done"}
    assert main([*run, "--neighbours-um", "40"]) == 0 and set(_statuses(out).values()) == {"skipped"}
    assert main([*run, "--neighbours-um", "40", "--force"]) == 0 and set(_statuses(out).values()) == {"done"}
    # what was measured knows its slides
    assert main(["measure", str(out), "-o", str(many / "again")]) == 0
    assert set(_statuses(many / "again").values()) == {"done"}


def test_one_slide_does_not_stop_the_others(many: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (many / "slides" / "a.tiff").unlink()
    found, out = many / "found", many / "out"
    assert main(["measure", str(found), "--slide", str(many / "slides"), "-o", str(out)]) == 9
    told = capfd.readouterr().out
    assert "holds no slide called a; expected one for each cells file" in told
    assert _statuses(out) == {"a": "failed", "sub/b": "done"} and not (out / "a.parquet").exists()
    assert main(["measure", str(found), "-o", str(out)]) == 9
    assert "a.parquet: its slide was not found (no run record beside it" in capfd.readouterr().out
    assert main(["report", str(out)]) == 0


def test_a_folder_from_qupath(many: Path) -> None:
    folder = many / "drawn"
    folder.mkdir()
    write_geojson(many / "found" / "a.parquet", folder / "a.geojson")
    write_geojson(many / "found" / "a.parquet", folder / "b.geojson.gz")
    out = many / "out"
    assert main(["measure", str(folder), "--slide", str(many / "slides"), "-o", str(out)]) == 0
    assert _statuses(out) == {"a": "done", "b": "done"}, "b lies in a folder of its own"
    assert metadata(out / "b.parquet")["cells"] == COUNT
    # beside master files, exports are only copies of them
    write_geojson(many / "found" / "a.parquet", many / "found" / "a.geojson.gz")
    assert main(["measure", str(many / "found"), "--slide", str(many / "slides"), "-o", str(many / "o2")]) == 0
    assert set(_statuses(many / "o2")) == {"a", "sub/b"}


def test_what_many_slides_cannot_be(many: Path, phantom: Phantom, capfd: pytest.CaptureFixture[str]) -> None:
    found, slides = str(many / "found"), str(many / "slides")
    (many / "empty").mkdir()
    for options, words in (
        ((found, "--slide", str(phantom.path), "-o", "o"), "is one slide, and there are 2 cells files; give a folder"),
        ((found, "--slide", slides, "-o", str(many / "o.parquet")), "measured cells of several slides need one folder"),
        ((found, "--slide", slides, "-o", found), "is the input itself"),
        ((str(many / "empty"), "--slide", slides, "-o", "o"), "holds no cells"),
        ((found, "--slide", str(many / "empty"), "-o", "o"), "no slides in"),
        ((str(many / "found" / "a.parquet"), "-o", str(many / "x.parquet")), "its slide was not found"),
    ):
        assert main(["measure", *options]) != 0
        told = capfd.readouterr().err
        assert words in told and len(told.strip().splitlines()) == 1, told
