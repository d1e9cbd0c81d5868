"""Every kind of fault that was found once, as an input of its own: on the program as it was then, each is a fault."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch

from tests import damage
from tests.fuzz.mutate import _parquet, _safetensors


@dataclass(frozen=True)
class Case:
    """An input that was a fault.

    Attributes
    ----------
    pair : str
        See :data:`tests.fuzz.commands.TARGETS`.
    spoil : callable
        Damages the input in a folder, and returns what the command is given in its place, or nothing: the same.
    strict : bool
        Whether other results than the intact input's, without a word, are a fault.
    """

    pair: str
    spoil: Callable[[Path], str | None]
    strict: bool = True


# --- cells ------------------------------------------------------------------------------------------------------------


def _table(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Return what changes the table of a cells file, which is written without its digest, as by another program."""

    def spoil(folder: Path) -> None:
        path = folder / "cells.parquet"
        path.write_bytes(_parquet(change(pq.read_table(path)), path.read_bytes()))

    return spoil


def _stated(key: str, value: Any) -> Callable[[Path], None]:
    """Return what puts another value into the metadata of a cells file."""

    def change(entry: bytes) -> bytes:
        return json.dumps(json.loads(entry) | {key: value}).encode()

    def spoil(folder: Path) -> None:
        path = folder / "cells.parquet"
        path.write_bytes(_parquet(pq.read_table(path), path.read_bytes(), change))

    return spoil


def _wkb(table: pa.Table) -> pa.Table:
    place = table.column_names.index("geometry")
    return table.set_column(place, "geometry", pa.array([b"\1\3\0\0\0\xff\xff\xff\x7f"] * table.num_rows, pa.binary()))


def _probability(table: pa.Table) -> pa.Table:
    place = table.column_names.index("probability")
    return table.set_column(place, "probability", pa.array(["x"] * table.num_rows))


def _page(folder: Path) -> None:
    """Change bytes in the middle of the first column's data."""
    path = folder / "cells.parquet"
    column = pq.read_metadata(path).row_group(0).column(3)
    raw = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    raw[middle : middle + 8] = bytes(255 - b for b in raw[middle : middle + 8])
    path.write_bytes(raw)


# --- GeoJSON ----------------------------------------------------------------------------------------------------------


def _features(name: str, change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    """Return what changes the features of a GeoJSON file."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content["features"])
        (folder / name).write_text(json.dumps(content))

    return spoil


def _star(count: int) -> Callable[[list[dict[str, Any]]], None]:
    def change(features: list[dict[str, Any]]) -> None:
        ring = (np.random.default_rng(0).random((count, 2)) * [290, 190]).tolist()
        features[0]["geometry"] = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}

    return change


def _listed(features: list[dict[str, Any]]) -> None:
    """Write measurements as QuPath did before 0.4."""
    for feature in features:
        told = feature["properties"].get("measurements", {})
        feature["properties"]["measurements"] = [{"name": name, "value": value} for name, value in told.items()]


def _away(features: list[dict[str, Any]]) -> None:
    for feature in features:
        rings = feature["geometry"]["coordinates"]
        feature["geometry"]["coordinates"] = [[[x + 1e5, y + 1e5] for x, y in ring] for ring in rings]


# --- stores, models, slides -------------------------------------------------------------------------------------------


def _attributes(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Return what changes the attributes of a tile store."""

    def spoil(folder: Path) -> None:
        path = folder / "slide.zarr/zarr.json"
        content = json.loads(path.read_text())
        (about,) = (value for value in content["attributes"].values() if isinstance(value, dict) and "grid" in value)
        change(about)
        path.write_text(json.dumps(content))

    return spoil


def _grid_key(folder: Path) -> None:
    """Misspell a key that Zarr itself reads."""
    path = folder / "slide.zarr/pixels/zarr.json"
    path.write_text(path.read_text().replace('"chunk_shape"', '"chunk_shapg"', 1))


def _shard(folder: Path) -> None:
    path = max((p for p in (folder / "slide.zarr").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _card(key: str, value: Any) -> Callable[[Path], None]:
    """Return what changes the card of a model; its weights stay."""

    def spoil(folder: Path) -> None:
        path = folder / "own.safetensors"
        raw = path.read_bytes()
        (size,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + size])
        header["__metadata__"]["wsipipe"] = json.dumps(json.loads(header["__metadata__"]["wsipipe"]) | {key: value})
        path.write_bytes(_safetensors(header, raw[8 + size :]))

    return spoil


def _not_finite(folder: Path) -> None:
    """Put one NaN into the weights, which are saved with no digest, as those of other programs."""
    path = folder / "own.safetensors"
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    told = json.loads(raw[8 : 8 + size])["__metadata__"]
    tensors = safetensors.torch.load_file(path)
    name = next(name for name, values in tensors.items() if values.is_floating_point() and values.ndim > 1)
    tensors[name].view(-1)[0] = float("nan")
    safetensors.torch.save_file(tensors, path, {key: value for key, value in told.items() if key != "digest"})


def _weight(folder: Path) -> None:
    """Change some weights by up to a half; they stay numbers."""
    path = folder / "own.safetensors"
    raw = bytearray(path.read_bytes())
    for place in range(len(raw) - 4000, len(raw), 4):
        raw[place + 2] ^= 0x40
    path.write_bytes(raw)


def _colour(folder: Path) -> None:
    content = json.loads((folder / "types.json").read_text())
    content["colours"] = {name: [[1], [2], [3]] for name in content["classes"]}
    (folder / "types.json").write_text(json.dumps(content))


def _cut(name: str, share: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(len(raw) * share)])

    return spoil


def _small_level(folder: Path) -> None:
    """Leave nothing of the level that tissue is looked for on; level 0 is intact."""
    path = folder / "slide.svs"
    for level in range(1, len(damage.pages(path))):
        damage.spoil_level(path, level)


def _all_levels(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for level in range(len(damage.pages(folder / name))):
            damage.spoil_level(folder / name, level)

    return spoil


def _high(height: int) -> Callable[[Path], None]:
    """Return what makes a slide claim another height than its tiles have."""
    return lambda folder: damage.set_number(folder / "slides/a.tiff", 0, damage.IMAGE_LENGTH, height)


def _endless_tile(folder: Path) -> None:
    page = damage.pages(folder / "slide.svs")[0]
    damage.set_tag(folder / "slide.svs", 0, damage.TILE_COUNTS, [2**62] * len(page.databytecounts))


# --- texts, and what a folder holds -----------------------------------------------------------------------------------


def _text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "slides/pipe.tiff")


def _loop(folder: Path) -> None:
    (folder / "slides/again").symlink_to(folder / "slides", target_is_directory=True)


def _empty_folder(folder: Path) -> None:
    (folder / "slides/a.tiff").unlink()
    (folder / "slides/a.tiff").mkdir()


def _odd_name(folder: Path) -> None:
    (folder / "slides/a.tiff").rename(folder / os.fsdecode(b"slides/caf\xe9.tiff"))


CASES: dict[str, Case] = {
    "cells without a column": Case("cells → convert", _table(lambda t: t.drop_columns(["probability"]))),
    "a column of another type": Case("cells → convert", _table(_probability)),
    "outlines that are no WKB": Case("cells → convert", _table(_wkb)),
    "metadata of another type": Case("cells → convert", _stated("classes", [1, 2])),
    "metadata that lack something": Case("cells → report", _stated("mpp", None)),
    "metadata without a source": Case("cells → classify", _stated("mpp_source", None)),
    "half a character in metadata": Case("cells → report", _stated("model", {"name": "\ud800"})),
    "a slide of 10⁹ pixels a side": Case("cells → convert", _stated("size", [10**9, 10**9])),
    "damaged pages of a table": Case("cells → measure", _page),
    "a store whose grid is text": Case("store → segment", _attributes(lambda about: about.update(grid="x"))),
    "a store whose grid lacks numbers": Case("store → segment", _attributes(lambda about: about["grid"].clear())),
    "a key of Zarr's own misspelt": Case("store → segment", _grid_key),
    "a shard cut short": Case("store → segment", _shard),
    "a model's card of another type": Case("model → segment", _card("backbone", {"widths": "x"})),
    "a model's card whose rules are a list": Case("model → models show", _card("rules", [1])),
    "a model's card whose resolution is text": Case("model → models show", _card("mpp", "x")),
    "weights that are no numbers": Case("model → segment", _not_finite),
    "changed weights": Case("model → segment", _weight),
    "measurements as a list": Case("geojson → measure", _features("cells.geojson", _listed), strict=False),
    "cells outside their slide": Case("geojson → measure", _features("cells.geojson", _away)),
    "a classifier's colour of lists": Case("classifier → classify", _colour),
    "tissue that crosses itself 3,000 times": Case("tissue → segment", _features("tissue.geojson", _star(3000))),
    "tissue of something else": Case("tissue → segment", _text("tissue.geojson", '{"features": [{"geometry": 1}]}')),
    "a key of 50,000 parts": Case("settings → convert", _text("run.toml", ".".join(["a"] * 50_000) + " = 1\n")),
    "a weight that is text": Case("settings → fit", _text("run.toml", "[[datasets]]\npath = 'set'\nweight = ''\n")),
    "an organ of 100,000 letters": Case(
        "sheet → build-corpus", _text("sheet.csv", f"path,organ\nslide.tiff,{'a.' * 50_000}\n"), strict=False
    ),
    "a table of a header alone": Case("sheet → segment", _text("sheet.csv", "path,mpp\n")),
    "results beside the folder": Case("sheet → segment", _text("sheet.csv", "path,name\nslide.tiff,.\n")),
    "a table whose slide is the root": Case("sheet → segment", _text("sheet.csv", "path\n/\n")),
    "a table whose slide is the root, for a corpus": Case("sheet → build-corpus", _text("sheet.csv", "path\n/\n")),
    "a table with a zero byte": Case("sheet → build-corpus", _text("sheet.csv", "path\nslide\0.tiff\n")),
    "a table with a quote that never ends": Case("sheet → segment", _text("sheet.csv", 'path,mpp\n"slide.tiff,0.5\n')),
    "a slide cut short": Case("svs → info", _cut("slide.svs", 0.9)),
    "an overview that cannot be read": Case("svs → segment", _small_level),
    "pixels that cannot be read, in features": Case("jpeg → features", _all_levels("slide.tiff")),
    "pixels that cannot be read, in a map of quality": Case("jpeg → quality", _all_levels("slide.tiff")),
    "a tile of 2⁶² bytes": Case("svs → segment", _endless_tile),
    "a slide that claims 200 m": Case("folder → segment", _high(438_116_125), strict=False),
    "a slide that claims 1 m": Case("folder → segment", _high(2_097_352), strict=False),
    "a DICOM slide cut short": Case("dicom → quality", _cut("slide.dcm/level.dcm", 0.5)),
    "a slide in a bucket": Case("svs → info", lambda folder: "s3://bucket/slide.svs"),
    "a slide on a web server": Case("svs → info", lambda folder: "https://host.invalid/slide.svs"),
    "a corpus cut short": Case("corpus → visualize", _cut("corpus.zarr/table/slide/c/0", 0.5)),
    "regions that are none": Case("regions → score", _text("regions.geojson", "{")),
    "a pipe among the slides": Case("folder → segment", _pipe, strict=False),
    "a folder that leads back to itself": Case("folder → segment", _loop),
    "an empty folder in place of a slide": Case("folder → segment", _empty_folder),
    "a name that is not UTF-8": Case("folder → segment", _odd_name, strict=False),
    "a slide that is none among others": Case("folder → segment", _text("slides/a.tiff", "no slide"), strict=False),
}  # fmt: skip
"""By what they are."""
