"""The site builds without a warning and loads nothing from elsewhere; links between files lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.reading import DOCS

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")
GENERATED = {"reference/cli.md", "reference/settings.md", "reference/python.md", "models.md"}
OUTSIDE = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("examples/*.md"))]
OUTSIDE += sorted((ROOT / "workflows").rglob("*.md"))


@pytest.mark.parametrize("page", [*OUTSIDE, *sorted(DOCS.rglob("*.md"))], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        target = page.parent / link
        made = target.is_relative_to(DOCS) and os.path.relpath(target, DOCS) in GENERATED
        made = made or os.path.relpath(target, DOCS) in GENERATED
        assert made or target.exists(), link


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed (extra docs)")
def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    for name in pages | {path.removesuffix(".md") for path in GENERATED}:
        folder = tmp_path / "site" / ("" if name == "index" else name)
        assert (folder / "index.html").is_file(), name
    for path in (tmp_path / "site").rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        foreign = re.findall(r"<(?:script|img|iframe)[^>]+src=\"(https?:[^\"]+)", html)
        foreign += re.findall(r"<link[^>]+rel=\"(?:stylesheet|preconnect)\"[^>]+href=\"(https?:[^\"]+)", html)
        assert not foreign, path
