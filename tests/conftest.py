"""What the tests share: real slides where they are at hand, and a phantom whose cells are known."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis.internal.conjecture import providers

# No test is timed. The same examples at every run, unless `make test-slow` searches for others.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("search", deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile("same")  # --hypothesis-profile names another

# The environment of whoever runs the tests stays out of them, and out of the processes that they start.
for name in list(os.environ):
    if name.startswith(("WSIPIPE_", "SLURM_")) and not name.startswith(("WSIPIPE_TEST_", "WSIPIPE_CONSUMERS")):
        del os.environ[name]
for name in ("FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)
os.environ.update(COLUMNS="80", LINES="24")

ROOT = Path(__file__).resolve().parents[1]

if sys.platform == "win32":  # they fork, send signals or open terminals
    collect_ignore_glob = ["fuzz/*", "cli/test_completion.py", "runs/test_moments.py", "slide/test_phantom.py"]

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a background job; tests interrupt what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch and numba are imported: processes share the cores
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")


def pytest_sessionstart() -> None:
    """Let no example come from the modules that happen to be imported: that depends on which tests ran before."""
    if hypothesis.settings.default.derandomize:
        providers._get_local_constants = providers.Constants  # none


if TYPE_CHECKING:
    from wsipipe.phantom.slide import PhantomTruth


@dataclass(frozen=True)
class Phantom:
    """A small phantom slide and what is known of it."""

    path: Path
    truth: PhantomTruth


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real slides and annotated images beside the checkout; skip where there is none."""
    folder = Path(os.environ.get("WSIPIPE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "slides").is_dir():
        pytest.skip(f"no real data at {folder} (WSIPIPE_TEST_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    """Return a phantom slide of 1536 × 1024 px at 0.5 µm/px, drawn once per session."""
    from wsipipe.phantom.slide import PhantomSettings, write_phantom

    path = tmp_path_factory.mktemp("phantom") / "phantom.tiff"
    return Phantom(path, write_phantom(path, PhantomSettings(width=1536, height=1024, seed=7, mpp=0.5)))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint of a very small network with random weights, which finds plenty of nonsense."""
    from tests import tiny
    from wsipipe.models import checkpoint

    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    checkpoint.save(path, tiny.segmenter(), tiny.card())
    return path


@pytest.fixture(scope="session")
def small_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a phantom slide of 700 x 500 px at 0.5 µm/px: 12 tiles, 6 blocks of 256 px."""
    from wsipipe.phantom.slide import PhantomSettings, write_phantom

    path = tmp_path_factory.mktemp("small") / "small.tiff"
    write_phantom(path, PhantomSettings(width=700, height=500, seed=5, mpp=0.5, tissue=0.9))
    return path
