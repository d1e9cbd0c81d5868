"""The layouts that docs/outputs.md, docs/store.md and docs/corpus.md describe are those of files really written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from tests.docs.reading import DOCS
from wsipipe.cli.main import main
from wsipipe.formats.master import SEAL
from wsipipe.formats.parquet import metadata

TYPES = {
    "string": "string",
    "WKB polygon": "binary",
    "float64": "double",
    "float32": "float",
    "bool": "bool",
    "struct of float32": "struct<xmin: float, ymin: float, xmax: float, ymax: float>",
}
"""Names of types in the documentation, and Arrow's."""


def rows(page: str, heading: str, columns: str) -> dict[str, str]:
    """Return the first column → the second of the table under *heading* whose head begins with *columns*."""
    text = (DOCS / page).read_text(encoding="utf-8")
    text = text[text.index(f"## {heading}") :]
    lines = iter(text[text.index(f"| {columns} |") :].splitlines()[2:])
    found: dict[str, str] = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1])
    return found


@pytest.fixture(scope="module")
def written(small_slide: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write cells, a store and a corpus of a small slide; return their folder."""
    folder = tmp_path_factory.mktemp("schemas")
    model, cells = ["--model", str(tiny_model), "--device", "cpu"], str(folder / "cells.parquet")
    assert main(["segment", str(small_slide), "-o", cells, "--expand-um", "2", "--tissue", "none", *model]) == 0
    assert main(["tile", str(small_slide), "-o", str(folder / "slide.zarr"), "--target-mpp", "0.5"]) == 0
    corpus = ["-o", str(folder / "corpus.zarr"), "--patch", "128", "--val", "0", "--min-focus", "0", "--threads", "1"]
    assert main(["build-corpus", str(small_slide), *corpus]) == 0
    return folder


def test_columns_of_the_parquet_file(written: Path) -> None:
    schema = pq.read_schema(written / "cells.parquet")
    said = rows("outputs.md", "GeoParquet: the master file", "column")
    assert set(said) - set(schema.names) == {"class_probability", "probability_NAME"}, (
        "the model of this test tells no classes"
    )
    assert set(schema.names) <= set(said)
    for name in schema.names:
        kind = str(schema.field(name).type).replace(" not null", "")
        assert kind.removeprefix("large_") == TYPES[said[name]], name


def test_metadata_of_the_parquet_file(written: Path) -> None:
    whole = json.loads(pq.read_metadata(written / "cells.parquet").metadata[b"wsipipe"])
    stored = metadata(written / "cells.parquet") | {SEAL: whole[SEAL]}
    said = rows("outputs.md", "GeoParquet: the master file", "key")
    assert len(said) >= 12 and set(said) <= set(stored)


def test_arrays_and_attributes_of_the_store(written: Path) -> None:
    group = zarr.open_group(written / "slide.zarr", mode="r")
    said = rows("store.md", "Layout", "path")
    assert {name for name in said if name != "zarr.json"} == set(group.array_keys())
    for name, array in group.arrays():
        assert said[name].split()[0] == array.dtype.name, name
    about: dict[str, Any] = dict(group.attrs)["wsipipe"]
    assert set(rows("store.md", "Attributes", "key")) == set(about)


def test_arrays_of_the_corpus(written: Path) -> None:
    group = zarr.open_group(written / "corpus.zarr", mode="r")
    text = (DOCS / "corpus.md").read_text(encoding="utf-8")
    table = rows("corpus.md", "What comes out", "path")
    assert {name.rstrip("/") for name in table if not name.startswith("features")} >= {"patches", "table", "slides"}
    assert np.asarray(group["patches"][:1]).dtype == np.uint8
    lines = {line.split("|")[1].strip(" `/"): line for line in text.splitlines() if line.startswith("| `")}
    for name in ("table", "excluded"):
        found = group[name]
        assert isinstance(found, zarr.Group)
        assert set(re.findall(r"`([a-z_]+)`", lines[name].split("|")[3])) == set(found.array_keys()), name
