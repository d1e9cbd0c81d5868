"""The door to a master file: what is damaged or edited is refused in one line, by every command alike."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely

from tests.masters import write_master
from wsipipe.errors import StoreError
from wsipipe.formats.master import SEAL, check_master
from wsipipe.formats.parquet import metadata


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Return a master file of forty cells in four row groups."""
    xy = np.random.default_rng(0).uniform(20, 780, (40, 2))
    return write_master(tmp_path / "cells.parquet", xy, np.arange(40) % 3 - 1)


def rewrite(path: Path, table: pa.Table, **about: Any) -> None:
    """Write *table* in place of the file, with the metadata changed and no digest."""
    old = pq.read_metadata(path).metadata
    changed = {k: v for k, v in (json.loads(old[b"wsipipe"]) | about | {SEAL: "absent"}).items() if v != "absent"}
    text = json.dumps(changed)
    pq.write_table(table.replace_schema_metadata({b"geo": old[b"geo"], b"wsipipe": text.encode()}), path)


def test_what_was_written_passes_and_is_read_once(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(cells)  # another process wrote it
    about = metadata(cells)
    assert about["cells"] == 40 and "digest" not in about
    about["size"] = "changed by a caller"
    monkeypatch.setattr("wsipipe.formats.master.check_rows", lambda *args: pytest.fail("read again"))
    assert metadata(cells)["size"] == [1200, 800]


def test_what_this_process_wrote_is_not_read_again_until_it_changes(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr("wsipipe.formats.master.check_rows", lambda table, about, where: looked.append(where))
    assert metadata(cells)["cells"] == 40 and not looked
    cells.rename(tmp_path / "moved.parquet")
    assert metadata(tmp_path / "moved.parquet")["cells"] == 40 and not looked
    copied = shutil.copy2(tmp_path / "moved.parquet", cells)
    assert metadata(copied) == metadata(tmp_path / "moved.parquet") and len(looked) == 4, "a copy is another file"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", [10**9, 10**9]), ("size", [0, 5]), ("size", "x"), ("size", [800.5, 3]), ("size", "absent"),
        ("mpp", [0, 0]), ("mpp", None), ("mpp", [float("nan"), 1]), ("classes", 5),
        ("classes", {"Dead": [1, 2]}), ("classes", {}), ("cells", 41), ("bad_boxes", [[1, 2]]), ("bounds", 3),
        ("fingerprint", None), ("settings", [1]), ("tissue_area_um2", "much"), ("working_mpp", [1]),
        ("settings", {"tissue": {"tissue": 7}}), ("settings", {"tissue": 7}),
        ("mpp_source", "absent"), ("model", {"name": "\ud800"}),
    ],
)  # fmt: skip
def test_metadata_that_lacks_or_misstates_something(cells: Path, key: str, value: Any) -> None:
    rewrite(cells, pq.read_table(cells), **{key: value})
    with pytest.raises(StoreError, match=r"cells\.parquet.*expected"):
        check_master(cells)


def drop(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def put(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = values(table) if callable(values) else values
        return table.set_column(table.schema.get_field_index(name), name, column)

    return change


WKB = {
    "cut": b"\1\3\0\0",
    "point": shapely.to_wkb(shapely.Point(1, 2)),
    "empty": shapely.to_wkb(shapely.Polygon()),
    "far": shapely.to_wkb(shapely.box(0, 0, 1e12, 1e12)),
    "nan": shapely.to_wkb(shapely.box(0, 0, 7, 7)).replace(struct.pack("<d", 7), struct.pack("<d", float("nan")), 1),
    "counts": b"\1\3\0\0\0\xff\xff\xff\x7f",
}
CHANGES = {
    **{f"no {name}": drop(name) for name in ("cell_id", "geometry", "x", "class", "area_um2", "bbox", "probability")},
    **{f"outline {name}": put("geometry", pa.array([wkb] * 40, pa.binary())) for name, wkb in WKB.items()},
    "x is text": put("x", lambda table: table["x"].cast(pa.string())),
    "area in 64 bits": put("area_um2", lambda table: table["area_um2"].cast(pa.float64())),
    "y is nan": put("y", pa.array([float("nan")] * 40)),
    "y is null": put("y", pa.nulls(40, pa.float64())),
    "other class": put("class", pa.array(["Martian"] * 40)),
    "no identity": put("cell_id", pa.nulls(40, pa.string())),
    "moved": put("bbox", lambda table: pc.take(table["bbox"], pa.array(range(39, -1, -1)))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_columns_that_lack_or_misstate_something(cells: Path, name: str) -> None:
    rewrite(cells, CHANGES[name](pq.read_table(cells)))
    with pytest.raises(StoreError, match=r"cells\.parquet"):
        check_master(cells)


@pytest.mark.parametrize("seed", range(24))
def test_a_flipped_byte_is_seen(cells: Path, seed: int) -> None:
    raw = bytearray(cells.read_bytes())
    place = int(np.random.default_rng(seed).integers(len(raw) * seed // 24, len(raw)))
    raw[place] ^= 1 << seed % 8
    cells.write_bytes(raw)
    with pytest.raises(StoreError):
        check_master(cells)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\0" * 4096, b"[" * 100_000])
def test_what_is_no_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.parquet").write_bytes(content)
    with pytest.raises(StoreError, match="is not a cells file, or it is damaged"):
        check_master(tmp_path / "c.parquet")
    with pytest.raises(StoreError, match="is not a cells file"):
        check_master(tmp_path / "gone.parquet")


def test_metadata_nested_without_end(cells: Path) -> None:
    table = pq.read_table(cells).replace_schema_metadata({b"wsipipe": b"[" * 100_000})
    pq.write_table(table, cells)
    with pytest.raises(StoreError, match="no JSON"):
        check_master(cells)
