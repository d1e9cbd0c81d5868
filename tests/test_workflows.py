"""Every run in workflows/ is one that its command takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from wsipipe.cli.datasets import specs_in
from wsipipe.cli.options import SECTIONS, collect, read_config
from wsipipe.evaluate.compare.plan import read_plan
from wsipipe.settings import FitSettings, LoopSettings

WORKFLOWS = ROOT / "workflows"
FILES = sorted(path for path in WORKFLOWS.rglob("*.toml") if path.parent.name != "benchmark")
PLANS = sorted((WORKFLOWS / "benchmark").glob("*.toml"))
OF_FIT = {"fit", "loop", "augment"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(WORKFLOWS).as_posix())
def test_the_settings_are_known_and_in_range(path: Path) -> None:
    config = read_config(path)
    assert config.sections
    for name in config.sections:
        collect(SECTIONS[name], {}, config)
    for spec in specs_in(config):
        assert spec.path and not Path(spec.path).is_absolute()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(WORKFLOWS).as_posix())
def test_what_is_stated_differs_from_the_defaults_or_names_the_run(path: Path) -> None:
    named = {"name", "licence", "head", "backbone", "seed", "size", "steps"}
    for section, values in read_config(path).sections.items():
        plain = SECTIONS[section]()
        same = [key for key, value in values.items() if getattr(plain, key) == value and key not in named | {"score"}]
        assert not same, f"[{section}] {same} are defaults"


@pytest.mark.parametrize("head", ["linear", "light", "sota", "cisca"])
def test_the_head_protocol_is_the_papers(head: str) -> None:
    config = read_config(WORKFLOWS / "head-protocol" / f"{head}.toml")
    settings, loop = collect(FitSettings, {"backbone": "some.safetensors"}, config), collect(LoopSettings, {}, config)
    assert (settings.head, settings.frozen, settings.epochs, settings.crop_px) == (head, True, 150, 256)
    assert (loop.lr, loop.steps) == (1e-3, 0)


@pytest.mark.parametrize("shots", [1, 5, 10])
def test_few_shots(shots: int) -> None:
    config = read_config(WORKFLOWS / "few-shot" / f"shots-{shots}.toml")
    assert collect(FitSettings, {}, config).shots == shots


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plans_are_read_and_every_table_has_one(path: Path) -> None:
    plan = read_plan(path)
    assert plan.criterion and plan.pairs and len(plan.arms) > 1
    assert all(not Path(one.spec.path).is_absolute() for one in plan.sets)
    said = (path.parent / "README.md").read_text(encoding="utf-8")
    assert f"`{path.name}`" in said


@pytest.mark.parametrize("folder", sorted(p.name for p in WORKFLOWS.iterdir() if p.is_dir()))
def test_every_workflow_explains_itself(folder: str) -> None:
    assert (WORKFLOWS / folder / "README.md").is_file()
