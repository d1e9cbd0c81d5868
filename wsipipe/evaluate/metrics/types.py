"""Scores of cell types: PQ and F1 of each, mPQ+ over them, and which type is taken for which.

- of a type: only nuclei of that type in truth and in the prediction count; scores are pooled over the images;
- mPQ+: mean of the types' pooled PQ; mF1 alike;
- bPQ and mPQ (PanNuke): means over images, of the PQ of all nuclei, and of the mean PQ of the types there;
- confusion: of nuclei that match whatever their types (IoU > 0.5), beside those that match none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsipipe.evaluate.metrics.cells import Counts, Interval, count, interval, pool, resampling, scores, stack, weighted
from wsipipe.evaluate.metrics.matching import MATCH_IOU, Labels, overlaps, scored
from wsipipe.settings import EvaluateSettings

OF_A_TYPE = ("PQ", "DQ", "SQ")
"""Scores of a type; DQ is F1@0.5."""


class TypeSummary(NamedTuple):
    """Scores of a set's cell types.

    Attributes
    ----------
    scores : dict of type to dict of score to Interval
    counts : dict of type to Counts
        Pooled over the images.
    mpq_plus, mean_f1 : Interval
    confusion : int64 (T + 1, T + 1)
        Rows: the types in truth, then "not annotated"; columns: the types found, then "missed".
    """

    scores: dict[str, dict[str, Interval]]
    counts: dict[str, Counts]
    mpq_plus: Interval
    mean_f1: Interval
    confusion: NDArray[np.int64]


def count_types(
    truth: Labels, truth_types: Mapping[int, str], found: Labels, found_types: Mapping[int, str], names: Sequence[str]
) -> dict[str, Counts]:
    """Return the counts of each type of *names*: only nuclei of that type in truth and in the prediction.

    Nuclei without a type in *truth_types* or *found_types* (by label), or with one not in *names*, are left out.
    """

    def only(labels: Labels, types: Mapping[int, str], name: str) -> Labels:
        alike = np.isin(labels, [k for k, kind in types.items() if kind == name])
        return np.where(alike, labels, np.minimum(labels, 0))

    return {n: count(only(truth, truth_types, n), only(found, found_types, n), tolerance=None) for n in names}


def mpq_plus(by_type: Mapping[str, Counts]) -> float:
    """Return mPQ+: the mean over types of the PQ of *by_type*, whose counts are pooled over all images."""
    return float(np.mean([scores(c)["PQ"] for c in by_type.values()]))


def confusion(
    truth: Labels, truth_types: Mapping[int, str], found: Labels, found_types: Mapping[int, str], names: Sequence[str]
) -> NDArray[np.int64]:
    """Return how many nuclei of each true type (rows) were found as which type (columns), int64 (T + 1, T + 1).

    The last column holds missed nuclei, the last row found ones that match no true one. Nuclei of another or of no type
    are left out.
    """
    kinds = _numbers(truth, truth_types, names), _numbers(found, found_types, names)
    whole = truth, found
    truth, found = scored(truth, found)
    of_truth, of_found = (_kind(new, old, kind) for new, old, kind in zip((truth, found), whole, kinds, strict=True))
    pairs = overlaps(truth, found)
    t, f = pairs.truth[pairs.iou > MATCH_IOU], pairs.found[pairs.iou > MATCH_IOU]
    last = len(names)
    table = np.zeros((last + 1, last + 1), np.int64)
    both = (of_truth[t] >= 0) & (of_found[f] >= 0)
    np.add.at(table, (of_truth[t][both], of_found[f][both]), 1)
    missed, alone = np.delete(of_truth, [0, *t]), np.delete(of_found, [0, *f])
    table[:last, last] = np.bincount(missed[missed >= 0], minlength=last)
    table[last, :last] = np.bincount(alone[alone >= 0], minlength=last)
    return table


def image_means(
    each: Sequence[Counts],
    by_image: Sequence[Mapping[str, Counts]] = (),
    resamples: int = EvaluateSettings.resamples,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return PanNuke's bPQ, and with types its mPQ: means over the images that hold nuclei (Gamper et al. 2020).

    Parameters
    ----------
    each : sequence of Counts
        Of all nuclei, one per image.
    by_image : sequence of dict
        What :func:`count_types` gives for each image; in an image only types that it holds have a part.
    """
    values = {"bPQ": [scores(c)["PQ"] if c.truth else np.nan for c in each]}
    if by_image:
        there = [[scores(c)["PQ"] for c in image.values() if c.truth] for image in by_image]
        values["mPQ"] = [np.mean(found) if found else np.nan for found in there]
    drawn = resampling(len(each), resamples, seed)
    return {name: _mean_of_known(np.array(found, np.float64), drawn) for name, found in values.items()}


def _mean_of_known(values: NDArray[np.float64], drawn: NDArray[np.float64]) -> Interval:
    known = np.isfinite(values)
    if not known.any():
        return Interval(0.0, 0.0, 0.0)
    counts = drawn[:, known].sum(1)
    means = (drawn[:, known] @ values[known])[counts > 0] / counts[counts > 0]
    return interval(float(values[known].mean()), means)


def _numbers(labels: Labels, types: Mapping[int, str], names: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of the type of each label, -1 for another or none; of label 0 too."""
    out = np.full(int(labels.max(initial=0)) + 1, -1)
    for label, kind in types.items():
        if label < len(out) and kind in names:
            out[label] = names.index(kind)
    return out


def _kind(new: Labels, old: Labels, kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the type number of each label of *new*, which is *old* renumbered."""
    out = np.full(int(new.max(initial=0)) + 1, -1)
    out[new[new > 0]] = kinds[old[new > 0]]
    return out


def summarise_types(
    by_image: Sequence[Mapping[str, Counts]],
    tables: Sequence[NDArray[np.int64]],
    resamples: int = EvaluateSettings.resamples,
    seed: int = 0,
) -> TypeSummary:
    """Return pooled scores of every type with intervals from the same resamples as :func:`.cells.summarise` takes.

    Types without a nucleus in truth have no part in the means. In a resample the means are over the types that it has.

    Parameters
    ----------
    by_image : sequence of dict
        What :func:`count_types` gives for each image.
    tables : sequence of int64 (T + 1, T + 1)
        What :func:`confusion` gives for each image.
    """
    names = list(by_image[0])
    drawn = resampling(len(by_image), resamples, seed)
    counts = {name: pool([image[name] for image in by_image]) for name in names}
    again = {name: weighted(stack([image[name] for image in by_image]), drawn) for name in names}
    values, spread = {n: scores(c) for n, c in counts.items()}, {n: scores(c) for n, c in again.items()}
    each = {n: {s: interval(values[n][s], spread[n][s]) for s in OF_A_TYPE} for n in names}
    there = [n for n in names if counts[n].truth]
    means = []
    for score in ("PQ", "DQ"):
        shown = np.stack([np.where(again[n].truth > 0, spread[n][score], np.nan) for n in there])
        some = shown[:, np.isfinite(shown).any(axis=0)]
        means.append(interval(float(np.mean([values[n][score] for n in there])), np.nanmean(some, axis=0)))
    return TypeSummary(each, counts, means[0], means[1], np.sum(tables, axis=0))
