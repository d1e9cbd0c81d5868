"""Which stage ran when, on which thread: a picture of one recorded run with the shipped model.

python -m tests.benchmarks.bench_timeline [--side 1536] [--block 512] [--out timeline.png]
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from tests.benchmarks.pattern import write_pattern_slide
from wsipipe.schedule import work
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import RunSettings, TissueSettings

COLOURS = {
    "reading": "#7aa6c2",
    "decode": "#d9d9d9",
    "network": "#c26a7a",
    "scratch": "#e0c067",
    "blend": "#b59ad6",
    "cells": "#5aa469",
    "polygons": "#2f6f4f",
    "measure": "#8a8a3c",
}
WORDS = {"decode": "waiting for pixels", "scratch": "files between tasks"}
WIDTH, LANE, LEFT, TOP = 1400, 44, 170, 60


class Span(NamedTuple):
    """One stage at work."""

    thread: str
    stage: str
    start: float
    end: float


SPANS: list[Span] = []


@contextmanager
def recorded(stage: str) -> Iterator[None]:
    """Note when the block ran, and where."""
    start = time.perf_counter()
    try:
        yield
    finally:
        SPANS.append(Span(threading.current_thread().name, stage, start, time.perf_counter()))


class RecordingClock(work.Clock):
    """A clock that also notes when."""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        with recorded(stage), super().__call__(stage):
            yield


def noted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return *function*, whose calls are noted as reading."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        with recorded("reading"):
            return function(*args)

    return wrapper


def lanes(spans: list[Span]) -> dict[str, str]:
    """Return a name for each thread: forwarding, the threads that read ahead (one a block), those that make cells."""
    names = {}
    for thread in dict.fromkeys(span.thread for span in sorted(spans, key=lambda span: span.start)):
        stages = {span.stage for span in spans if span.thread == thread}
        if "network" in stages:
            names[thread] = "forward"
        elif stages == {"reading"}:
            names[thread] = "read ahead"
        else:
            names[thread] = f"cells {1 + sum(name.startswith('cells') for name in names.values())}"
    return names


def draw(spans: list[Span], out: Path) -> None:
    """Draw *spans* into a picture: a lane for each kind of thread, time to the right."""
    names = lanes(spans)
    rows = sorted(set(names.values()), key=lambda name: (name != "read ahead", name != "forward", name))
    begin, end = min(s.start for s in spans), max(s.end for s in spans)
    scale, font = (WIDTH - LEFT - 20) / (end - begin), ImageFont.load_default(15)
    image = Image.new("RGB", (WIDTH, TOP + LANE * len(rows) + 36), "white")
    pen, x = ImageDraw.Draw(image), LEFT
    for stage, colour in COLOURS.items():
        pen.rectangle((x, 18, x + 16, 34), fill=colour)
        pen.text((x + 22, 17), WORDS.get(stage, stage), fill="black", font=font)
        x += 40 + int(pen.textlength(WORDS.get(stage, stage), font=font))
    for k, row in enumerate(rows):
        y = TOP + k * LANE
        pen.text((14, y + 10), row, fill="black", font=font)
        pen.line((LEFT, y + LANE - 4, WIDTH - 20, y + LANE - 4), fill="#eeeeee")
        for span in spans:
            if names[span.thread] == row:
                left = LEFT + (span.start - begin) * scale
                box = left, y + 4, max(left + 1, LEFT + (span.end - begin) * scale), y + LANE - 8
                pen.rectangle(box, fill=COLOURS.get(span.stage, "black"))
    step = next(s for s in (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800) if (end - begin) / s <= 12)
    for n in range(int((end - begin) / step) + 1):
        place = LEFT + n * step * scale, TOP + LANE * len(rows) + 6
        pen.text(place, f"{n * step:g} s", fill="black", font=font)
    image.save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1536)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path("timeline.png"))
    args = parser.parse_args()
    work.Clock = RecordingClock  # type: ignore[misc]
    work.Worker._read = noted(work.Worker._read)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        for name, side in (("warm", 256), ("slide", args.side)):
            slide = Path(folder) / f"{name}.svs"
            write_pattern_slide(slide, side, [(0, 0, side, side)])
            SPANS.clear()
            run = RunSettings(device="cpu", block=args.block)
            tissue = TissueSettings(tissue="none")
            run_segment(SegmentJob(str(slide), (slide.with_suffix(".parquet"),), tissue=tissue, run=run), Progress())
    draw(SPANS, args.out)
    busy: dict[str, float] = {}
    for span in SPANS:
        busy[span.stage] = busy.get(span.stage, 0.0) + span.end - span.start
    total = max(s.end for s in SPANS) - min(s.start for s in SPANS)
    print(f"wrote {args.out}: " + ", ".join(f"{stage} {100 * s / total:.1f} %" for stage, s in busy.items()))


if __name__ == "__main__":
    main()
