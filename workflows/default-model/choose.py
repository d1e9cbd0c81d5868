"""Print the rules that suit several tuned sets best, as options of `wsipipe models export`.

python choose.py TUNED...

Best is the mean of F1, PQ and AJI over the sets. Of the rules within WITHIN of it those are taken that drop the fewest
cells for their low probability: on slides unlike the training images all probabilities are lower.
"""

from __future__ import annotations

import sys
from functools import reduce
from pathlib import Path

import pandas as pd

RULES = ["threshold", "marker_threshold", "min_area_um2", "min_probability"]
SCORES = ["DQ", "PQ", "AJI"]
WITHIN = 0.003


def choose(tables: list[pd.DataFrame]) -> tuple[float, ...]:
    """Return the rules to take, in the order of :data:`RULES`."""
    columns = (table.set_index(RULES)[SCORES].add_suffix(f"_{k}") for k, table in enumerate(tables))
    mean = reduce(lambda a, b: a.join(b), columns).mean(axis=1).rename("score").reset_index()
    close = mean[mean["score"] >= mean["score"].max() - WITHIN]
    first = close.sort_values(["min_probability", "score"], ascending=[True, False]).iloc[0]
    return tuple(first[RULES])


if __name__ == "__main__":
    best = choose([pd.read_csv(Path(folder) / "tune.csv") for folder in sys.argv[1:]])
    print(" ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in zip(RULES, best)))
