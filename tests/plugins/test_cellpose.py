"""Cellpose's functions take what the adapter gives them. Its network is not run: that needs gigabytes of weights."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from wsipipe.plugins import cellpose as adapter


@pytest.fixture(scope="module")
def methods() -> dict[str, ast.FunctionDef]:
    """Return the methods of the installed library's model, read without running it."""
    spec = importlib.util.find_spec("cellpose")
    if spec is None or spec.origin is None:
        pytest.skip("cellpose is not installed: make test-extras")
    tree = ast.parse(Path(spec.origin).with_name("models.py").read_text(encoding="utf-8"))
    (model,) = (one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == "CellposeModel")
    return {one.name: one for one in model.body if isinstance(one, ast.FunctionDef)}


def takes(method: ast.FunctionDef) -> set[str]:
    return {one.arg for one in [*method.args.args, *method.args.kwonlyargs]}


def given(name: str) -> set[str]:
    """Return the arguments that the adapter's own text gives by name to what is called *name*."""
    tree = ast.parse(Path(adapter.__file__).read_text(encoding="utf-8"))
    calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call)]
    (call,) = (one for one in calls if ast.unparse(one.func).endswith(name))
    return {one.arg for one in call.keywords if one.arg}


def test_its_methods_take_what_they_are_given(methods: dict[str, ast.FunctionDef]) -> None:
    assert given("CellposeModel") and given("CellposeModel") <= takes(methods["__init__"])
    assert given("model.eval") | set(adapter.OPTIONS) <= takes(methods["eval"])
    returned = [
        ast.unparse(one.value) for one in ast.walk(methods["eval"]) if isinstance(one, ast.Return) and one.value
    ]
    assert any("masks" in one and "cellprob]" in one for one in returned), "the third of the flows is the probability"
