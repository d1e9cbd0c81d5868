"""wsipipe on a slide, measured as the other systems are: ``run_wsipipe.py SLIDE PRECISION``."""

import sys
import tempfile
from pathlib import Path

sys.path[:] = [str(Path(__file__).parents[3]), str(Path(__file__).parent / "own"), *sys.path[1:]]
from common import Stopwatch, tell  # noqa: E402

from wsipipe.schedule.progress import Progress  # noqa: E402
from wsipipe.segmentation.job import SegmentJob  # noqa: E402
from wsipipe.segmentation.run import run_segment  # noqa: E402
from wsipipe.settings import RunSettings  # noqa: E402

slide, precision = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    run = RunSettings(device="cpu", precision=precision)
    run_segment(SegmentJob(slide, (Path(folder) / "some.parquet",), run=run, bounds=(0, 0, 600, 600)), Progress())
    with Stopwatch() as watch:
        cells = run_segment(SegmentJob(slide, (Path(folder) / "cells.parquet",), run=run), Progress()).cells
tell(watch, f"complete, {precision}", cells)
