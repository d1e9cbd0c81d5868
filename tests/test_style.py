"""The package stays readable: short files, short functions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from wsipipe.cli.main import COMMANDS

PACKAGE = Path(__file__).resolve().parents[1] / "wsipipe"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE, MAX_FUNCTION = 300, 80


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
