"""``python -m tests.fuzz``: damaged inputs by the thousand; what the log has already is not done again."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from tests.fuzz.commands import TARGETS
from tests.fuzz.outcome import FAULTS, Bench, as_line, warm

COLUMNS = ("refused", "warned", "same", "other", *FAULTS)


def main() -> int:
    """Run what is asked for, print the totals, and return 1 when there are faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="damaged inputs for each command and kind of input")
    parser.add_argument("--log", type=Path, default=Path("fuzz.jsonl"), help="outcomes, one a line")
    parser.add_argument("--only", default="", help="part of the names of those wanted, such as 'svs' or '→ segment'")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long; the same command goes on")
    parser.add_argument("--part", default="0/1", help="k/n: every n-th command and kind, from the k-th on")
    parser.add_argument("--totals", action="store_true", help="print what the log says, and run nothing")
    asked = parser.parse_args()
    first, step = map(int, asked.part.split("/"))
    wanted = [name for name in TARGETS if asked.only in name][first::step]
    found = _read(asked.log)
    if not asked.totals:
        end = time.monotonic() + asked.seconds
        warm()
        with tempfile.TemporaryDirectory(prefix="wsipipe-fuzz-") as root, asked.log.open("a") as log:
            for name in wanted:
                if time.monotonic() < end and len(found[name]) < asked.count:
                    _do(name, Path(root), asked.count, found[name], log, end)
    return _show({name: found[name] for name in wanted if found[name]})


def _read(log: Path) -> dict[str, dict[int, str]]:
    """Return the outcome of each seed that the log knows."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for line in log.read_text().splitlines() if log.exists() else ():
        entry = json.loads(line)
        found[entry["target"]][entry["seed"]] = entry["what"]
    return found


def _do(name: str, root: Path, count: int, done: dict[int, str], log: object, end: float) -> None:
    bench, seed = Bench(TARGETS[name], root), -1
    while len(done) < count and seed < 4 * count and time.monotonic() < end:
        seed += 1
        if seed in done:
            continue
        outcome = bench.try_seed(seed)
        if outcome is None:
            continue
        done[seed] = outcome.what
        print(as_line(name, seed, outcome), file=log, flush=True)  # type: ignore[call-overload]
        if outcome.what in FAULTS:
            print(f"{name}, seed {seed}: {outcome.what}: {outcome.said[-400:]}", file=sys.stderr, flush=True)
    print(name, dict(Counter(done.values())), flush=True)


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
