"""The package stays readable: short files, short functions."""

from __future__ import annotations

import ast
import dataclasses
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from grimp import build_graph

from tests.conftest import ROOT
from wsipipe import settings
from wsipipe.cli.main import COMMANDS

PACKAGE = Path(__file__).resolve().parents[1] / "wsipipe"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_NAMES = 300, 80, 30
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
UNIT = re.compile(r"(?<![\w.*`'\"-])um(²|2|/px)?(?![\w*`'\"(=:-])|\u03bc")
"""Micrometres written otherwise than µm, or with the Greek letter, which searches tell from the sign."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_lengths(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MAX_FUNCTION, f"{node.name} at line {node.lineno}"


STORIES = [path for path in (PACKAGE / "pipelines").glob("*.py") if path.name != "__init__.py"]
MAX_STORY = 200


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_story_fits_on_one_screen_and_names_its_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_STORY
    told = re.match(r"The story of `+wsipipe ([a-z-]+)", ast.get_docstring(ast.parse(text)) or "")
    assert told and told[1] in COMMANDS, "a module of pipelines/ tells the story of a command; other code has its room"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_micrometres_are_written_in_one_way(path: Path) -> None:
    """In messages, help and docstrings."""
    constants = [node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Constant) and isinstance(node.value, str)]  # fmt: skip
    assert [text for text in constants if " " in text and UNIT.search(text)] == []


def test_units_of_settings_are_written_in_one_way() -> None:
    classes = [cls for cls in vars(settings).values() if dataclasses.is_dataclass(cls)]
    units = {field.metadata.get("unit", "") for cls in classes for field in dataclasses.fields(cls)}
    assert {"µm", "µm²", "µm/px"} <= units and not any(re.search("um|m2|\u03bc", unit) for unit in units)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_micrometres_are_written_in_one_way_in_documents(path: Path) -> None:
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if UNIT.search(line)] == []


def test_no_module_needs_one_that_needs_it() -> None:
    """Neither when it runs nor for type checking, neither between packages nor inside one."""
    graph = build_graph("wsipipe", exclude_type_checking_imports=False, cache_dir=None)
    needs = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    assert len(needs) > 300 and needs["wsipipe"]  # whose names are loaded on first use, but are known to type checkers
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_the_top_of_the_package_is_one_page() -> None:
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert len({name for name in names if not name.startswith("_")}) <= MAX_NAMES
