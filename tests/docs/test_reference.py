"""The generated reference has every command, option, setting and public name."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import sys
from types import ModuleType

import click
import pytest

import wsipipe
from tests.conftest import ROOT
from tests.docs.reading import DOCS
from wsipipe import errors
from wsipipe.cli.options import SECTIONS
from wsipipe.models.zoo import card_text, shipped


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_option_of_every_command(hooks: ModuleType) -> None:
    page = hooks.cli_page()
    sections = page.split("\n## wsipipe ")
    for name, command in hooks.commands():
        (section,) = [s for s in sections if s.split("\n")[0] == name.split()[0]]
        for param in command.params:
            if isinstance(param, click.Option):
                assert all(f"`{flag}`" in section for flag in param.opts), (name, param.name)


def test_a_row_says_default_range_and_unit(hooks: ModuleType) -> None:
    page = hooks.cli_page()
    assert "| `--tissue-mpp` `NUMBER` | `8` | 1 to 64 µm/px | Resolution at which tissue is looked for. |" in page
    assert "| `--precision` | `auto` | `auto`, `fp32`, `bf16` |" in page
    assert "| `-o`, `--output` `OUT` | required |" in page


def test_examples_keep_their_layout(hooks: ModuleType) -> None:
    assert "**Examples:**\n\n```text\nwsipipe convert cells.parquet -o cells.zarr\n" in hooks.cli_page()


def test_every_setting(hooks: ModuleType) -> None:
    page = hooks.settings_page()
    for name, cls in SECTIONS.items():
        section = page.split(f"\n## [{name}] ")[1].split("\n## ")[0]
        for field in dataclasses.fields(cls):
            if "help" in field.metadata:
                assert f"| `{field.name}` |" in section
    assert "| `workers` | whole number | `1` | 1 to 1024 | no |" in page


def test_public_names_exist_and_are_there(hooks: ModuleType) -> None:
    page = hooks.python_page()
    for names in hooks.PYTHON.values():
        for name in names:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name
    for name, home in wsipipe._HOME.items():
        assert name in page or home == "wsipipe.settings", name
    for name, value in vars(errors).items():
        if isinstance(value, type):
            assert f"| `{name}` |" in page


def test_what_the_stages_need_is_there(hooks: ModuleType) -> None:
    """What the example of the stages imports, and a function for each command that writes results."""
    named = {name.rpartition(".")[2] for names in hooks.PYTHON.values() for name in names}
    tree = ast.parse((ROOT / "examples/stage_by_stage.py").read_text(encoding="utf-8"))
    used = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("wsipipe")
        for alias in node.names
    }
    assert used - named <= {name for name in used if name.endswith("Settings")} | {"write_phantom"}
    commands = {"segment", "measure", "convert", "classify", "score", "summarise", "tma", "quality", "report"}
    commands |= {"features", "build_corpus", "pretrain", "fit", "evaluate", "visualize"}
    assert {f"run_{name}" for name in commands} <= named


def test_cards_are_those_that_the_program_shows(hooks: ModuleType) -> None:
    page = hooks.models_page()
    for name in shipped():
        card = card_text(name)
        assert card is not None
        for line in card.splitlines()[1:]:
            assert line.startswith("#") or line in page
        assert "| SHA-256 |" in page


def test_the_reference_needs_no_mkdocs() -> None:
    assert "mkdocs" not in sys.modules
