"""Label images and SpatialData stores, read back by zarr here and by ome-zarr and spatialdata where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
import zarr

from tests.conftest import Phantom
from tests.consumers import ask
from wsipipe.errors import OutputError, SettingsError
from wsipipe.formats import anndata, pyramid
from wsipipe.formats.ngff import write_ngff
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.formats.spatialdata import write_spatialdata
from wsipipe.formats.subset import write_subset
from wsipipe.raster import SlideRaster, open_slide_raster
from wsipipe.settings import SlideSettings, SubsetSettings, ZarrSettings

Make = Callable[..., pa.Table]
Master = Callable[..., Path]
SMALL = ZarrSettings(shard=512)
WIDTH, HEIGHT = 1025, 1500


def on_slide(table: pa.Table, width: int, height: int) -> pa.Table:
    """Return the cells that lie on a slide of this size."""
    return table.filter((table["x"].to_numpy() < width) & (table["y"].to_numpy() < height))


@pytest.fixture
def cells(make_table: Make, master: Master, tmp_path: Path) -> Path:
    """Some cells on a slide of 2050 × 3000 px at 0.25 µm/px, found at 0.5 µm/px."""
    size = 2 * WIDTH, 2 * HEIGHT
    path = master(on_slide(make_table(3000, nuclei=True), *size), size=list(size), working_mpp=[0.5, 0.5])
    write_subset(path, tmp_path / "some.parquet", SubsetSettings(bounds=(100, 100, 2 * WIDTH, 2 * HEIGHT)))
    return tmp_path / "some.parquet"


@pytest.fixture
def raster(phantom: Phantom) -> SlideRaster:
    return open_slide_raster(phantom.path, SlideSettings(), 0.5)


def _polygon_label(polygon: shapely.Polygon, shape: tuple[int, int], scale: float) -> Any:
    """Return which pixel centres lie in *polygon*, one by one."""
    x0, y0, x1, y1 = (int(v / scale) for v in polygon.bounds)
    mask = np.zeros(shape, bool)
    y, x = np.mgrid[y0 : min(y1 + 2, shape[0]), x0 : min(x1 + 2, shape[1])]
    inside = shapely.contains_xy(polygon, (x + 0.5) * scale, (y + 0.5) * scale)
    mask[y[inside], x[inside]] = True
    return mask


def test_labels_are_the_cells(cells: Path, tmp_path: Path) -> None:
    write_ngff(cells, tmp_path / "a.ome.zarr", SMALL)
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    labels, polygons = np.asarray(group["0"]), read_cells(cells).geometry
    assert labels.shape == (HEIGHT, WIDTH) and labels.dtype == np.int32
    expected = np.zeros_like(labels)
    for i, polygon in enumerate(polygons):
        expected[_polygon_label(polygon, labels.shape, 2.0)] = i + 1
    assert (labels > 0).sum() > 2000
    assert (labels != expected).sum() < 5  # pixel centres that lie on an outline
    np.testing.assert_array_equal(labels[::2, ::2], np.asarray(group["1"]))
    assert sorted(group) == ["0", "1"]


def test_files_are_few_and_sharded(cells: Path, tmp_path: Path) -> None:
    write_ngff(cells, tmp_path / "a.ome.zarr", ZarrSettings(shard=1024))
    array = zarr.open_array(tmp_path / "a.ome.zarr" / "0", mode="r")
    assert array.shards == (1024, 1024) and array.chunks == (512, 512)
    files = [p for p in (tmp_path / "a.ome.zarr" / "0" / "c").rglob("*") if p.is_file()]
    assert 1 < len(files) <= 4  # empty shards have no file


def test_labels_do_not_depend_on_shards(cells: Path, tmp_path: Path) -> None:
    for shard in (512, 8192):
        write_ngff(cells, tmp_path / f"{shard}.ome.zarr", ZarrSettings(shard=shard))
    one, other = (zarr.open_group(tmp_path / f"{shard}.ome.zarr", mode="r") for shard in (512, 8192))
    for level in "01":
        np.testing.assert_array_equal(np.asarray(one[level]), np.asarray(other[level]))


def test_nuclei_and_resolution_are_a_choice(cells: Path, tmp_path: Path) -> None:
    write_ngff(cells, tmp_path / "a.ome.zarr", ZarrSettings(shard=1024, nuclei=True, label_mpp=0.25))
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    labels, frame = np.asarray(group["0"]), read_cells(cells)
    assert labels.shape == (2 * HEIGHT, 2 * WIDTH)
    areas = np.bincount(labels.ravel(), minlength=len(frame) + 1)[1:]
    assert areas.sum() == pytest.approx(shapely.area(frame["nucleus"].to_numpy()).sum(), rel=0.03)
    (scale,) = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]  # type: ignore
    assert scale == {"type": "scale", "scale": [0.25, 0.25]}


def test_picture_with_labels(make_table: Make, master: Master, raster: SlideRaster, tmp_path: Path) -> None:
    width, height = raster.grid.size
    path = master(on_slide(make_table(500), width, height), size=[width, height], mpp=[0.5, 0.5])
    write_ngff(path, tmp_path / "a.ome.zarr", ZarrSettings(shard=512), raster)
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    picture = np.asarray(group["0"]).transpose(1, 2, 0)
    np.testing.assert_array_equal(picture, raster.read((0, 0, width, height)))
    half = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(np.asarray(group["1"]).transpose(1, 2, 0), half)
    assert np.asarray(group["labels/cells/0"]).shape == (height, width)
    write_ngff(path, tmp_path / "b.ome.zarr")
    code = """
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
def told(node):
    levels = [d.shape for d in node.data]
    return [str(node.zarr).split(".ome.zarr")[1].split(" ")[0], [type(s).__name__ for s in node.specs], levels]
answer = [[told(node) for node in Reader(parse_url(p))()] for p in (path, path.replace("a.ome", "b.ome"))]
"""
    both, alone = ask("ome_zarr", code, tmp_path / "a.ome.zarr")
    shapes = [[height, width], [height // 2, width // 2]]
    assert alone == [["", ["Label", "Multiscales"], shapes]]
    assert both == [
        ["", ["Multiscales", "OMERO"], [[3, *shape] for shape in shapes]],
        ["/labels", ["Labels"], []],
        ["/labels/cells", ["Label", "Multiscales"], shapes],
    ]


SPATIALDATA = """
import spatialdata as sd
from spatialdata.models import ShapesModel, TableModel
store = sd.read_zarr(path)
cells, table = store.shapes["cells"], store.tables["table"]
ShapesModel.validate(cells); TableModel().validate(table)
joined, rows = sd.join_spatialelement_table(sdata=store, spatial_element_names="cells", table_name="table", how="inner")
extent = sd.get_extent(cells, coordinate_system="microns")
answer = dict(
    elements=sorted(name for _, name, _ in store.gen_elements()), systems=sorted(store.coordinate_systems),
    index=cells.index.tolist(), wkb=[g.wkb_hex for g in cells.geometry], joined=len(rows),
    names=table.var_names.tolist(), area=table[:, "area_um2"].X.ravel().tolist(), ids=table.obs["cell_id"].tolist(),
    types=[None if v != v else v for v in table.obs["class"]], oversize=table.obs["oversize"].tolist(),
    spatial=table.obsm["spatial"].tolist(), extent={k: list(v) for k, v in extent.items()},
    images={k: str(v["scale0"].image.shape) for k, v in store.images.items()},
)
"""


def test_spatialdata_reads_the_store(make_table: Make, master: Master, raster: SlideRaster, tmp_path: Path) -> None:
    width, height = raster.grid.size
    path = master(on_slide(make_table(3000, nuclei=True), width, height), size=[width, height], mpp=[0.5, 0.5])
    write_spatialdata(path, tmp_path / "a.zarr", SMALL, raster)
    found, frame = ask("spatialdata", SPATIALDATA, tmp_path / "a.zarr"), read_cells(path)
    assert found["elements"] == ["cells", "nuclei", "slide", "table"] and found["systems"] == ["global", "microns"]
    assert found["index"] == found["ids"] == frame["cell_id"].tolist() and found["joined"] == len(frame) > 50
    assert shapely.equals(shapely.from_wkb(found["wkb"]), frame.geometry.to_numpy()).all()
    np.testing.assert_allclose(found["area"], frame["area_um2"])
    assert found["types"] == [value if isinstance(value, str) else None for value in frame["class"]]
    assert found["oversize"] == frame["oversize"].tolist()
    np.testing.assert_allclose(found["spatial"], frame[["x", "y"]])
    assert found["images"] == {"slide": f"(3, {height}, {width})"}
    bounds = frame.total_bounds * 0.5
    np.testing.assert_allclose(found["extent"]["x"], bounds[[0, 2]])
    np.testing.assert_allclose(found["extent"]["y"], bounds[[1, 3]])


@pytest.mark.parametrize("n", [0, 300])
def test_layout_of_the_store(
    make_table: Make, master: Master, tmp_path: Path, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What spatialdata looks for, checked without it; several chunks of rows."""
    monkeypatch.setattr(anndata, "ROWS", 70)
    path = master(make_table(n))
    write_spatialdata(path, tmp_path / "a.zarr")
    frame, root = read_cells(path), zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert root.attrs["spatialdata_attrs"]["version"] == "0.2"  # type: ignore
    table = root["tables/table"]
    expected = {"region": "cells", "region_key": "region", "instance_key": "cell_id", "version": "0.2"}
    assert expected.items() <= dict(table.attrs).items()
    shapes = geopandas.read_parquet(tmp_path / "a.zarr" / "shapes" / "cells" / "shapes.parquet")
    assert shapes.index.name == "cell_id" and shapes.index.tolist() == frame["cell_id"].tolist()
    names = list(np.asarray(root["tables/table/var/_index"]))
    assert "area_um2" in names and "x" not in names
    x = np.asarray(root["tables/table/X"])
    assert x.shape == (n, len(names))
    np.testing.assert_allclose(x[:, names.index("eccentricity")], frame["eccentricity"])
    assert list(np.asarray(root["tables/table/obs/_index"])) == frame["cell_id"].tolist()
    codes, classes = np.asarray(root["tables/table/obs/class/codes"]), list(metadata(path)["classes"])
    assert [classes[c] if c >= 0 else None for c in codes] == [
        c if isinstance(c, str) else None for c in frame["class"]
    ]


def test_what_stands_there_is_safe(cells: Path, tmp_path: Path) -> None:
    keep = tmp_path / "a.zarr"
    keep.mkdir()
    (keep / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="something else stands there"):
        write_spatialdata(cells, keep)
    assert (keep / "thesis.txt").read_text() == "years of work"
    (keep / "thesis.txt").unlink()
    write_spatialdata(cells, keep)
    (keep / "old").write_text("")
    write_spatialdata(cells, keep)
    assert not (keep / "old").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_failure_leaves_nothing(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ngff(cells, tmp_path / "a.ome.zarr", SMALL)
    monkeypatch.setattr(pyramid, "_halved", None)
    with pytest.raises(TypeError):
        write_ngff(cells, tmp_path / "a.ome.zarr", SMALL)
    assert "1" in zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_shards_hold_whole_chunks() -> None:
    with pytest.raises(SettingsError, match="multiple of 512"):
        ZarrSettings(shard=1000)
