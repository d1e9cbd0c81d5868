"""What the programs of all systems share: arguments in, one line of JSON out."""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np


def arguments():
    """Return the picture, uint8 (h, w, 3), and the folder of weights (None: none)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", type=Path)
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args()
    return np.load(args.picture), args.weights if args.weights and args.weights.exists() else None


class Stopwatch:
    """Seconds of CPU of this process, and of the clock, in a ``with`` block."""

    def __enter__(self):
        self.cpu, self.wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *error):
        self.cpu, self.wall = time.process_time() - self.cpu, time.perf_counter() - self.wall


def peak_mb():
    """Return the most memory that this process has held, in MiB.

    Linux counts in a child's usage what its parent held when it was started, so the kernel's own mark is asked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def tell(watch, what, objects=None):
    """Print what was measured."""
    found = {"cpu": watch.cpu, "wall": watch.wall, "peak_mb": peak_mb(), "what": what, "objects": objects}
    print(json.dumps(found))
