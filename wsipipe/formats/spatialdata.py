"""Cells as a SpatialData store (Zarr), for spatialdata, squidpy, napari-spatialdata and the rest of scverse.

The layout is that of spatialdata 0.7 (containers 0.2, shapes and images 0.3, tables 0.2; AnnData 0.1.0). It is written
here directly, row group by row group, because the library would hold all cells in memory; the tests read it back with
the library itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from wsipipe._version import __version__
from wsipipe.artifacts import canonical_json
from wsipipe.formats.anndata import write_anndata
from wsipipe.formats.parquet import geo_metadata, metadata, row_groups
from wsipipe.formats.pyramid import write_pyramid
from wsipipe.raster import Raster
from wsipipe.runs import atomic_folder
from wsipipe.settings import ZarrSettings
from wsipipe.units import Pair

SHAPES = {"geometry": "cells", "nucleus": "nuclei"}
TABLE, REGION = "table", "cells"
GLOBAL, MICRONS = "global", "microns"
"""Coordinate systems: level-0 pixels, and micrometres."""


def write_spatialdata(
    master: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: ZarrSettings | None = None,
    raster: Raster | None = None,
) -> list[Path]:
    """Write the cells of a master file as a SpatialData store and return the folder.

    Shapes ``cells`` (and ``nuclei``, of expanded cells) are indexed by ``cell_id``; ``table`` has the measurements as X
    and the rest as obs, and annotates ``cells``. Both are in level-0 pixels (``global``) and µm (``microns``).

    Parameters
    ----------
    master, out : path
        *out* is a folder, replaced when it holds Zarr.
    settings : ZarrSettings, optional
    raster : Raster, optional
        The slide, added as the image ``slide``.

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    OutputError
    """
    settings, about = settings or ZarrSettings(), metadata(master)
    with atomic_folder(out) as folder:
        root = zarr.open_group(folder, mode="w", zarr_format=3)
        software = {"version": "0.2", "spatialdata_software_version": f"wsipipe {__version__}"}
        root.attrs["spatialdata_attrs"] = software
        if raster is not None:
            _write_image(root.create_group("images").create_group("slide"), raster, about, settings.shard)
        shapes = root.create_group("shapes")
        for column in (name for name in SHAPES if name in pq.read_schema(master).names):
            _write_shapes(shapes.create_group(SHAPES[column]), folder, master, column, about)
        tables = root.create_group("tables")
        described = {"region": REGION, "region_key": "region", "instance_key": "cell_id"}
        table = write_anndata(tables, TABLE, master, described, {"wsipipe": canonical_json(about).decode()})
        table.attrs.update({"spatialdata-encoding-type": "ngff:regions_table", **described, "version": "0.2"})
    return [Path(out)]


def _write_shapes(
    group: zarr.Group, folder: Path, master: str | os.PathLike[str], column: str, about: Mapping[str, Any]
) -> None:
    """Write the shapes of *column* as GeoParquet, indexed by ``cell_id``."""
    group.attrs.update(
        {
            "encoding-type": "ngff:shapes",
            "axes": ["x", "y"],
            "coordinateTransformations": _transformations("xy", (1.0, 1.0), about["mpp"]),
            "spatialdata_attrs": {"version": "0.3"},
        }
    )
    schema = pa.schema([("geometry", pa.binary()), ("cell_id", pa.string())])
    indexed = schema.empty_table().to_pandas().set_index("cell_id")
    described = pa.Schema.from_pandas(pandas.DataFrame(indexed)).metadata or {}
    kept = {b"geo": canonical_json(geo_metadata(["geometry"], None, covering=False)), b"pandas": described[b"pandas"]}
    path = folder / group.path / "shapes.parquet"
    with pq.ParquetWriter(path, schema.with_metadata(kept), compression="zstd") as writer:
        for table in row_groups(master):
            part = pa.table({"geometry": table[column], "cell_id": table["cell_id"]})
            writer.write_table(part.cast(schema).replace_schema_metadata(kept))


def _write_image(group: zarr.Group, raster: Raster, about: Mapping[str, Any], shard: int) -> None:
    """Write the slide's pixels as a multiscale image in the coordinate systems of the shapes."""
    levels = write_pyramid(group, raster.grid.size, raster.read, labels=False, shard=shard, prefix="s")
    first = levels[0].size
    datasets = []
    for level in levels:
        scale = [1.0, first[1] / level.size[1], first[0] / level.size[0]]
        steps = [{"type": "scale", "scale": scale}]
        datasets.append({"path": level.path, "coordinateTransformations": steps})
    multiscale = {
        "name": "/images/slide",
        "axes": [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space"} for axis in "yx")],
        "datasets": datasets,
        "coordinateTransformations": _transformations("cyx", raster.grid.scale, about["mpp"]),
    }
    channels = [{"label": name} for name in "rgb"]
    ome: dict[str, Any] = {
        "version": "0.5-dev-spatialdata",
        "multiscales": [multiscale],
        "omero": {"channels": channels},
    }
    group.attrs.update({"ome": ome, "spatialdata_attrs": {"version": "0.3"}})


def _transformations(axes: str, scale: Pair, mpp: Pair) -> list[dict[str, Any]]:
    """Return how pixels of *scale* base pixels each become level-0 pixels, and µm."""
    return list(_steps(axes, scale, mpp))


def _steps(axes: str, scale: Pair, mpp: Pair) -> Iterator[dict[str, Any]]:
    for name, unit in ((GLOBAL, (1.0, 1.0)), (MICRONS, mpp)):
        by = {"c": 1.0, "x": float(scale[0] * unit[0]), "y": float(scale[1] * unit[1])}
        step: dict[str, Any] = {"type": "scale", "scale": [by[axis] for axis in axes]}
        if all(value == 1 for value in by.values()):
            step = {"type": "identity"}
        yield step | {"input": _frame(axes, axes), "output": _frame(name, axes)}


def _frame(name: str, axes: str) -> dict[str, Any]:
    kinds = {axis: {"name": axis, "type": "space", "unit": "unit"} for axis in "xy"}
    return {"name": name, "axes": [kinds.get(axis) or {"name": axis, "type": "channel"} for axis in axes]}
