"""``python -m tests.fuzz``: damaged inputs by the thousand; what the log has already is not done again."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path

from tests.fuzz.cases import CASES
from tests.fuzz.commands import TARGETS
from tests.fuzz.outcome import FAULTS, Bench, as_line, warm

FEW = 10
COLUMNS = ("refused", "warned", "same", "other", *FAULTS)


def main() -> int:
    """Run what is asked for, print the totals, and return 1 when there are faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="damaged inputs for each command and kind of input")
    parser.add_argument("--log", type=Path, default=Path("fuzz.jsonl"), help="outcomes, one a line")
    parser.add_argument("--only", default="", help="pattern of those wanted, such as 'svs' or '→ (fit|view)'")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long; the same command goes on")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th command and kind, from the k-th on")
    parser.add_argument("--jobs", type=int, default=1, help="so many of them at a time")
    parser.add_argument("--totals", action="store_true", help="print what the log says, and run nothing")
    parser.add_argument("--cases", action="store_true", help="run the inputs that were faults once, and nothing else")
    parser.add_argument("--again", action="store_true", help="run those again that were faults")
    asked = parser.parse_args()
    if asked.cases:
        return _cases(asked.only)
    first, step = map(int, asked.part.split("/"))
    wanted = [name for name in TARGETS if re.search(asked.only, name)][first::step]
    found, stopped = _read(asked.log), 0
    if asked.again:
        found = {name: {k: what for k, what in done.items() if what not in FAULTS} for name, done in found.items()}
    if not asked.totals:
        end = time.monotonic() + asked.seconds
        warm()
        with tempfile.TemporaryDirectory(prefix="wsipipe-fuzz-", dir=_fast()) as root:
            waiting = [name for name in wanted if len(found.get(name, {})) < asked.count]
            running: dict[int, str] = {}
            while running or (waiting and time.monotonic() < end):
                while waiting and len(running) < asked.jobs and time.monotonic() < end:
                    name = waiting.pop(0)
                    running[_apart(name, Path(root), asked, found.get(name, {}), end)] = name
                child, status = os.wait()
                name = running.pop(child)
                if status:
                    print(f"{name}: stopped ({status}); what it did stands in {asked.log}", file=sys.stderr, flush=True)
                    stopped += 1
        found = _read(asked.log)
    return _show({name: found[name] for name in wanted if name in found}) or int(stopped > 0)


def _cases(only: str) -> int:
    """Run the cases, print what became of each, and return 1 when there are faults."""
    pairs: dict[str, list[str]] = defaultdict(list)
    for name, case in CASES.items():
        if re.search(only, case.pair) and case.pair in TARGETS:
            pairs[case.pair].append(name)
    faults = 0
    warm()
    with tempfile.TemporaryDirectory(prefix="wsipipe-fuzz-", dir=_fast()) as root:
        for pair, names in pairs.items():
            child = os.fork()
            if not child:
                os._exit(_try_cases(pair, names, Path(root)))
            faults += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return int(faults > 0)


def _try_cases(pair: str, names: list[str], root: Path) -> int:
    try:
        bench, faults = Bench(TARGETS[pair], root, many=False), 0
        for name in names:
            outcome = bench.try_case(CASES[name])
            faults += outcome.what in FAULTS
            said = (outcome.said.strip().splitlines() or [""])[-1]
            print(f"{outcome.what:12} {pair}: {name}: {said[:200]}", flush=True)
        return min(faults, 99)
    except BaseException:  # noqa: BLE001 as at the end of any program
        traceback.print_exc()
        return 99


def _fast() -> str | None:
    """Return a folder in memory, where there is one: each output waits for the disk otherwise."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _read(log: Path) -> dict[str, dict[int, str]]:
    """Return the outcome of each seed that the log knows, the last one where there are several."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for line in log.read_text().splitlines() if log.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # a run that was killed in the middle of a line
            entry = json.loads(line)
            found[entry["target"]][entry["seed"]] = entry["what"]
    return dict(found)


def _apart(name: str, root: Path, asked: argparse.Namespace, done: dict[int, str], end: float) -> int:
    """Start a process that does what is left of *name*, and keeps to itself what it has loaded; return its number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            _do(name, root, asked.count, done, asked.log, end)
            code = 0
        except BaseException:  # noqa: BLE001 as at the end of any program
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


def _do(name: str, root: Path, count: int, done: dict[int, str], path: Path, end: float) -> None:
    begin, before, seed = time.monotonic(), len(done), -1
    bench = Bench(TARGETS[name], root, count - before > FEW)
    with path.open("a") as log:
        while len(done) < count and seed < 4 * count and time.monotonic() < end:
            seed += 1
            if seed in done:
                continue
            outcome = bench.try_seed(seed)
            if outcome is None:
                continue
            done[seed] = outcome.what
            print(as_line(name, seed, outcome), file=log, flush=True)
            if outcome.what in FAULTS:
                print(f"{name}, seed {seed}: {outcome.what}: {outcome.said[-400:]}", file=sys.stderr, flush=True)
    rate = (len(done) - before) / (time.monotonic() - begin) * 60
    print(f"{name}: {dict(Counter(done.values()))}, {rate:.0f} a minute", flush=True)


def _show(found: dict[str, dict[int, str]]) -> int:
    """Print the totals as a table of Markdown; return 1 when there are faults."""
    print(f"\n| input → command | inputs | {' | '.join(COLUMNS)} |\n|---|{'---|' * (len(COLUMNS) + 1)}")
    total: Counter[str] = Counter()
    for name, outcomes in found.items():
        counts = Counter(outcomes.values())
        total += counts
        print(_row(name, counts))
    print(_row("**all**", total))
    return int(any(total[fault] for fault in FAULTS))


def _row(name: str, counts: Counter[str]) -> str:
    return f"| {name} | {sum(counts.values()):,} | {' | '.join(f'{counts[what]:,}' for what in COLUMNS)} |"


if __name__ == "__main__":
    sys.exit(main())
