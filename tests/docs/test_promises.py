"""Who promises the same bytes says what they depend on."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from tests.conftest import ROOT
from tests.docs.reading import DOCS
from wsipipe.infer.predict import Recipe

PROMISE = re.compile(r"same\s+bytes\s+every\s+time|same\s+slide,\s+model[^.]*bytes")
FILES = [ROOT / "README.md", ROOT / "pyproject.toml", ROOT / "CITATION.cff", *sorted(DOCS.rglob("*.md"))]
FILES += sorted(p for p in (ROOT / "wsipipe").rglob("*") if p.suffix in (".py", ".html"))
PARTS = [(p, part) for p in FILES for part in re.split(r"\n\s*\n", p.read_text(encoding="utf-8"))]
PLACES = [(path, part) for path, part in PARTS if PROMISE.search(part)]


@pytest.mark.parametrize(("path", "part"), PLACES, ids=[p.name for p, _ in PLACES])
def test_a_promise_of_the_same_bytes_names_the_recipe(path: object, part: str) -> None:
    assert re.search("recipe", part), part


def test_one_place_tells_what_a_recipe_is() -> None:
    assert len(PLACES) > 3
    page = (DOCS / "outputs.md").read_text(encoding="utf-8")
    text = page.partition("## What the bytes depend on")[2].partition("\n## ")[0]
    words = {"device": "kind of device", "dtype": "bfloat16", "engine": "engine", "version": "PyTorch"}
    words["batch"] = "tiles of a"
    assert set(words) == {field.name for field in fields(Recipe)}
    for word in (*words.values(), "slide", "model", "settings", "version of wsipipe", "fingerprint"):
        assert word in text, word
