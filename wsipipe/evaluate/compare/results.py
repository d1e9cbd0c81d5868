"""The cells of a comparison: the folder of each, which are done or failed, and the tables and plots made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wsipipe.artifacts import atomic_path, atomic_write, read_json
from wsipipe.evaluate.compare.folds import cells_of
from wsipipe.evaluate.compare.plan import Cell, Plan
from wsipipe.evaluate.compare.plots import write_plots
from wsipipe.evaluate.compare.tables import differences, latex, markdown, summary
from wsipipe.labels import list_set
from wsipipe.models import checkpoint
from wsipipe.models.zoo import resolve
from wsipipe.settings import RANDOM

DONE, FAILED = "done.json", "failed.json"
TEST = "test"


@dataclass(frozen=True)
class Planned:
    """A cell, the folder of its work, whether it is done, and about how many seconds it would take."""

    cell: Cell
    folder: Path
    done: bool
    seconds: float | None


def planned(plan: Plan, root: Path, out: Path) -> list[Planned]:
    """Return the cells of *plan* in the order they are computed, with what is known of each below *out*."""
    found: list[tuple[Cell, Path]] = []
    images: dict[str, list[str]] = {}
    weights: dict[str, str] = {}
    for cell in cells_of(plan, root):
        one, backbone = cell.of, cell.arm.settings.backbone
        if one.name not in images:
            images[one.name] = [item.name for item in list_set(one.spec, root)]
        if backbone not in weights:
            weights[backbone] = "" if cell.arm.predictions or backbone in RANDOM else _sha(root, backbone)
        found.append((cell, out / "cells" / cell.key(weights[backbone], images[one.name])))
    times: dict[str, list[float]] = {}
    for cell, folder in found:
        if (folder / DONE).exists():
            times.setdefault(cell.arm.name, []).append(float(read_json(folder / DONE).get("seconds", 0)))
    mean = {name: sum(values) / len(values) for name, values in times.items()}
    return [Planned(cell, folder, (folder / DONE).exists(), mean.get(cell.arm.name)) for cell, folder in found]


def _sha(root: Path, backbone: str) -> str:
    return checkpoint.model_hash(resolve(placed(root, backbone)))


def placed(root: Path, backbone: str) -> str:
    """Return the file that a plan calls *backbone*, which may lie below *root*."""
    return str(root / backbone) if (root / backbone).is_file() else backbone


def failures(cells: Sequence[Planned]) -> list[tuple[str, str]]:
    """Return name and reason of the cells that failed and were not done since."""
    found = [one for one in cells if (one.folder / FAILED).exists() and not (one.folder / DONE).exists()]
    return [(one.cell.name, str(read_json(one.folder / FAILED).get("reason"))) for one in found]


def rows_of(cells: Sequence[Planned]) -> pd.DataFrame:
    """Return the scores and counts of every image of every cell that is done."""
    tables = []
    for one in cells:
        if (one.folder / DONE).exists():
            table = pd.read_parquet(one.folder / TEST / "images.parquet")
            cell = one.cell
            table[["arm", "set", "fold", "shots", "seed"]] = (
                cell.arm.name, cell.of.name, cell.fold, cell.shots, cell.seed,
            )  # fmt: skip
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def write_results(out: Path, plan: Plan, cells: Sequence[Planned], failed: Sequence[tuple[str, str]]) -> None:
    """Write ``scores.parquet``, ``cells.csv``, ``tables.md``, ``tables.tex``, ``differences.csv`` and the plots."""
    out.mkdir(parents=True, exist_ok=True)
    rows = rows_of(cells)
    with atomic_path(out / "scores.parquet") as path:
        rows.to_parquet(path, index=False)
    done = pd.DataFrame(
        [{"arm": one.cell.arm.name, **read_json(one.folder / DONE)} for one in cells if (one.folder / DONE).exists()]
    )
    with atomic_path(out / "cells.csv") as path:
        done.to_csv(path, index=False)
    if rows.empty:
        table, pairs = pd.DataFrame(columns=["set", "shots", "way", "arm", "metric"]), []
    else:
        table, pairs = summary(plan, rows), differences(plan, rows)
    with atomic_write(out / "tables.md", "w") as file:
        file.write(markdown(plan, table, pairs, failed))
    with atomic_write(out / "tables.tex", "w") as file:
        file.write(latex(plan, table))
    columns = ["set", "shots", "a", "b", "metric", "difference", "low", "high", "images", "patients", "verdict"]
    listed = [(d.dataset, d.shots, d.a, d.b, d.metric, *d.value, d.images, d.patients, d.verdict) for d in pairs]
    with atomic_path(out / "differences.csv") as path:
        pd.DataFrame(listed, columns=columns).to_csv(path, index=False)
    if not rows.empty:
        write_plots(out / "plots", plan, table, done)
