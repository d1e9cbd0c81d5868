"""`wsipipe doctor`: the report, and how it is shown."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from wsipipe.cli import doctor as command
from wsipipe.cli.main import main
from wsipipe.errors import OutputError
from wsipipe.models import machine
from wsipipe.models.machine import Device, hidden_gpus
from wsipipe.pipelines import doctor
from wsipipe.pipelines.doctor import Check, Report, examine, suggest
from wsipipe.slide import BACKENDS

CPU = Device("cpu", "a CPU", 2**34, 2**33, True, "AVX512")
GPU = Device("cuda:0", "a GPU", 2**35, 2**34, True, "compute capability 9.0")


@pytest.fixture(scope="module")
def report() -> Report:
    return examine(Path.cwd())


def test_every_reader_is_tried(report: Report) -> None:
    assert {check.name for check in report.readers} == set(BACKENDS)
    states = {check.name: check.state for check in report.readers}
    assert states["openslide"] == states["tiffslide"] == states["picture"] == "ok", report.readers
    assert "broken" not in states.values()


def test_the_cpu_is_measured(report: Report) -> None:
    cpu = report.devices[0]
    assert cpu.name == "cpu"
    assert "GFLOP/s in fp32" in cpu.detail
    assert 0 < cpu.free <= cpu.memory


def test_a_small_slide_is_segmented_and_compiled_code_is_kept(report: Report) -> None:
    assert report.run.state == "ok" and int(report.run.detail.split()[0]) > 10
    assert list(Path(report.run.detail.rpartition(" kept in ")[2]).glob("text._polygons-*.nbc"))


def test_a_run_that_does_not_work_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(job: object, progress: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(doctor, "run_segment", broken)
    assert doctor._run() == Check("segment", "broken", "the disk is full")


@pytest.mark.parametrize("taken", [False, True])
def test_numba_finds_a_place_where_nothing_can_be_written(tmp_path: Path, taken: bool) -> None:
    """As in a container whose user has no home; a folder that others may write to is left alone."""
    mine = tmp_path / f"wsipipe-{os.getuid()}"
    if taken:
        mine.mkdir()
        mine.chmod(0o777)
    code = "import os; os.access = lambda path, mode: False; import wsipipe; print(os.environ['NUMBA_CACHE_DIR'])"
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found = Path(done.stdout.strip())
    assert found.parent == tmp_path and (found == mine) is not taken and found.stat().st_mode & 0o777 == 0o700


def test_versions(report: Report) -> None:
    assert report.libraries["torch"]
    assert report.libraries["openslide-python"]


def test_a_broken_reader_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_readers", lambda: iter([Check("openslide", "broken", "no library")]))
    monkeypatch.setattr(doctor, "_models", lambda: iter([]))
    found = examine(Path.cwd())
    assert found.problems[:2] == (
        "openslide does not work: no library",
        "no model is shipped with this copy; give one with --model FILE.safetensors",
    )
    assert found.suggestion.endswith("--dry-run")


def test_the_suggestion_takes_the_fastest_device() -> None:
    assert suggest((CPU,), ()).endswith("--device cpu")
    assert suggest((CPU, GPU, dataclasses.replace(GPU, name="cuda:1")), ()).endswith("--device cuda")


def test_a_gpu_that_does_not_work_is_a_problem_and_not_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.version.cuda is not None:
        pytest.skip("this torch may find a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as with a driver that torch does not match
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = examine(Path.cwd())
    gpu = found.devices[1]
    assert (gpu.name, gpu.works, gpu.memory) == ("cuda:0", False, 0)
    assert any(line.startswith("cuda:0 does not work (") for line in found.problems)
    assert suggest((CPU, gpu), ()).endswith("--device cpu")


def test_gpus_that_torch_does_not_use_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0000:17:00.0").mkdir()
    monkeypatch.setattr(machine, "DRIVER", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "has 1 NVIDIA GPUs, but its torch is built for CPUs" in hidden_gpus()
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES is ''" in hidden_gpus()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "CUDA 12.8 cannot use them" in hidden_gpus()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert hidden_gpus() == ""


@pytest.fixture
def canned(report: Report, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes the command show a given variation of the report."""

    def install(**changes: object) -> Report:
        changed = dataclasses.replace(report, **changes)
        monkeypatch.setattr(doctor, "examine", lambda _folder: changed)
        return changed

    return install


def test_json(canned, capsys: pytest.CaptureFixture[str]) -> None:
    shown = canned(problems=())
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(dataclasses.asdict(shown)))


def test_text(canned, capsys: pytest.CaptureFixture[str]) -> None:
    canned(problems=(), suggestion="wsipipe segment", devices=(CPU, GPU))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "Slide readers" in out and "cuda:0" in out
    assert out.rstrip().endswith("All well. Begin with: wsipipe segment")


def test_problems_are_shown_and_exit_1(canned, capsys: pytest.CaptureFixture[str]) -> None:
    canned(problems=("openslide does not work: no library",))
    assert main(["doctor"]) == 1
    assert "! openslide does not work: no library" in capsys.readouterr().out


def test_markup_in_a_message_is_text() -> None:
    out, check = io.StringIO(), Check("dicom", "missing", "pip install '.[dicom]'")
    Console(width=100, file=out).print(command._checks("Slide readers", (check,)))
    assert check.detail in out.getvalue()
