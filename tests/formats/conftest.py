"""Made-up cells for the tests of file formats."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely

from wsipipe.cells.measure import MEASURES
from wsipipe.formats import parquet

FINGERPRINT = "0123abcd"
CLASSES = ("Neoplastic", "Inflammatory")
SCALE = 2.0


@pytest.fixture
def about() -> dict[str, Any]:
    """Metadata of a slide of 40,000 × 30,000 px."""
    return {
        "fingerprint": FINGERPRINT,
        "size": [40_000, 30_000],
        "bounds": None,
        "mpp": [0.25, 0.25],
        "mpp_source": "vendor property",
        "tissue_area_um2": 2e6,
        "classes": {"Neoplastic": [200, 0, 0], "Inflammatory": None},
        "bad_boxes": [[100, 200, 300, 400]],
    }


@pytest.fixture
def make_table() -> Callable[..., pa.Table]:
    """Return a function (n, seed, classes, nuclei) that makes a table of n cells."""
    return _table


def _table(n: int = 200, seed: int = 0, classes: tuple[str, ...] = CLASSES, nuclei: bool = False) -> pa.Table:
    rng = np.random.default_rng(seed)
    cx, cy = rng.choice(10_000, n, replace=False), rng.integers(0, 10_000, n)
    found = SimpleNamespace(
        sums=np.stack([np.full(n, 9), cx * 9, cy * 9], axis=1),
        probability=rng.random(n, np.float32),
        type=rng.integers(-1, len(classes), n).astype(np.int16),
        type_probability=rng.random(n, np.float32),
        type_means=rng.random((n, len(classes)), np.float32),
        oversize=rng.random(n) < 0.05,
    )
    outer, inner = (_discs(cx * SCALE, cy * SCALE, radius, rng) for radius in (9, 5))
    measures = {name: rng.random(n) * 100 for name in MEASURES}
    measures |= {"x": (cx + 0.5) * SCALE, "y": (cy + 0.5) * SCALE}
    measures["solidity"][: n // 50] = np.nan
    return parquet.cells_table(
        found, outer, measures, fingerprint=FINGERPRINT, classes=classes, nuclei=inner if nuclei else None
    )


def _discs(x: Any, y: Any, radius: float, rng: np.random.Generator) -> Any:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    far = radius * rng.uniform(0.8, 1.2, (len(x), 12))
    ring = np.stack([x[:, None] + far * np.cos(angle), y[:, None] + far * np.sin(angle)], axis=-1)
    return shapely.polygons(np.round(ring, 2))


@pytest.fixture
def master(tmp_path: Path, about: dict[str, Any]) -> Callable[..., Path]:
    """Return a function (table, **metadata) that writes a master file and returns its path."""

    def write(table: pa.Table, **more: Any) -> Path:
        parquet.write_part(table, tmp_path / "part.arrow")
        parquet.merge_parts([tmp_path / "part.arrow"], tmp_path / "cells.parquet", about | more)
        return tmp_path / "cells.parquet"

    return write


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("may not mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
