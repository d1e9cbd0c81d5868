"""The notebooks run from top to bottom, in a folder of their own; they are kept without outputs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
from pathlib import Path

import pytest

from tests.conftest import ROOT

BOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NEEDED = ("nbclient", "nbformat", "ipykernel", "matplotlib")


def test_they_are_kept_without_outputs() -> None:
    assert {book.stem for book in BOOKS} == {"segment_and_explore", "train_on_few_images", "spatial_statistics"}
    for book in BOOKS:
        content = json.loads(book.read_text(encoding="utf-8"))
        cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
        assert cells and all(not cell["outputs"] and cell["execution_count"] is None for cell in cells), book
        for cell in cells:
            compile("".join(cell["source"]), str(book), "exec")


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_what_a_notebook_imports_is_there(book: Path) -> None:
    """Running them is slow, and skipped without Jupyter; a module that moved is noticed here."""
    content = json.loads(book.read_text(encoding="utf-8"))
    source = "\n".join("".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code")
    names = [
        (node.module, name.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wsipipe")
        for name in node.names
    ]
    assert names
    for module, name in names:
        assert hasattr(importlib.import_module(str(module)), name), f"{module} has no {name}"


@pytest.mark.slow
@pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDED)), reason="not installed: extra notebooks")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_a_notebook_runs(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(book, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1500, kernel_name="python3", resources=where).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    if destination := os.environ.get("WSIPIPE_NOTEBOOKS"):
        nbformat.write(notebook, Path(destination) / book.name)
    shown = {kind for o in outputs if "data" in o for kind in o.data}
    assert "image/png" in shown and "text/html" in shown
