"""The scripts and manifests for workstations, SLURM and Kubernetes: they parse, and call commands that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.conftest import ROOT
from wsipipe.cli.segment import segment

WORKFLOWS = ROOT / "workflows"
SCRIPTS = sorted([*WORKFLOWS.glob("workstation/*.sh"), *WORKFLOWS.glob("slurm/*.sbatch")])
MANIFESTS = sorted(WORKFLOWS.glob("kubernetes/*.yaml"))


def arguments(words: list[str]) -> dict[str, Any]:
    """Return what `wsipipe segment` understands of a command line."""
    assert words[0] == "segment"
    return segment.make_context("segment", list(words[1:])).params


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_run(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr
    assert os.access(path, os.X_OK) and path.read_text().startswith("#!/usr/bin/env bash\n")


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.suffix == ".sbatch"], ids=lambda path: path.name)
def test_directives_come_before_commands(path: Path) -> None:
    lines = path.read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[:last])


@pytest.fixture
def call(tmp_path: Path):
    """Return a function that runs a script with a `wsipipe` that only says how it was called."""
    spy = tmp_path / "bin"
    spy.mkdir()
    for name, text in (("wsipipe", 'printf "%s\\n" "$@"'), ("nvidia-smi", 'printf "GPU %s\\n" ${GPUS:-}')):
        (spy / name).write_text(f"#!/bin/sh\n{text}\n")
        (spy / name).chmod(0o755)

    def run(script: str, *words: str, **environment: str) -> list[str]:
        variables = {"PATH": f"{spy}:{os.environ['PATH']}", **environment}
        done = subprocess.run(
            [WORKFLOWS / script, *words], env=variables, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        return done.stdout.splitlines()

    return run


def test_a_workstation_uses_the_gpus_that_it_has(call) -> None:
    one = arguments(call("workstation/segment.sh", "my slides", "out", "--dry-run", GPUS="0"))
    assert one["slides"] == ("my slides",) and one["outputs"] == ("out/",) and one["devices"] is None and one["dry_run"]
    two = arguments(call("workstation/segment.sh", "slides", "out", GPUS="0 1", STAGE="/fast"))
    assert two["devices"] == "cuda:0,cuda:1" and two["stage"] == "/fast"


def test_jobs_of_an_array(call) -> None:
    cpu = arguments(call("slurm/array.sbatch", "cohort.csv", "out", SLURM_CPUS_PER_TASK="6"))
    assert cpu["workers"] == 6 and cpu["device"] is None
    gpu = arguments(call("slurm/array.sbatch", "s", "out", "--wait", CUDA_VISIBLE_DEVICES="3", SLURM_TMPDIR="/local"))
    assert gpu["device"] == "cuda" and gpu["stage"] == "/local" and gpu["wait"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    jobs = [d for d in documents if d["kind"] == "Job"]
    assert all({"apiVersion", "kind", "metadata", "spec"} <= set(d) for d in documents) and len(jobs) == 1
    pod = jobs[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    params = arguments(container["args"])
    mounted = tuple(mount["mountPath"] for mount in container["volumeMounts"])
    assert all(name.startswith(mounted) for name in (*params["slides"], *params["outputs"]))
    assert {m["name"] for m in container["volumeMounts"]} <= {v["name"] for v in pod["volumes"]}
    for cluster in (d for d in documents if d["kind"] == "DaskCluster"):
        port = cluster["spec"]["scheduler"]["service"]["ports"][0]["port"]
        assert params["scheduler"] == f"tcp://{cluster['metadata']['name']}-scheduler:{port}"


def test_marked_workers_are_those_that_the_scheduler_looks_for() -> None:
    text = "".join(path.read_text() for path in (*MANIFESTS, *SCRIPTS, *WORKFLOWS.glob("slurm/README.md")))
    marks = re.findall(r"--resources\W+(\w+)=1\b", text)
    assert set(marks) == {"predict", "cells"} and len(marks) == 5


def test_commands_in_the_texts_exist() -> None:
    texts = [*WORKFLOWS.glob("*/README.md"), ROOT / "docs" / "batch.md"]
    lines = [line for path in texts for line in path.read_text().splitlines() if line.startswith("$ wsipipe segment")]
    assert len(lines) >= 6
    for line in lines:
        arguments(shlex.split(line, comments=True)[2:])


def test_an_unknown_option_would_be_seen() -> None:
    with pytest.raises(click.UsageError):
        arguments(["segment", "slides", "-o", "out/", "--no-such-option"])


def test_python_for_dask_workers_runs_here() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dask", "worker", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "--resources" in done.stdout and "--scheduler-file" in done.stdout
