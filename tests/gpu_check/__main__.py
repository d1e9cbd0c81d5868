"""Check and measure what this machine's GPU does for wsipipe; a small version runs on a CPU.

    python -m tests.gpu_check [--device auto] [--out gpu-check] [--seconds 230] [--small]

Installs nothing, needs no network and takes at most four minutes on a GPU. Written: report.md, report.json. The exit
code is 1 when a check failed. Sections for which no time is left are named in the report.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import wsipipe
from tests.gpu_check import rates, runs, training
from tests.gpu_check.context import SMALLEST, Context, Sizes
from wsipipe.models.cmd import SIZES
from wsipipe.models.device import choose_device
from wsipipe.models.threads import set_threads
from wsipipe.schedule.resources import allowed_cores, network_threads

LARGE = Sizes({name: SIZES[name](0) for name in "TSB"}, (16, 64, 256), 0.6, 8192, (1, 2, 4, 8), 8, "cmd-t")
SMALL = Sizes({"T": SMALLEST}, (2,), 0.0, 512, (1, 2), 4)

Row = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes
    ----------
    needs : float
        Seconds that must be left for it to be begun.
    only_large : bool
        Whether it is left out of the small check.
    """

    title: str
    rows: Callable[[Context], Iterator[Row]]
    needs: float = 5
    only_large: bool = False


@dataclass
class Found:
    """What came of a section."""

    title: str
    rows: list[Row] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    @property
    def wrong(self) -> list[str]:
        """What the rows say went wrong: each yes-or-no value that is no."""
        return [f"{k}: no" for row in self.rows for k, v in row.items() if v is False]


def gpu_tests(context: Context) -> Iterator[Row]:
    """Yield the outcome of the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    last = done.stdout.strip().splitlines()[-1:] or ["pytest said nothing"]
    yield {"outcome": last[0], "passed": done.returncode == 0}


SECTIONS = (
    Section("Forward pass, tiles per second", rates.forward_rates, 30),
    Section("End to end", runs.end_to_end, 25),
    Section("Lack of memory", runs.lack_of_memory, 10),
    Section("Resume", runs.resume, 10),
    Section("Pretraining", training.pretraining, 15),
    Section("Fitting", training.fitting, 10),
    Section("Several GPUs", runs.several_gpus, 25),
    Section("Tests that need a GPU", gpu_tests, 40, only_large=True),
    Section("Compiled blocks", rates.compiled_rates, 60, only_large=True),
)


def check(context: Context, sections: tuple[Section, ...]) -> Iterator[Found]:
    """Yield what came of each section; an error in one does not stop the others."""
    for section in sections:
        found, start = Found(section.title), time.perf_counter()
        if context.left < section.needs:
            found.rows.append({"note": f"not begun: {context.left:.0f} s were left"})
        else:
            try:
                for row in section.rows(context):
                    found.rows.append(row)
            except Exception as error:  # noqa: BLE001 - whatever it is stands in the report
                found.error = "".join(traceback.format_exception(error)[-3:]).strip()
        found.seconds = round(time.perf_counter() - start, 1)
        yield found


def machine(context: Context) -> Row:
    """Return what the figures were measured on."""
    gpus: list[str] = []
    if context.on_gpu:
        every = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
        gpus = [f"{p.name}, {p.total_memory / 2**30:.0f} GiB, compute capability {p.major}.{p.minor}" for p in every]
    return {
        "wsipipe": wsipipe.__version__,
        "torch": torch.__version__,
        "CUDA": torch.version.cuda,
        "device": str(context.device),
        "GPUs": gpus,
        "cores": allowed_cores(),
        "arithmetic": str(context.dtype).removeprefix("torch."),
        "platform": platform.platform(),
    }


def markdown(about: Row, found: list[Found]) -> str:
    """Return the report as Markdown."""
    lines = ["# wsipipe on this machine", "", *(f"- {k}: {_shown(v)}" for k, v in about.items()), ""]
    for one in found:
        lines += [f"## {one.title}", ""]
        columns = list(dict.fromkeys(key for row in one.rows for key in row))
        if columns:
            lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
            lines += ["| " + " | ".join(_shown(row.get(c, "")) for c in columns) + " |" for row in one.rows]
            lines.append("")
        if one.error:
            lines += ["**failed**", "", "```text", one.error, "```", ""]
        lines += [f"{one.seconds} s", ""]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return "; ".join(map(str, value)) or "none" if isinstance(value, list) else "" if value is None else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder of the report")
    parser.add_argument("--seconds", type=float, default=230, help="no section is begun after so many")
    parser.add_argument("--small", action="store_true", help="a network and a slide that are tiny, as on a CPU")
    args = parser.parse_args()
    device = choose_device(args.device)
    small = args.small or device.type == "cpu"
    set_threads(network_threads())
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        context = Context(device, Path(folder), SMALL if small else LARGE, time.monotonic(), args.seconds)
        about, found = machine(context), list[Found]()
        for one in check(context, tuple(s for s in SECTIONS if not (small and s.only_large))):
            found.append(one)
            state = "failed" if one.error or one.wrong else "done"
            print(f"{one.title}: {state}, {one.seconds} s", flush=True)
    failed = [f"{one.title}: {what}" for one in found for what in (one.error.splitlines()[-1:] or one.wrong)]
    sections = {one.title: {"rows": one.rows, "error": one.error, "seconds": one.seconds} for one in found}
    text = json.dumps({"machine": about, "sections": sections, "failed": failed}, indent=2)
    (args.out / "report.json").write_text(text + "\n", encoding="utf-8")
    (args.out / "report.md").write_text(markdown(about, found), encoding="utf-8")
    print(f"{args.out / 'report.md'}" + "".join(f"\n! {line}" for line in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
