"""Cells as an OME-NGFF 0.5 label image (OME-Zarr), for napari, Fiji and every other reader of it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import zarr
from numpy.typing import NDArray

from wsipipe.formats.parquet import batches, metadata
from wsipipe.formats.pyramid import Level, Read, write_pyramid
from wsipipe.formats.windows import Windows, paint
from wsipipe.geometry import Grid
from wsipipe.raster import Raster
from wsipipe.runs import atomic_folder
from wsipipe.settings import ZarrSettings
from wsipipe.units import Box, Pair

VERSION = "0.5"
NAME = "cells"


def write_ngff(
    master: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: ZarrSettings | None = None,
    raster: Raster | None = None,
) -> list[Path]:
    """Write the cells of a master file as a multiscale label image and return the folder.

    The label of a pixel is the number of the cell's row in the master file, from 1; 0 is background. A pixel belongs to
    the cell that holds its centre. Alone, the folder is the label image; with a *raster* it is the slide's picture, and
    the cells are in ``labels/cells``.

    Parameters
    ----------
    master, out : path
        *out* is a folder, replaced when it holds Zarr.
    settings : ZarrSettings, optional
    raster : Raster, optional
        The slide; labels are on its grid then.

    Raises
    ------
    StoreError
        When *master* is not a master file of wsipipe.
    OutputError
    """
    settings, about = settings or ZarrSettings(), metadata(master)
    grid = raster.grid if raster else label_grid(about, settings)
    with atomic_folder(out) as folder:
        root = zarr.open_group(folder, mode="w", zarr_format=3)
        if raster is None:
            write_labels(root, master, grid, settings, source=None)
        else:
            write_picture(root, raster, settings.shard)
            labels = root.create_group("labels", attributes={"ome": {"version": VERSION, "labels": [NAME]}})
            write_labels(labels.create_group(NAME), master, grid, settings, source="../../")
    return [Path(out)]


def label_grid(about: Mapping[str, Any], settings: ZarrSettings) -> Grid:
    """Return the grid of label images: where the cells were found, or at ``settings.label_mpp``."""
    base: Pair = (about["mpp"][0], about["mpp"][1])
    asked, found = settings.label_mpp, about.get("working_mpp") or base
    mpp: Pair = (asked, asked) if asked else (found[0], found[1])
    scale = mpp[0] / base[0], mpp[1] / base[1]
    width, height = (max(1, math.ceil(side / s - 1e-6)) for side, s in zip(about["size"], scale, strict=True))
    return Grid((width, height), scale, mpp, 0, scale)


def write_labels(
    group: zarr.Group, master: str | os.PathLike[str], grid: Grid, settings: ZarrSettings, source: str | None
) -> None:
    """Write the label pyramid of *master* into *group*, with its metadata; *source* is the path of the picture."""
    nuclei = settings.nuclei and "nucleus" in metadata_columns(master)
    with contextlib.closing(Windows(master)) as windows:
        read = label_reader(windows, grid, "nucleus" if nuclei else "geometry")
        levels = write_pyramid(group, grid.size, read, labels=True, shard=settings.shard, prefix="")
    about: dict[str, Any] = {"properties": flagged(master)} | ({"source": {"image": source}} if source else {})
    ome: dict[str, Any] = {
        "version": VERSION,
        "multiscales": [multiscale(NAME, levels, grid.mpp, "yx")],
        "image-label": about,
    }
    group.attrs["ome"] = ome


def flagged(master: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the label and the flag of every cell that was cut out of an object larger than any cell."""
    first, found = 1, []
    for batch in batches(master, ["oversize"]):
        found += (first + np.flatnonzero(batch["oversize"].to_numpy(zero_copy_only=False))).tolist()
        first += batch.num_rows
    return [{"label-value": label, "oversize": True} for label in found]


def metadata_columns(master: str | os.PathLike[str]) -> list[str]:
    """Return the names of the columns of a master file."""
    import pyarrow.parquet as pq

    return list(pq.read_schema(master).names)


def label_reader(windows: Windows, grid: Grid, column: str) -> Read:
    """Return a function that paints the cells of a box of *grid*: int32 (h, w) row numbers from 1, None for none."""

    def read(box: Box) -> NDArray[np.int32] | None:
        labels: NDArray[np.int32] | None = None
        for rows, table in windows.over(grid.base_box(box), [column]):
            if labels is None:
                labels = np.zeros((box[3] - box[1], box[2] - box[0]), np.int32)
            polygons = shapely.from_wkb(table[column].to_numpy())
            paint(labels, polygons, (rows + 1).astype(np.int32), box[:2], grid.scale)
        return labels

    return read


def write_picture(group: zarr.Group, raster: Raster, shard: int) -> None:
    """Write the slide's pixels as an RGB pyramid with OME metadata into *group*."""
    grid = raster.grid
    levels = write_pyramid(group, grid.size, raster.read, labels=False, shard=shard, prefix="")
    colours = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
    window = {"start": 0, "end": 255, "min": 0, "max": 255}
    channels = [{"label": label, "color": color, "active": True, "window": window} for label, color in colours]
    scales = [multiscale("slide", levels, grid.mpp, "cyx")]
    ome: dict[str, Any] = {"version": VERSION, "multiscales": scales, "omero": {"channels": channels}}
    group.attrs["ome"] = ome


def multiscale(name: str, levels: Sequence[Level], mpp: Pair, axes: str) -> dict[str, Any]:
    """Return the ``multiscales`` entry of *levels*, whose first has *mpp* µm per pixel in x and y.

    Averaged pixels of smaller levels have their centres between those that they stand for.
    """
    datasets = []
    for k, level in enumerate(levels):
        scale: list[float] = [mpp[1] * 2**k, mpp[0] * 2**k]
        shift = [(2**k - 1) / 2 * mpp[1], (2**k - 1) / 2 * mpp[0]]
        steps: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0, *scale] if "c" in axes else scale}]
        if "c" in axes and k:
            steps.append({"type": "translation", "translation": [0.0, *shift]})
        datasets.append({"path": level.path, "coordinateTransformations": steps})
    named: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if "c" in axes else []
    named += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    return {"name": name, "axes": named, "datasets": datasets, "type": "mean" if "c" in axes else "nearest"}
