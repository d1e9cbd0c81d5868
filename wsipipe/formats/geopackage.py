"""Cells as a GeoPackage, for QGIS and everything else that GDAL serves."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wsipipe.artifacts import atomic_path
from wsipipe.formats.columns import plain_names
from wsipipe.formats.parquet import metadata, row_groups

CRS = 'ENGCRS["level-0 pixels",EDATUM["slide"],CS[Cartesian,2],AXIS["x",east],AXIS["y",south],LENGTHUNIT["px",1]]'
"""The slide's own frame: y points down."""
DATE = "2000-01-01T00:00:00.000Z"
"""Stands in for the time of writing, so that the same cells give the same bytes."""
LAYERS = {"geometry": "cells", "nucleus": "nuclei"}


def write_geopackage(master: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[Path]:
    """Write the cells of a master file as a GeoPackage and return the file.

    The layer ``cells`` has the outlines with all measurements; with expanded cells, ``nuclei`` has the nuclei with
    their ``cell_id``. Coordinates are level-0 pixels, y down.

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    OutputError
    """
    from pyogrio import set_gdal_config_options

    metadata(master)
    set_gdal_config_options({"OGR_CURRENT_DATE": DATE})
    schema = pq.read_schema(master).remove_metadata()
    with atomic_path(out) as temporary:
        package = temporary.with_suffix(".gpkg")
        try:
            for table in row_groups(master) if pq.read_metadata(master).num_rows else [schema.empty_table()]:
                for column in (name for name in LAYERS if name in schema.names):
                    _append(package, table, column)
            os.replace(package, temporary)
        finally:
            package.unlink(missing_ok=True)
    return [Path(out)]


def _append(package: Path, table: pa.Table, column: str) -> None:
    """Add the rows of *table* with the shapes of *column* to their layer."""
    from pyogrio import write_arrow

    names = ["cell_id"] if column == "nucleus" else plain_names(table.schema)
    write_arrow(
        table.select([*names, column]),
        package,
        layer=LAYERS[column],
        driver="GPKG",
        geometry_name=column,
        geometry_type="Polygon",
        crs=CRS,
        append=package.exists() and LAYERS[column] in _layers(package),
        layer_options={"SPATIAL_INDEX": "YES"},
    )


def _layers(package: Path) -> list[str]:
    from pyogrio import list_layers

    return [str(name) for name, _ in list_layers(package)]
