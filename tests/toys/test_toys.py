"""A further reader, head, format and metric: each one file, and one line in its registry; all in use.

(A further backbone is in ``tests/models/test_backbones.py``.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.conftest import Phantom
from tests.toys.format import read_toy
from tests.toys.metric import found_per_true
from wsipipe.cli.main import main
from wsipipe.evaluate.metrics import METRICS, Metric
from wsipipe.formats.exports import FORMATS, Format
from wsipipe.formats.parquet import read_cells
from wsipipe.labels import DatasetSpec
from wsipipe.models.checkpoint import read_card
from wsipipe.pipelines.fit import FitJob, run_fit
from wsipipe.schedule.progress import Progress
from wsipipe.settings import BACKENDS, HEADS, Backend, FitSettings, HeadKind, LoopSettings


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the lines: what stands here would stand in each registry's file."""
    monkeypatch.setitem(BACKENDS, "toy", Backend("tests.toys.reader:ToyReader", ("numpy",)))
    monkeypatch.setitem(HEADS, "toy", HeadKind("tests.toys.head:ToyHead"))
    monkeypatch.setitem(FORMATS, "toy", Format("toy", (".toy",), "tests.toys.format:write_toy"))
    monkeypatch.setitem(METRICS, "toy", Metric("found for each true nucleus", found_per_true))


BOX = 400, 400, 720, 656


@pytest.fixture
def slide(phantom: Phantom, tmp_path: Path) -> Path:
    path = tmp_path / "slide.array"
    with path.open("wb") as file:
        np.save(file, phantom.truth.picture(BOX))
    return path


@pytest.fixture
def annotated(phantom: Phantom, tmp_path: Path) -> Path:
    pictures = {"images": phantom.truth.picture(BOX), "labels": phantom.truth.instance_map(BOX).astype(np.uint16)}
    for kind, array in pictures.items():
        (tmp_path / "set" / kind).mkdir(parents=True)
        Image.fromarray(array).save(tmp_path / "set" / kind / "one.png")
    return tmp_path / "set"


def test_nothing_is_known_of_them_without_their_lines(slide: Path, tmp_path: Path, tiny_model: Path) -> None:
    assert main(["info", str(slide)]) == 3
    assert main(["segment", str(slide), "-o", str(tmp_path / "cells.toy"), "--model", str(tiny_model)]) == 6


def test_a_reader_and_a_format(
    registries: None, slide: Path, tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(slide)]) == 0
    assert "toys" in capfd.readouterr().out
    cells, out, again = (tmp_path / name for name in ("cells.parquet", "cells.toy", "again.toy"))
    assert main(["segment", str(slide), "-o", str(cells), "-o", str(out), "--model", str(tiny_model)]) == 0
    assert main(["convert", str(cells), "-o", str(again)]) == 0
    found = read_cells(cells)
    assert len(found) > 0 and out.read_bytes() == again.read_bytes()
    assert np.allclose(read_toy(out), found[["x", "y"]], atol=0.06)


def test_a_head(registries: None, annotated: Path, slide: Path, tmp_path: Path, tiny_model: Path) -> None:
    loop = LoopSettings(steps=40, warmup=1, lr=0.05)
    settings = FitSettings(head="toy", backbone=str(tiny_model), crop=64, batch=2, loop=loop)
    model = run_fit(FitJob((DatasetSpec(str(annotated), mpp=0.5),), Path(), tmp_path / "fit", settings), Progress())
    card = read_card(model)
    assert card.head is not None and card.head.kind == "toy"
    assert main(["segment", str(slide), "-o", str(tmp_path / "c.parquet"), "--model", str(model)]) == 0
    assert 0 < len(read_cells(tmp_path / "c.parquet")) < 1000


def test_a_metric(registries: None, annotated: Path, tmp_path: Path) -> None:
    truth = tiny.disc_labels(256, (60, 60, 20), (180, 60, 20))
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "one.npy", np.pad(truth, ((0, 0), (0, 64))))
    annotations = len(np.unique(np.array(Image.open(annotated / "labels" / "one.png")))) - 1
    command = ["evaluate", str(annotated), "--mpp", "0.5", "-o", str(tmp_path / "scores")]
    assert main([*command, "--predictions", str(tmp_path / "maps")]) == 0
    assert f"| found for each true nucleus | {2 / annotations:.3f}" in (tmp_path / "scores" / "scores.md").read_text()
    assert f"{2 / annotations:.6f}"[:6] in (tmp_path / "scores" / "images.csv").read_text()
