"""The tutorials run as they stand.

``bash`` and ``python`` blocks are run, in one new folder per page; what a ``text`` block after one shows must be in its
output. A block of another language with a title is a file of that name. Blocks in HTML comments are treated alike, and
not shown. A ``bash`` block with a title cannot run here: the options of its ``wsipipe`` commands are checked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.reading import DOCS, Block, agrees, blocks, missing

TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
LONG = {"train"}
"""What takes more than half a minute of CPU; qupath fits and scores a model, too."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which ``wsipipe`` and ``python`` are those of this checkout."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, command in {"wsipipe": f'"{sys.executable}" -m wsipipe', "python": f'"{sys.executable}"'}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "HOME": str(tmp_path)}
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **threads, "PATH": path, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(
    "page", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in LONG)) for p in TUTORIALS]
)
def test_a_tutorial_runs(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    folder, output = tmp_path / "here", None
    folder.mkdir()
    for block in blocks(page):
        if block.language == "text":
            assert output is not None, f"{block.text!r} follows nothing that ran"
            lacking = missing(block.text, output)
            assert lacking is None, f"{lacking!r} is not in\n{output}"
        elif block.language not in ("bash", "python"):
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif not block.title:
            output = run(block, folder, environment)


def run(block: Block, folder: Path, environment: dict[str, str]) -> str:
    """Run a block and return what it printed."""
    shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    done = subprocess.run(
        [*shell, block.text], cwd=folder, env=environment, timeout=600, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{block.text}\n{done.stdout}"
    return done.stdout


def test_every_page_has_a_test_and_checks_what_it_writes() -> None:
    assert {page.stem for page in TUTORIALS} == {"segment", "batch", "qupath", "regions", "ki67", "train", "slurm"}
    for page in TUTORIALS:
        assert any(block.language == "bash" and not block.title for block in blocks(page)), page
        assert any(block.language == "text" for block in blocks(page)), page


@pytest.mark.parametrize(
    ("wanted", "line", "agreeing"),
    [
        ("109 cells in 0.06 mm²", "109 cells in 0.061 mm² of tissue", True),
        ("109 cells in … mm²: …", "  120 cells in 0.2 mm²: many", True),
        ("109 cells", "200 cells", False),
        ("109 cells", "0 cells", False),
        ("1,000 cells", "1100 cells", True),
        ("wrote a.csv", "wrote b.csv", False),
        ("a   1", "a 1", True),
        ("1,200–1,800 cells in 0.06 mm²", "1,790 cells in 0.061 mm²", True),
        ("120–180 cells", "181 cells", False),
        ("120–180 cells", "120–180 cells", False),
    ],
)
def test_how_output_is_compared(wanted: str, line: str, agreeing: bool) -> None:
    assert agrees(wanted, line) is agreeing
