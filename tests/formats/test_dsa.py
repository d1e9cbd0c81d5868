"""Annotations by the Digital Slide Archive's rules."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest
import shapely

from wsipipe.formats.dsa import write_dsa
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.settings import ExportSettings

Make = Callable[..., pa.Table]
Master = Callable[..., Path]
SCHEMA = jsonschema.Draft202012Validator(json.loads((Path(__file__).parent / "dsa.schema.json").read_text()))


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def _load(path: Path) -> dict[str, Any]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    document: dict[str, Any] = json.loads(raw, parse_constant=_refuse)
    SCHEMA.validate(document)
    return document


@pytest.mark.parametrize("classes", [(), ("Neoplastic", "Inflammatory")])
@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("n", [0, 60])
def test_follows_the_schema(
    make_table: Make, master: Master, tmp_path: Path, classes: tuple[str, ...], points: bool, n: int
) -> None:
    path = master(make_table(n, classes=classes, nuclei=True))
    write_dsa(path, tmp_path / "a.json.gz", ExportSettings(points=points))
    assert len(_load(tmp_path / "a.json.gz")["elements"]) == n


def test_elements_say_what_the_master_says(make_table: Make, master: Master, tmp_path: Path) -> None:
    path = master(make_table(80), bounds=(100, 200, 30_000, 20_000))
    write_dsa(path, tmp_path / "my cells.json")
    document, cells, colours = _load(tmp_path / "my cells.json"), read_cells(path), metadata(path)["classes"]
    assert document["name"] == "my cells"
    for element, (_, row) in zip(document["elements"], cells.iterrows(), strict=True):
        points = np.array(element["points"])
        assert element["closed"] and (points[:, 2] == 0).all() and not np.array_equal(points[0], points[-1])
        assert shapely.equals_exact(shapely.Polygon(points[:, :2]), row["geometry"], 1e-9)  # of the whole slide
        assert element["user"]["cell_id"] == row["cell_id"]
        assert element["user"]["area_um2"] == pytest.approx(row["area_um2"], abs=6e-5)
        if isinstance(row["class"], str):
            assert element["group"] == element["label"]["value"] == row["class"]
            assert element["lineColor"] == "rgb({},{},{})".format(*colours[row["class"]])
    assert [e["user"]["solidity"] for e in document["elements"]].count(None) == 1  # not a number
