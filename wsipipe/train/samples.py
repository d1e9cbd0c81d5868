"""What a segmenter is shown: augmented crops of annotated images, and what it should say of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.labels import Annotated, DatasetSpec, type_names
from wsipipe.settings import FitSettings
from wsipipe.stain import Colours, average, change_of, colours_of, normalise
from wsipipe.train.augment import appearance, crop
from wsipipe.train.immunostain import immunostained
from wsipipe.train.losses import Targets
from wsipipe.train.targets import centre_map, class_map, directional_maps, merged_map, whole_weight

Pool = list[tuple[DatasetSpec, list[Annotated]]]
TILE = 256
"""Side of the tiles that the network sees when it is used."""


class Sample(NamedTuple):
    """A crop: image uint8 (H, W, 3), labels int32 (H, W), types int8 (H, W) (:attr:`Targets.types`), merged?"""

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    types: NDArray[np.int8]
    merged: bool = False


def crops_per_pass(pool: Pool, settings: FitSettings) -> float:
    """Return how many crops cover the images of *pool* once; at least one each."""
    each = (crops_in(a, settings) for _, images in pool for a in images)
    return sum(max(1.0, count) for count in each)


def crops_in(image: Annotated, settings: FitSettings) -> float:
    """Return the area of *image* in crops."""
    return float(image.labels.size * (image.mpp / settings.working_mpp) ** 2 / settings.crop_px**2)


def planned(settings: FitSettings, pool: Pool) -> FitSettings:
    """Return *settings* with the number of steps (and a shorter warm-up in a short run) and the side of the crops."""
    loop = settings.loop
    if not loop.steps:
        steps = max(1, math.ceil(settings.epochs * crops_per_pass(pool, settings) / settings.batch))
        loop = replace(loop, steps=steps, warmup=min(loop.warmup, steps // 10))
    return replace(settings, loop=loop, crop=settings.crop_px)


def types_in(pool: Pool, wanted: bool = True) -> tuple[str, ...]:
    """Return the names of the cell types in *pool*; none when there are not at least two, or they are not *wanted*."""
    names = type_names([a for _, images in pool for a in images]) if wanted else ()
    return names if len(names) > 1 else ()


def type_weights(pool: Pool, types: Sequence[str]) -> Tensor:
    """Return how much a pixel of each type counts, float32 (T,): the rarer, the more; 1 on average over the types."""
    kinds = [kind for _, images in pool for a in images for kind in a.types]
    counts = np.array([max(1, kinds.count(name)) for name in types], np.float64)
    weights = (counts.sum() / counts) ** 0.5
    return torch.from_numpy(weights / weights.mean()).float()


def type_map(labels: NDArray[np.int32], source: Annotated, types: Sequence[str]) -> NDArray[np.int8]:
    """Return the number of each pixel's type, 1.. in the order of *types*, 0 where there is none, int8 (H, W)."""
    number = {name: k for k, name in enumerate(types, 1)}
    kinds = np.array([0, *(number.get(kind, 0) for kind in source.types)], np.int8)
    if len(kinds) == 1:
        return np.zeros(labels.shape, np.int8)
    chosen: NDArray[np.int8] = kinds[np.maximum(labels, 0)]
    return chosen


def sample(pool: Pool, size: int, settings: FitSettings, rng: np.random.Generator, types: Sequence[str] = ()) -> Sample:
    """Return one augmented crop of side *size*."""
    weights = np.array([spec.weight for spec, _ in pool])
    images = pool[rng.choice(len(pool), p=weights / weights.sum())][1]
    areas = np.array([a.labels.size * a.mpp**2 for a in images]) ** 0.5
    return augmented(images[rng.choice(len(images), p=areas / areas.sum())], size, settings, rng, types)


def augmented(
    source: Annotated, size: int, settings: FitSettings, rng: np.random.Generator, types: Sequence[str]
) -> Sample:
    """Return an augmented crop of *source* of side *size*."""
    image, labels = crop(source, size, settings.working_mpp, rng, settings.augment)
    if settings.augment.dab and rng.random() < settings.augment.dab:
        image = immunostained(image, labels, rng)
    return Sample(appearance(image, rng, settings.augment), labels, type_map(labels, source, types), source.merged)


def batch_of(step: int, pool: Pool, settings: FitSettings, types: Sequence[str] = ()) -> tuple[Tensor, Targets]:
    """Return the images (B, 3, size, size) in [-1, 1] and targets of *step*; a function of (seed, step) alone."""
    size = TILE if step >= whole_tiles_from(settings) else settings.crop_px
    count = max(1, round(settings.batch * (settings.crop_px / size) ** 2))
    rngs = [np.random.default_rng((settings.seed, step, i)) for i in range(count)]
    samples = [sample(pool, size, settings, rng, types) for rng in rngs]
    return images_of([s.image for s in samples]), targets_of(samples, bool(types))


def whole_tiles_from(settings: FitSettings) -> float:
    """Return the step from which on the crops are as large as tiles: a share of all steps, or the plateau's end."""
    loop = settings.loop
    return loop.steps - loop.cooldown if loop.schedule == "plateau" else loop.steps * (1 - settings.final_share)


def colours_in(pool: Pool, working_mpp: float) -> Colours | None:
    """Return the colours that crops of *pool* have on average, at *working_mpp*; see :mod:`wsipipe.stain`.

    None where they show hardly any tissue, or none but grey.
    """

    def of(a: Annotated) -> Colours | None:
        return colours_of([_shown(a, working_mpp)])

    found = average((average((of(a), 1.0) for a in images), spec.weight) for spec, images in pool)
    return found if found and min(found.spread) > 0 else None


def normalised(pool: Pool, target: Colours, working_mpp: float) -> Pool:
    """Return *pool* with every image brought to the colours *target*."""

    def changed(a: Annotated) -> Annotated:
        change = change_of([_shown(a, working_mpp)], target)
        return replace(a, image=normalise(a.image[None], change)[0]) if change else a

    return [(spec, [changed(a) for a in images]) for spec, images in pool]


def _shown(a: Annotated, working_mpp: float) -> NDArray[np.uint8]:
    """Return the image at the resolution that its crops have."""
    f = min(1.0, a.mpp / working_mpp)
    return np.asarray(cv2.resize(a.image, None, fx=f, fy=f, interpolation=cv2.INTER_AREA), np.uint8)


def images_of(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return pictures (H, W, 3) as a batch (B, 3, H, W) in [-1, 1], channels last in memory."""
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def targets_of(samples: Sequence[Sample], typed: bool = False) -> Targets:
    """Return what a batch of crops, whose labels are -1 where not annotated, should predict."""
    known = [np.maximum(s.labels, 0) for s in samples]
    classes = [(merged_map if s.merged else class_map)(k).astype(np.int64) for s, k in zip(samples, known)]
    classes = [np.where(s.labels < 0, -1, c) for s, c in zip(samples, classes)]
    return Targets(
        torch.from_numpy(np.stack(classes)),
        torch.from_numpy(np.stack([directional_maps(k) for k in known])),
        torch.from_numpy(np.stack([centre_map(k) for k in known])),
        torch.from_numpy(np.stack([whole_weight(s.labels, s.merged) for s in samples])),
        torch.from_numpy(np.stack([s.types for s in samples])).long() if typed else None,
    )
