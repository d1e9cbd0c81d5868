"""Print the rules with the highest mean PQ over several sets, as options of `wsipipe models export`.

python choose.py tuned-a tuned-b
"""

from __future__ import annotations

import sys
from functools import reduce
from pathlib import Path

import pandas as pd

RULES = ["threshold", "marker_threshold", "min_area_um2", "min_probability"]


def choose(tables: list[pd.DataFrame]) -> tuple[float, ...]:
    """Return the rules whose PQ, averaged over *tables*, is highest."""
    columns = (table.set_index(RULES)[["PQ"]].add_suffix(f"_{k}") for k, table in enumerate(tables))
    return tuple(reduce(lambda a, b: a.join(b), columns).mean(axis=1).idxmax())


if __name__ == "__main__":
    best = choose([pd.read_csv(Path(folder) / "tune.csv") for folder in sys.argv[1:]])
    print(" ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in zip(RULES, best)))
