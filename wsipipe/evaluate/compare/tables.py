"""Scores of many cells as tables: means over images and pooled, intervals by patient, paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsipipe.evaluate.compare.plan import Plan, in_words
from wsipipe.evaluate.metrics import Counts, Interval, scores
from wsipipe.evaluate.metrics.cells import interval, resampling, weighted

COUNTS = tuple(field.name for field in fields(Counts))
FEW = 5
"""Patients below which an interval by patient says little."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """How much more arm *a* scores than arm *b* on the same images.

    Attributes
    ----------
    value : Interval
        Of the difference of the means over images, by paired bootstrap of the patients.
    verdict : str
        Which scores more, or that the interval holds 0, or that the patients are too few.
    """

    dataset: str
    shots: int
    a: str
    b: str
    metric: str
    value: Interval
    images: int
    patients: int

    @property
    def verdict(self) -> str:
        """Which arm scores more; no word of it where the interval holds 0."""
        if self.patients < FEW:
            return f"fewer than {FEW} patients: nothing said"
        if self.value.low <= 0 <= self.value.high:
            return "no difference shown"
        return f"{self.a if self.value.value > 0 else self.b} scores more"


@dataclass(frozen=True, eq=False)
class Group:
    """The images of an arm on a set: every score, a row an image and a column a seed, and whose they are."""

    images: Sequence[str]
    patients: Sequence[str]
    counts: Counts
    each: Mapping[str, Floats]


def group_of(rows: pd.DataFrame) -> Group:
    """Return the scores in *rows*, those of ``images.parquet`` of one arm, set and number of shots."""
    whole = rows.groupby(["image", "patient"], sort=True)
    summed = whole[list(COUNTS)].mean().reset_index()
    metrics = scores(Counts(**{name: rows[name].to_numpy(np.float64) for name in COUNTS}))
    averaged = {}
    for name, values in metrics.items():
        by_image = pd.Series(values, index=pd.MultiIndex.from_frame(rows[["image", "patient"]]))
        averaged[name] = by_image.groupby(level=[0, 1], sort=True).mean().to_numpy(np.float64)
    counts = Counts(**{name: summed[name].to_numpy(np.float64) for name in COUNTS})
    return Group(summed["image"].tolist(), summed["patient"].tolist(), counts, averaged)


def draws(patients: Sequence[str], resamples: int, seed: int = 0) -> Floats:
    """Return how often each image is drawn when patients are drawn with replacement, float64 (resamples, images)."""
    known = sorted(set(patients))
    number = {name: k for k, name in enumerate(known)}
    return resampling(len(known), resamples, seed)[:, [number[name] for name in patients]]


def mean_of(group: Group, metric: str, drawn: Floats) -> Interval:
    """Return the mean over images, with its interval by patient."""
    values = group.each[metric]
    return interval(values.mean(), drawn @ values / np.maximum(1, drawn.sum(1)))


def pooled_of(group: Group, metric: str, drawn: Floats) -> Interval:
    """Return the score of all images together, with its interval by patient."""
    ones = np.ones((1, len(group.images)))
    return interval(
        float(scores(weighted(group.counts, ones))[metric][0]), scores(weighted(group.counts, drawn))[metric]
    )


def difference(a: Group, b: Group, metric: str, resamples: int) -> tuple[Interval, int, int]:
    """Return the paired difference a - b over the images that both have, their number, and that of the patients."""
    at = {name: k for k, name in enumerate(b.images)}
    both = [(i, at[name]) for i, name in enumerate(a.images) if name in at]
    delta = np.array([a.each[metric][i] - b.each[metric][j] for i, j in both])
    patients = [a.patients[i] for i, _ in both]
    drawn = draws(patients, resamples)
    return interval(delta.mean(), drawn @ delta / np.maximum(1, drawn.sum(1))), len(both), len(set(patients))


def summary(plan: Plan, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for every arm, set, number of shots, metric and way of averaging, with interval and numbers."""
    found: list[dict[str, Any]] = []
    for (dataset, shots, arm), part in rows.groupby(["set", "shots", "arm"], sort=False):
        group = group_of(part)
        drawn = draws(group.patients, plan.resamples)
        for metric in plan.metrics:
            for way, function in (("mean over images", mean_of), ("pooled", pooled_of)):
                value = function(group, metric, drawn)
                place = {"set": dataset, "shots": shots, "arm": arm, "metric": metric, "way": way}
                counts = {"images": len(group.images), "patients": len(set(group.patients))}
                seeds = part["seed"].nunique()
                found.append({**place, **value._asdict(), **counts, "seeds": seeds})
    return pd.DataFrame(found)


def differences(plan: Plan, rows: pd.DataFrame) -> list[Difference]:
    """Return the paired differences of the plan's pairs of arms, on every set and number of shots that both have."""
    found = []
    for (dataset, shots), part in rows.groupby(["set", "shots"], sort=False):
        groups = {str(arm): group_of(one) for arm, one in part.groupby("arm", sort=False)}
        for a, b in plan.pairs:
            if a in groups and b in groups and set(groups[a].images) & set(groups[b].images):
                for metric in plan.metrics:
                    value, images, patients = difference(groups[a], groups[b], metric, plan.resamples)
                    found.append(Difference(str(dataset), int(str(shots)), a, b, metric, value, images, patients))
    return found


def markdown(plan: Plan, table: pd.DataFrame, pairs: Sequence[Difference], failed: Iterable[tuple[str, str]]) -> str:
    """Return the report: the criterion, a table for each set, number of shots and way, differences, failures."""
    lines = [f"# {plan.title}", "", f"**Criterion, written before the run.** {plan.criterion}", ""]
    for (dataset, shots, way), part in table.groupby(["set", "shots", "way"], sort=False):
        first = part.iloc[0]
        several = "s" if first.seeds > 1 else ""
        images = f"{first.images} images of {first.patients} patients, {first.seeds} seed{several}"
        lines += [
            f"## {dataset}{f', {in_words(int(str(shots)))}' if shots else ''}: {way}",
            "",
            f"{images}; 95 % by patient.",
            "",
        ]
        lines += _rows(part, plan.metrics)
        if first.patients < FEW:
            lines += ["", f"An interval over {first.patients} patients says little."]
        lines.append("")
    if pairs:
        lines += ["## Paired differences (means over images, bootstrap of the patients)", ""]
        lines += [
            "| set | shots | a | b | metric | a − b | images | patients | |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {d.dataset} | {d.shots or 'all'} | {d.a} | {d.b} | {d.metric} | {_text(d.value, True)} | {d.images} "
            f"| {d.patients} | {d.verdict} |"
            for d in pairs
        ]
        lines.append("")
    missing = list(failed)
    if missing:
        lines += ["## Cells that failed", "", *(f"- {name}: {reason}" for name, reason in missing), ""]
    return "\n".join(lines)


def _rows(part: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    lines = [f"| system | {' | '.join(metrics)} |", f"|---|{'---|' * len(metrics)}"]
    for arm, one in part.groupby("arm", sort=False):
        bounds = zip(one["metric"], one["value"], one["low"], one["high"], strict=True)
        values = {str(metric): Interval(value, low, high) for metric, value, low, high in bounds}
        lines.append(f"| {arm} | {' | '.join(_text(values[m]) for m in metrics)} |")
    return lines


def latex(plan: Plan, table: pd.DataFrame) -> str:
    """Return the tables of means over images as LaTeX (booktabs), intervals in brackets below the scores."""
    blocks = []
    for (dataset, shots), part in table[table.way == "mean over images"].groupby(["set", "shots"], sort=False):
        lines = [r"\begin{tabular}{l" + "c" * len(plan.metrics) + "}", r"\toprule"]
        lines += [" & ".join(["System", *map(_escaped, plan.metrics)]) + r" \\", r"\midrule"]
        for arm, one in part.groupby("arm", sort=False):
            by = {row.metric: row for row in one.itertuples()}
            lines.append(" & ".join([_escaped(str(arm)), *(f"{by[m].value:.3f}" for m in plan.metrics)]) + r" \\")
            lines.append(" & ".join(["", *(f"[{by[m].low:.3f}, {by[m].high:.3f}]" for m in plan.metrics)]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}"]
        blocks.append(f"% {dataset}{f', {in_words(int(str(shots)))}' if shots else ''}\n" + "\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _escaped(text: str) -> str:
    for letter in "&%$#_":
        text = text.replace(letter, f"\\{letter}")
    return text


def _text(value: Interval, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{value.value:{sign}.3f} ({value.low:{sign}.3f} to {value.high:{sign}.3f})"
