"""Dense features as numbers: clusters of places, and the similarity of places to one of them.

A *view* is a tuple of maps of one region, float32 (h, w, C), coarse to fine: one level of the decoder, or all of them,
which then count as one map of the finest level's resolution, the others enlarged (bilinearly) as heads do. That map is
never made: it would hold gigabytes for the largest backbones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq

from wsipipe.units import Pair

SAMPLE = 8192
"""Places that centres of clusters are sought among, drawn at random over all regions."""
RUNS, ITERATIONS = 4, 50
"""Starts of K-means, of which the best counts, and steps of each."""
CHANNELS = 64
"""Channels enlarged at a time."""

Floats = NDArray[np.float32]
View = tuple[Floats, ...]


def standardised(views: Sequence[View]) -> list[View]:
    """Return *views* with mean 0 and standard deviation 1 in every channel, over all regions together."""
    levels = []
    for maps in zip(*views):
        places = sum(m.shape[0] * m.shape[1] for m in maps)
        mean = sum(m.sum(axis=(0, 1), dtype=np.float64) for m in maps) / places
        spread = np.sqrt(sum(((m - mean) ** 2).sum(axis=(0, 1)) for m in maps) / places)
        spread[spread < 1e-6 * (1 + np.abs(mean))] = np.inf  # a constant channel says nothing
        levels.append([((m - mean) / spread).astype(np.float32) for m in maps])
    return [tuple(maps) for maps in zip(*levels)]


def clusters(
    views: Sequence[View], pictures: Sequence[NDArray[np.uint8]], count: int, seed: int
) -> list[NDArray[np.intp]]:
    """Return the cluster of every place, by K-means over all regions together.

    Parameters
    ----------
    views : sequence of View
        One per region, standardised.
    pictures : sequence of uint8 (side, side, 3)
        Of the regions: clusters are numbered from the darkest to the lightest, so that numbers, and so colours, mean
        the same thing in every map and run.
    count : int
        K, the number of clusters.
    seed : int
        Of the places drawn and the starts.

    Returns
    -------
    list of intp (h, w)
        Cluster 0 to *count* - 1 of every place of the finest level.
    """
    rng = np.random.default_rng(seed)
    centres = _centres(_drawn(views, rng), count, rng)
    found = [_nearest(view, centres) for view in views]
    return _by_darkness(found, pictures, count)


def similarity(view: View, point: Pair) -> Floats:
    """Return the cosine of the angle between each place's features and those at *point*, float32 (h, w) in [-1, 1].

    Parameters
    ----------
    point : (float, float)
        x and y as shares of the region's side.
    """
    shape = view[-1].shape[:2]
    row, column = np.array([point[1] * shape[0]]), np.array([point[0] * shape[1]])
    product, squares, own = np.zeros(shape), np.zeros(shape), 0.0
    for level in view:
        there = _at(level, row, column, shape)[0]
        own += float(there @ there)
        for start in range(0, level.shape[-1], CHANNELS):
            part = slice(start, start + CHANNELS)
            large = _enlarged(level[..., part], shape)
            product += large @ there[part]
            squares += np.einsum("hwc,hwc->hw", large, large)
    length = np.sqrt(squares * own)
    return np.divide(product, length, out=np.zeros(shape), where=length > 0).clip(-1, 1).astype(np.float32)


def _drawn(views: Sequence[View], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the features (n, C) of places drawn at random, as many from each region."""
    found, share = [], -(-SAMPLE // len(views))
    for view in views:
        height, width = view[-1].shape[:2]
        index = rng.permutation(height * width)[:share]
        row, column = index // width + 0.5, index % width + 0.5
        found.append(np.concatenate([_at(level, row, column, (height, width)) for level in view], axis=1))
    return np.concatenate(found)


def _at(
    level: Floats, row: NDArray[np.float64], column: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the features (n, C) of *level*, enlarged to *shape*, at points of that shape."""
    (y0, y1, fy), (x0, x1, fx) = (
        _between(where, size, wanted) for where, size, wanted in zip((row, column), level.shape, shape)
    )
    upper = level[y0, x0] * (1 - fx) + level[y0, x1] * fx
    lower = level[y1, x0] * (1 - fx) + level[y1, x1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float64)


def _between(
    where: NDArray[np.float64], size: int, wanted: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the two pixels that a point lies between, and its share (n, 1) of the way."""
    place = np.clip(where * size / wanted - 0.5, 0, size - 1)
    low = np.floor(place).astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (place - low)[:, None]


def _centres(data: NDArray[np.float64], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the centres (count, C) of the best of several runs of K-means."""
    best, least = data[:count], np.inf
    for _ in range(RUNS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty cluster: places that are all alike have fewer than *count*
            centres, _ = kmeans2(data, count, iter=ITERATIONS, minit="++", rng=rng)
        total = float((vq(data, centres)[1] ** 2).sum())
        if total < least:
            best, least = centres, total
    return np.asarray(best, np.float64)


def _nearest(view: View, centres: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the nearest centre of every place.

    |x - c|² = |x|² - 2 x·c + |c|²: the first term is the same for all centres, and x·c is enlarged in place of x.
    """
    shape, start = view[-1].shape[:2], 0
    score = np.broadcast_to((centres**2).sum(axis=1), (*shape, len(centres))).copy()
    for level in view:
        part = centres[:, start : start + level.shape[-1]]
        score -= 2 * _enlarged((level @ part.T).astype(np.float32), shape)
        start += level.shape[-1]
    return np.asarray(score.argmin(axis=-1), np.intp)


def _enlarged(level: Floats, shape: tuple[int, int]) -> Floats:
    """Return *level* (h, w, C) bilinearly enlarged to *shape* (height, width)."""
    if level.shape[:2] == shape:
        return level
    large = cv2.resize(level, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32).reshape(*shape, level.shape[-1])


def _by_darkness(
    found: Sequence[NDArray[np.intp]], pictures: Sequence[NDArray[np.uint8]], count: int
) -> list[NDArray[np.intp]]:
    """Return clusters numbered anew, from the darkest in *pictures* to the lightest."""
    light, places = np.zeros(count), np.zeros(count)
    for labels, picture in zip(found, pictures):
        height, width = labels.shape
        grey = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).mean(axis=-1)
        light += np.bincount(labels.ravel(), weights=grey.ravel(), minlength=count)
        places += np.bincount(labels.ravel(), minlength=count)
    mean = np.divide(light, places, out=np.full(count, np.inf), where=places > 0)
    number = np.empty(count, np.intp)
    number[np.argsort(mean, kind="stable")] = np.arange(count)
    return [number[labels] for labels in found]
