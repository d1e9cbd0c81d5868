"""A further format: a line of text for each cell, its centroid in base pixels."""

from __future__ import annotations

from pathlib import Path

from wsipipe.artifacts import atomic_write
from wsipipe.formats.parquet import read_cells


def write_toy(master: Path, out: Path) -> list[Path]:
    cells = read_cells(master)
    with atomic_write(out, "w") as file:
        file.writelines(f"{x:.1f} {y:.1f}\n" for x, y in zip(cells["x"], cells["y"], strict=True))
    return [out]


def read_toy(path: Path) -> list[tuple[float, ...]]:
    return [tuple(map(float, line.split())) for line in path.read_text().splitlines()]
