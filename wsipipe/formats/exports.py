"""Every format that cells are written in: its name, the endings of its files, and who writes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wsipipe.artifacts import atomic_path
from wsipipe.errors import OutputError
from wsipipe.formats.delimited import write_csv
from wsipipe.formats.dsa import write_dsa
from wsipipe.formats.geojson import write_geojson
from wsipipe.formats.geopackage import write_geopackage
from wsipipe.formats.ngff import write_ngff
from wsipipe.formats.spatialdata import write_spatialdata
from wsipipe.formats.trident import write_cell_patches
from wsipipe.raster import Raster
from wsipipe.settings import ExportSettings, ZarrSettings


@dataclass(frozen=True)
class Style:
    """How exports are written.

    Attributes
    ----------
    raster : Raster, optional
        The slide, for formats that hold its picture too.
    """

    export: ExportSettings = field(default_factory=ExportSettings)
    zarr: ZarrSettings = field(default_factory=ZarrSettings)
    raster: Raster | None = None


Write = Callable[[Path, Path, Style], list[Path]]


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes
    ----------
    suffixes : tuple of str
        Endings of file names, the longest first.
    write : callable
        Writes a master file as this format; returns the files.
    folder : bool
        A folder rather than a file.
    """

    name: str
    suffixes: tuple[str, ...]
    write: Write
    folder: bool = False


def _copy(master: Path, out: Path, _style: Style) -> list[Path]:
    if out.exists() and os.path.samefile(master, out):
        return [out]
    with atomic_path(out) as temporary:
        shutil.copyfile(master, temporary)
    return [out]


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("parquet", (".parquet",), _copy),
        Format("geojson", (".geojson.gz", ".geojson"), lambda m, out, style: write_geojson(m, out, style.export)),
        Format("csv", (".csv.gz", ".csv"), lambda m, out, _: write_csv(m, out)),
        Format("geopackage", (".gpkg",), lambda m, out, _: write_geopackage(m, out)),
        Format("dsa", (".json.gz", ".json"), lambda m, out, style: write_dsa(m, out, style.export)),
        Format("trident", (".h5",), lambda m, out, style: write_cell_patches(m, out, style.zarr)),
        Format("ngff", (".ome.zarr",), lambda m, out, style: write_ngff(m, out, style.zarr, style.raster), True),
        Format("spatialdata", (".zarr",), lambda m, out, s: write_spatialdata(m, out, s.zarr, s.raster), True),
    )
}
"""Formats by name; an ending belongs to the first that has it."""


def format_of(path: Path, name: str = "") -> Format:
    """Return the format *name*, or else the one that the ending of *path* means.

    Raises
    ------
    OutputError
    """
    if name:
        return FORMATS[name]
    for found in FORMATS.values():
        if path.name.endswith(found.suffixes):
            return found
    endings = ", ".join(suffix for found in FORMATS.values() for suffix in found.suffixes)
    raise OutputError(f"{path}: unknown kind of output; expected a name ending in {endings} (or --to FORMAT)")
