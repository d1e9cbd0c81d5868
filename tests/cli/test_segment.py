"""`wsipipe segment` at the command line: what it says, and what it says of bad input."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Phantom
from wsipipe.cli.main import main


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(*args: object) -> int:
    return main(["segment", *map(str, args)])


def test_says_what_it_found_and_notices_once(
    phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cells.geojson"
    command = [phantom.path, "-o", out, "--bounds", "300,300,700,700", "--device", "cpu"]
    assert run(*command) == 0
    said, aside = capfd.readouterr()
    assert "cells/mm²" in said and "bottleneck: " in said and str(out) in said
    assert "research use only" in aside and "CC-BY-NC-SA" in aside
    record = json.loads((tmp_path / "cells.run.json").read_text())
    assert record["cells"] == len(json.loads(out.read_bytes())["features"])
    assert not (tmp_path / ".cells.geojson.work").exists()
    assert run(*command) == 0
    said, aside = capfd.readouterr()
    assert "up to date" in said and "research use only" not in aside


def test_dry_run_does_nothing(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(phantom.path, "-o", tmp_path / "cells.parquet", "--dry-run") == 0
    said = capfd.readouterr().out
    assert all(word in said for word in ("tiles", "MiB", "GiB", "blocks"))
    assert not list(tmp_path.glob("*cells*"))


def test_config_file_and_command_line(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.toml"
    config.write_text('[run]\ndevice = "cpu"\nblock = 512\n[tissue]\ntissue = "none"\n')
    assert run(phantom.path, "-o", tmp_path / "c.parquet", "--dry-run", "--config", config, "--block", 700) == 0
    assert "of 700 px" in capfd.readouterr().out


def test_a_slide_without_tissue_is_no_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((600, 800, 3), 241, np.uint8)).save(tmp_path / "glass.png")
    out = tmp_path / "cells.geojson"
    assert run(tmp_path / "glass.png", "-o", out, "--mpp", 0.5) == 0
    assert "no tissue" in capfd.readouterr().out
    assert json.loads(out.read_bytes()) == {"type": "FeatureCollection", "features": []}


def write_bad(folder: Path, kind: str) -> Path:
    path = folder / "slide.svs"
    if kind == "text":
        path.write_text("this is not a slide\n" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [("missing", "slide.svs"), ("text", "slide.svs"), ("empty", "slide.svs"), ("directory", "slide.svs")],
)
def test_bad_slides(kind: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check_refused(run(write_bad(tmp_path, kind), "-o", tmp_path / "cells.geojson"), 3, says, capfd)
    assert not (tmp_path / "cells.geojson").exists()


def check_refused(code: int, expected: int, says: str, capfd: pytest.CaptureFixture[str]) -> None:
    line = capfd.readouterr().err.strip().splitlines()
    assert code == expected, line
    errors = [text for text in line if text.startswith("wsipipe: error:")]
    assert len(errors) == 1 and says in errors[0], line


def test_a_truncated_slide(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "cut.tiff"
    cut.write_bytes(phantom.path.read_bytes()[: phantom.path.stat().st_size // 3])
    check_refused(run(cut, "-o", tmp_path / "cells.geojson"), 3, "cut.tiff", capfd)


def test_no_resolution(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((300, 300, 3), 200, np.uint8)).save(tmp_path / "a.png")
    check_refused(run(tmp_path / "a.png", "-o", tmp_path / "c.geojson"), 3, "--mpp", capfd)


def test_absurd_resolution(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check_refused(run(phantom.path, "--mpp", 50, "-o", tmp_path / "c.geojson"), 3, "50", capfd)


def test_a_real_file_that_claims_an_absurd_resolution(
    shared_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slide = shared_data / "slides/variants/CMU-1-Small-Region.jpeg.tiff"
    check_refused(run(slide, "-o", tmp_path / "c.geojson"), 3, "0.00499", capfd)


def test_a_malformed_real_file(shared_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slide = shared_data / "slides/variants/malformed.dcm"
    check_refused(run(slide, "-o", tmp_path / "c.geojson"), 3, "malformed.dcm", capfd)


@pytest.mark.parametrize("kind", ["missing", "text", "pickle", "truncated"])
def test_bad_models(kind: str, phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from wsipipe.models.zoo import resolve

    model = tmp_path / "model.safetensors"
    content = {
        "text": b"not a model",
        "pickle": pickle.dumps({"weights": [1, 2]}),
        "truncated": resolve("cmd-t").read_bytes()[:100_000],
    }
    if kind in content:
        model.write_bytes(content[kind])
    check_refused(run(phantom.path, "-o", tmp_path / "c.geojson", "--model", model), 4, "model", capfd)


def test_bad_outputs(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check_refused(run(phantom.path, "-o", tmp_path / "cells.xlsx"), 6, ".geojson", capfd)
    check_refused(run(phantom.path, "-o", phantom.path / "such" / "cells.geojson"), 6, "a file where a folder", capfd)


def test_no_permission_to_write(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    check_refused(run(phantom.path, "-o", locked / "cells.geojson"), 6, "permission", capfd)


def test_disk_full_leaves_the_old_output(phantom: Phantom, tmp_path: Path) -> None:
    """A file-size limit stands for the full disk: the same refusal by the system, at any user's hands."""
    out = tmp_path / "cells.geojson"
    out.write_bytes(b"old")
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000));"
        "from wsipipe.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", limited, "segment", str(phantom.path), "-o", str(out)]
    environment = os.environ | {"NUMBA_DISABLE_PERFORMANCE_WARNINGS": "1"}
    done = subprocess.run([*command, "--bounds", "300,300,700,700"], capture_output=True, text=True, env=environment)
    assert done.returncode == 6, done.stderr
    assert "wsipipe: error:" in done.stderr and "Traceback" not in done.stderr
    assert out.read_bytes() == b"old"


def test_ctrl_c_says_how_to_resume(phantom: Phantom, tmp_path: Path) -> None:
    import signal
    import time

    out = tmp_path / "cells.geojson"
    command = [sys.executable, "-m", "wsipipe", "segment", str(phantom.path), "-o", str(out), "--block", "256"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    work = tmp_path / ".cells.geojson.work"
    for _ in range(600):
        if any(work.glob("*/maps/*.zip")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, aside = process.communicate(timeout=240)
    assert process.returncode == 130, aside
    assert "interrupted; the same command resumes it: wsipipe segment" in aside and "Traceback" not in aside
    assert any(work.glob("*/maps/*.zip")) and not out.exists()
