"""The linear head at its optimum: logistic regression on frozen features, by L-BFGS.

The loss is convex, so the result does not depend on a rate, a number of steps or an order of batches, and differences
between backbones are differences of their features. Pixels are drawn at random from the crops of the views that
``cache_features`` asks for (one, without augmentation, where it is 0), a function of the seed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from wsipipe.errors import DatasetError, SettingsError
from wsipipe.models.heads import Head, Linear, resize
from wsipipe.settings import FitSettings
from wsipipe.train.cached import VIEW_STREAM, batches_of, crops_of, views
from wsipipe.train.samples import Pool, Sample, images_of, targets_of

log = logging.getLogger(__name__)

Matrix = NDArray[np.float64]
Extract = Callable[[Tensor], Sequence[Tensor]]
PIXELS = 100_000
"""Most pixels that the regression sees."""
BYTES = 1 << 30
"""Most memory of their features; very wide backbones get fewer pixels."""
RIDGE = 1e-4
"""Weight of half the squared coefficients of standardised features, beside the mean cross-entropy of a pixel."""
ITERATIONS = 5000
"""Where L-BFGS gives up; it takes tens to hundreds."""


def check_probe(settings: FitSettings) -> None:
    """Refuse settings under which there is no optimum to be found.

    Raises
    ------
    SettingsError
    """
    if settings.head != "linear" or not settings.frozen or settings.types_only:
        raise SettingsError(
            "--optimiser lbfgs finds the optimum of a linear head on a frozen backbone; give --head linear and "
            "--no-unfreeze, and leave --adapt and --types-only out"
        )


def fit_probe(
    head: Head,
    extract: Extract,
    pool: Pool,
    settings: FitSettings,
    types: Sequence[str],
    cached: Callable[[int, int], None] = lambda done, total: None,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Give *head*, a linear one, the weights of the regression.

    Parameters
    ----------
    extract : images (B, 3, H, W) -> feature maps
    settings : FitSettings
        As planned; see :func:`wsipipe.train.samples.planned`.
    types : sequence of str
        Cell types that the head tells; nuclei of unknown type are left out then.
    cached : (crops done, crops in all) -> None
    report : (iteration, loss) -> None

    Raises
    ------
    DatasetError
        When no pixel is annotated, or the features are no finite numbers.
    """
    x, y = _pixels(
        head, extract, pool, replace(settings, cache_features=max(1, settings.cache_features)), types, cached
    )
    if not len(x):
        raise DatasetError("no pixel of the training crops has a known class; check the labels")
    if not np.isfinite(x).all():
        raise DatasetError("the frozen features are no finite numbers; expected another --backbone")
    mean, spread = x.mean(0), x.std(0)
    spread[spread < 1e-12 * max(1.0, float(spread.max(initial=0.0)))] = 1.0
    x -= mean
    x /= spread
    weights, biases = _regression(x, y, head.channels, report)
    weights /= spread
    _put(head, weights, biases - weights @ mean)


def _put(head: Head, weights: Matrix, biases: Matrix) -> None:
    """Give the levels of *head* their part of *weights* (K, D), the first one also *biases* (K,)."""
    levels = cast(Linear, head.trunk).levels
    parts = np.split(weights, np.cumsum(head.config.widths)[:-1], axis=1)
    with torch.no_grad():
        for level, part in zip(levels, parts, strict=True):
            cast(Tensor, level.weight).copy_(torch.from_numpy(part)[:, :, None, None])
        cast(Tensor, levels[0].bias).copy_(torch.from_numpy(biases))


def _regression(
    x: Matrix, y: NDArray[np.int64], classes: int, report: Callable[[int, float], None]
) -> tuple[Matrix, Matrix]:
    """Return the coefficients (K, D) and constants (K,) of the softmax regression of *y* (n,) on *x* (n, D)."""
    n, d = x.shape
    rows = np.arange(n)
    seen = [0.0]

    def loss(flat: Matrix) -> tuple[float, Matrix]:
        both = flat.reshape(classes, d + 1)
        logits = x @ both[:, :d].T + both[:, d]
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits)
        total = p.sum(1)
        value = float(np.mean(np.log(total) - logits[rows, y])) + 0.5 * RIDGE * float((both[:, :d] ** 2).sum())
        p /= total[:, None]
        p[rows, y] -= 1
        p /= n
        seen[0] = value
        return value, np.concatenate((p.T @ x + RIDGE * both[:, :d], p.sum(0)[:, None]), 1).ravel()

    iterations = iter(range(ITERATIONS + 1))
    found = minimize(
        loss,
        np.zeros(classes * (d + 1)),
        jac=True,
        method="L-BFGS-B",
        callback=lambda flat: report(next(iterations), seen[0]),
        options={"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "maxcor": 20, "gtol": 1e-6, "ftol": 1e-14},
    )
    if not found.success and np.abs(found.jac).max() > 1e-4:
        log.warning("the linear probe stopped before its optimum, after %d iterations: %s", found.nit, found.message)
    both = found.x.reshape(classes, d + 1)
    return both[:, :d], both[:, d]


def _pixels(
    head: Head,
    extract: Extract,
    pool: Pool,
    settings: FitSettings,
    types: Sequence[str],
    cached: Callable[[int, int], None],
) -> tuple[Matrix, NDArray[np.int64]]:
    """Return features (n, D) and classes (n,) of pixels of all views."""
    total = settings.cache_features * crops_of(pool, settings)
    each = max(1, min(PIXELS, BYTES // (8 * sum(head.config.widths))) // total)
    features: list[Matrix] = []
    classes: list[NDArray[np.int64]] = []
    done = 0
    for batch in batches_of(views(pool, settings, types), settings.batch):
        maps = [m.float().cpu() for m in extract(images_of([s.image for s in batch]))]
        for k, (right, sample) in enumerate(zip(_classes(batch, bool(types)), batch, strict=True)):
            known = np.flatnonzero(right >= 0)
            rng = np.random.default_rng((settings.seed, VIEW_STREAM, settings.cache_features, done + k))
            drawn = np.sort(rng.choice(known, min(each, len(known)), replace=False))
            features.append(_at([m[k : k + 1] for m in maps], drawn, sample.labels.shape))
            classes.append(right.ravel()[drawn])
        done += len(batch)
        cached(done, total)
    return np.concatenate(features), np.concatenate(classes)


def _classes(batch: Sequence[Sample], typed: bool) -> Iterator[NDArray[np.int64]]:
    """Yield the class of every pixel of each sample, -1 where it is not known."""
    targets = targets_of(batch, typed)
    for k in range(len(batch)):
        found = targets.classes[k].numpy()
        right = np.where(found > 0, 1, found)
        if targets.types is not None:
            kinds = targets.types[k].numpy()
            right = np.where(found > 0, np.where(kinds > 0, kinds, -1), found)
        yield right.astype(np.int64)


def _at(maps: Sequence[Tensor], drawn: NDArray[np.int64], shape: tuple[int, ...]) -> Matrix:
    """Return what the linear head sees of *maps* (1, C, h, w) at the pixels *drawn* of a crop: (n, D).

    Levels are resized to the finest, that to the crop, as the head does with logits.
    """
    height, width = shape
    y, x = np.divmod(drawn, width)
    places = np.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), 1)
    grid = torch.from_numpy(places).float()[None, None]
    size = cast(tuple[int, int], tuple(maps[-1].shape[-2:]))
    found = [F.grid_sample(resize(m, size), grid, "bilinear", "border", align_corners=False)[0, :, 0].T for m in maps]
    return torch.cat(found, 1).double().numpy()
