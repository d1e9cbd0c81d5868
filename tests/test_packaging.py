"""pyproject.toml, constraints.txt and environment.yml say the same, as does what is installed; the wheel is whole."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import re
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from wsipipe import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TESTED = ("dev", "dicom", "docs", "view")
"""Extras that belong to the tested set."""

pytestmark = pytest.mark.skipif(not (ROOT / "constraints.txt").exists(), reason="not a source checkout")


def pins(lines: list[str]) -> dict[str, str]:
    """Return name → version of ``name==version`` lines; anything else is an error."""
    found = {}
    for line in lines:
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        assert canonicalize_name(requirement.name) not in found, f"{requirement.name} is pinned twice"
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    text = (ROOT / "constraints.txt").read_text()
    return pins([line for raw in text.splitlines() if (line := raw.split("#")[0].strip())])


@pytest.fixture(scope="module")
def environment() -> list[str | dict[str, list[str]]]:
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert content["name"] == "wsipipe"
    return content["dependencies"]


def direct() -> list[Requirement]:
    """Return what pyproject.toml asks for by name, in the tested set."""
    lines = PROJECT["dependencies"] + [line for extra in TESTED for line in EXTRAS[extra]]
    return [Requirement(line) for line in lines]


def test_every_requirement_is_pinned_within_its_range(constraints: dict[str, str]) -> None:
    for requirement in direct():
        version = constraints.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} and constraints.txt ({version})"


def test_every_requirement_has_a_lower_bound() -> None:
    for requirement in direct():
        assert any(s.operator == ">=" for s in requirement.specifier), requirement


def test_environment_has_the_same_names_and_versions(constraints: dict[str, str], environment: list) -> None:
    (pip,) = [item["pip"] for item in environment if isinstance(item, dict)]
    named = pins([line for line in pip if not line.startswith("-")])
    assert set(named) == {canonicalize_name(r.name) for r in direct()}
    assert named == {name: constraints[name] for name in named}
    assert "-c constraints.txt" in pip


def test_environment_has_the_oldest_python(environment: list) -> None:
    (python,) = [item for item in environment if isinstance(item, str) and item.startswith("python=")]
    assert PROJECT["requires-python"] == f">={python.removeprefix('python=')}"


def test_every_dependency_of_a_dependency_is_pinned(constraints: dict[str, str]) -> None:
    todo, seen = direct(), set()
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        if requirement.name.startswith(("nvidia-", "cuda-", "triton")):  # of torch's CUDA build, which pins them itself
            continue
        assert key[0] in constraints, f"{requirement.name} is not in constraints.txt"
        for line in metadata.requires(requirement.name) or []:
            nested = Requirement(line)
            extras = requirement.extras or {""}
            if nested.marker is None or any(nested.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(nested)


def test_files_name_no_registry_and_no_place_on_a_disk() -> None:
    told = re.compile(r"https?://|file:|--(extra-)?index-url|--find-links|/(home|root|tmp|work|opt)/")
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".ci/run"):
        assert not told.search((ROOT / name).read_text()), name


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert (
        "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
        or f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    )


def test_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text().splitlines()[-1] == "make test"


def test_every_shipped_model_has_a_card() -> None:
    weights = ROOT / "wsipipe" / "models" / "weights"
    for path in weights.glob("*.safetensors"):
        card = path.with_suffix(".md")
        assert card.is_file(), f"{path.name} has no model card {card.name}"
        assert "licen" in card.read_text().lower(), f"{card.name} does not speak of the licence"


@pytest.mark.slow
def test_the_wheel_is_whole_and_works(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, timeout=600)
    (wheel,) = tmp_path.glob("wsipipe-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    source = {p.relative_to(ROOT).as_posix() for p in (ROOT / "wsipipe").rglob("*") if p.is_file()}
    kept = {name for name in source if not name.endswith((".pyc", ".nbi", ".nbc"))}
    assert kept <= names
    assert not [n for n in names if "__pycache__" in n or n.startswith("tests/")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = "import wsipipe; from wsipipe.cli.main import main; print(wsipipe.__file__); main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(str(tmp_path / "site"))
