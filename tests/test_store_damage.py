"""A damaged tile store is refused in one line; what is not refused reads as before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.test_store import picture, plan_of, raster_of
from wsipipe.errors import StoreError
from wsipipe.settings import StoreSettings
from wsipipe.store import open_store, write_store


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_a_damaged_store_is_refused_or_reads_as_before(tmp_path: Path, codec: str, seed: int) -> None:
    raster = raster_of(picture())
    plan = plan_of(raster, StoreSettings(shard=1024, reach_um=20, codec=codec))
    write_store(raster, plan, tmp_path / "s.zarr")
    whole = open_store(tmp_path / "s.zarr")
    box = (0, 0, *whole.raster.grid.size)
    pixels, about = whole.raster.read(box), whole.raster.about
    rng = np.random.default_rng(seed)
    files = sorted(path for path in (tmp_path / "s.zarr").rglob("*") if path.is_file() and path.stat().st_size)
    damaged = files[seed % len(files)]
    raw = bytearray(damaged.read_bytes())
    if seed % 3:
        raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
    else:
        del raw[len(raw) // 2 :]
    damaged.write_bytes(raw)
    try:
        found = open_store(tmp_path / "s.zarr").raster
        same = np.array_equal(found.read(box), pixels)
    except StoreError as error:
        assert "s.zarr" in str(error)
    else:
        assert same and found.about == about


@pytest.mark.parametrize(
    ("name", "value"),
    [("grid", 5), ("slide", {}), ("fingerprint", None), ("overlap", -3), ("complete", "yes"), ("shard_files", "many"),
     ("bad", [[1]]), ("bad", 7), ("tissue", []), ("schema", None), ("identity", 3)],
)  # fmt: skip
def test_attributes_that_were_changed(tmp_path: Path, name: str, value: object) -> None:
    raster = raster_of(picture())
    write_store(raster, plan_of(raster), tmp_path / "s.zarr")
    file = tmp_path / "s.zarr" / "zarr.json"
    content = json.loads(file.read_text())
    content["attributes"]["wsipipe"][name] = value
    file.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"s\.zarr"):
        open_store(tmp_path / "s.zarr")
