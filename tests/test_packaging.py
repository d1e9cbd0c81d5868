"""pyproject.toml, constraints.txt and environment.yml say the same, as does what is installed; the wheel is whole."""

from __future__ import annotations

import email
import importlib.metadata as metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from wsipipe import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TESTED = ("browser", "dev", "dicom", "docs", "view")
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


def test_citation_has_what_the_format_demands() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= set(citation)
    for one in (citation, *citation["references"]):
        assert one["title"] and all("name" in a or {"given-names", "family-names"} <= set(a) for a in one["authors"])
    assert all({"type", "title", "authors"} <= set(reference) for reference in citation["references"])


@pytest.mark.skipif(shutil.which("cffconvert") is None, reason="no cffconvert (pip install cffconvert)")
def test_cffconvert_takes_the_citation() -> None:
    done = subprocess.run(
        ["cffconvert", "--validate", "-i", str(ROOT / "CITATION.cff")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "valid" in done.stdout, done.stdout + done.stderr


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


@dataclass(frozen=True)
class Built:
    """The archives that `make dist` makes, and the names in the wheel."""

    sdist: Path
    wheel: Path
    names: frozenset[str]


def built(source: Path, out: Path, *targets: str) -> None:
    """Build *targets* from *source*, with the hatchling that is installed: nothing is downloaded."""
    kinds = [word for target in targets for word in ("-t", target)]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(out), *kinds], cwd=source, check=True, timeout=300
    )


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("dist")
    built(ROOT, out, "sdist", "wheel")
    (wheel,), (sdist,) = out.glob("wsipipe_pathology-*.whl"), out.glob("wsipipe_pathology-*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        return Built(sdist, wheel, frozenset(archive.namelist()))


def test_the_wheel_holds_the_package_and_nothing_else(dist: Built) -> None:
    source = {p.relative_to(ROOT).as_posix() for p in (ROOT / "wsipipe").rglob("*") if p.is_file()}
    kept = {name for name in source if not name.endswith((".pyc", ".nbi", ".nbc"))}
    assert {name for name in dist.names if not name.startswith("wsipipe_pathology-")} == kept
    assert {"wsipipe/py.typed", "wsipipe/models/weights/cmd-t.safetensors", "wsipipe/models/weights/cmd-t.md"} <= kept
    assert [name for name in kept if name.startswith("wsipipe/view/assets/") and name.endswith(".js")]
    assert [name for name in kept if name.startswith("wsipipe/report/templates/")]
    info = {name.split("/", 1)[1] for name in dist.names - kept}
    assert {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"} == info


def test_the_wheel_says_what_pyproject_says(dist: Built) -> None:
    with zipfile.ZipFile(dist.wheel) as archive:
        (name,) = (name for name in dist.names if name.endswith("METADATA"))
        about = email.message_from_string(archive.read(name).decode())
    assert (about["Name"], about["Version"]) == ("wsipipe-pathology", __version__)
    assert about["Requires-Python"] == PROJECT["requires-python"]
    wanted = {Requirement(line).name for line in PROJECT["dependencies"]}
    stated = [Requirement(line) for line in about.get_all("Requires-Dist")]
    assert {r.name for r in stated if r.marker is None} == wanted
    assert set(about.get_all("Provides-Extra")) == set(EXTRAS)


def test_the_source_archive_gives_the_same_wheel(dist: Built, tmp_path: Path) -> None:
    with tarfile.open(dist.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    built(source, tmp_path / "dist", "wheel")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as again, zipfile.ZipFile(dist.wheel) as first:
        assert {i.filename: i.CRC for i in again.infolist()} == {i.filename: i.CRC for i in first.infolist()}
    for name in ("tests/conftest.py", "docs/index.md", "workflows/slurm/README.md", "constraints.txt", "CITATION.cff"):
        assert (source / name).is_file(), f"{name} is not in the source archive"


def test_the_wheel_works_where_it_is_installed(dist: Built, tmp_path: Path) -> None:
    """Installed into a folder, it runs from there: the checkout is not on the path."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, "--no-compile", str(dist.wheel)], check=True, timeout=300, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-P", "-c", "import wsipipe; print(wsipipe.__file__)").startswith(str(site))
    assert run(str(site / "bin" / "wsipipe"), "--version") == f"wsipipe {__version__}\n"
    models = run(str(site / "bin" / "wsipipe"), "models", "list")
    assert "cmd-t (default)" in models
