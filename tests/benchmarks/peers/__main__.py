"""Other systems on the same picture: seconds for each megapixel, and memory, each in an environment of its own.

    python -m tests.benchmarks.peers [SLIDE] [--only stardist,classical] [--weights FOLDER] [--threads 1]

Without SLIDE a phantom is drawn at 0.25 µm/px. Environments are made on the first use, by pip, in --environments (about
3 GB for all four). Published weights are taken from FOLDER/stardist (a folder), FOLDER/cellpose and FOLDER/instanseg
(files); where there are none the networks have random weights, and only their forward pass is measured. Every system
gets the picture at the resolution that it was trained at; wsipipe reads the slide itself and writes its cells.

Megapixels are those of the picture as given; "work" is what follows after everything is imported and loaded (for
wsipipe: after a first small run), "process" the whole process. Seconds of CPU compare on a busy machine, seconds of the
clock do not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.peers.systems import OWN, SYSTEMS, System
from wsipipe.phantom.slide import write_phantom
from wsipipe.settings import PhantomSettings
from wsipipe.slide import open_slide

ENVIRONMENTS = Path(__file__).parents[3] / ".venv-peers"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def python_of(system: System, environments: Path) -> Path:
    """Return the Python of the environment of *system*, which is made when it is not there."""
    folder = environments / system.name
    python, done = folder / "bin" / "python", folder / ".done"
    if not done.exists() or done.read_text() != " ".join(system.packages):
        print(f"{system.name}: installing {' '.join(system.packages)} into {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *system.packages], check=True)
        done.write_text(" ".join(system.packages))
    return python


def picture_for(system: System, picture: NDArray[np.uint8], mpp: float) -> tuple[NDArray[np.uint8], float]:
    """Return the picture as *system* sees it, and how many megapixels of the given one it shows."""
    scale = mpp / system.mpp
    side = int((system.megapixels * 1e6) ** 0.5 / scale)
    part = np.ascontiguousarray(picture[:side, :side])
    size = round(part.shape[1] * scale), round(part.shape[0] * scale)
    seen = part if scale == 1 else cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return np.asarray(seen, np.uint8), part.shape[0] * part.shape[1] / 1e6


def measured(command: Sequence[str | Path], threads: int) -> dict[str, Any]:
    """Run *command* and return what it told, with the CPU and clock of its whole process.

    Raises
    ------
    RuntimeError
        When it fails; what it said is in the message.
    """
    env = os.environ | dict.fromkeys(THREADS, str(threads)) | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    env.pop("PYTHONPATH", None)
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(part) for part in command], stdout=said, stderr=errors, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        said.seek(0)
        errors.seek(0)
        lines = said.read().splitlines()
        if process.returncode or not lines:
            raise RuntimeError(f"{command[1]} ended with {process.returncode}: {errors.read()[-2000:]}")
    return json.loads(lines[-1]) | {"process_cpu": usage.ru_utime + usage.ru_stime, "process_wall": wall}


def row(name: str, megapixels: float, found: dict[str, Any]) -> str:
    """Return one line of the table."""
    work, whole = (f"{found[key] / megapixels:9.2f}" for key in ("cpu", "process_cpu"))
    walls = f"{found['wall'] / megapixels:9.2f}{found['process_wall'] / megapixels:9.2f}"
    objects = "" if found["objects"] is None else f", {found['objects']} nuclei"
    return f"{name:16s}{megapixels:6.1f}{work}{whole}{walls}{found['peak_mb']:8.0f}  {found['what']}{objects}"


def main() -> None:
    names = ",".join(system.name for system in SYSTEMS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--side", type=int, default=2048, help="of the phantom, in px")
    parser.add_argument("--only", default=f"wsipipe,{names}", help="which systems, separated by commas")
    parser.add_argument("--weights", type=Path, help="folder of published weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    args = parser.parse_args()
    wanted = args.only.split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = args.slide or folder / "phantom.svs"
        if not args.slide:
            write_phantom(slide, PhantomSettings(width=args.side, height=args.side, mpp=0.25, tissue=1.0))
        with open_slide(slide) as opened:
            mpp = opened.info.mpp[0] if opened.info.mpp else 0.25
            picture = opened.read_region(0, 0, 0, *opened.info.size)
        size, machine = f"{picture.shape[1]} x {picture.shape[0]} px", f"{os.cpu_count()} cores"
        print(f"{slide.name}: {size} at {mpp:.3f} µm/px; {args.threads} thread(s)")
        print(f"{machine}, load before the first run {os.getloadavg()[0]:.1f}\n")
        print(f"{'':22s}{'s of CPU a MP':>18s}{'s a MP':>18s}{'peak':>8s}")
        print(f"{'':16s}{'MP':>6s}{'work':>9s}{'process':>9s}{'work':>9s}{'process':>9s}{'MB':>8s}", flush=True)
        for precision in ("fp32", "bf16"):
            if "wsipipe" in wanted:
                found = measured([sys.executable, OWN.parent / "run_wsipipe.py", slide, precision], args.threads)
                print(row(f"wsipipe {precision}", picture.shape[0] * picture.shape[1] / 1e6, found), flush=True)
        for system in (one for one in SYSTEMS if one.name in wanted):
            seen, megapixels = picture_for(system, picture, mpp)
            np.save(folder / "picture.npy", seen)
            weights = ["--weights", args.weights / system.name] if args.weights else []
            try:
                python = python_of(system, args.environments)
                found = measured([python, system.program, folder / "picture.npy", *weights], args.threads)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                print(f"{system.name:16s}failed: {error}", flush=True)
                continue
            print(row(system.name, megapixels, found), flush=True)


if __name__ == "__main__":
    main()
