"""Frozen features computed once and kept on disk, so that many epochs of a small head take minutes.

A view shows every image of the training set once, in as many crops as cover it. One view has no augmentation: a
regular grid of crops. K views are K differently augmented ones, all from the seed. A row of the cache holds the six
feature maps of a crop in float16, and what the head should say of it. The weights of several sets do not matter here.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.artifacts import digest, from_json, remove_leftovers, write_json
from wsipipe.errors import OutputError
from wsipipe.labels import Annotated
from wsipipe.runs import atomic_folder
from wsipipe.settings import FitSettings
from wsipipe.train.augment import plain_crop
from wsipipe.train.losses import Targets
from wsipipe.train.samples import Pool, Sample, augmented, crops_in, images_of, targets_of, type_map

log = logging.getLogger(__name__)

VIEW_STREAM = 1 << 40
"""Keeps the random streams of views apart from those of steps."""
Extract = Callable[[Tensor], Sequence[Tensor]]


class FeatureCache:
    """The cache of a run: rows of feature maps and targets, and which rows a step takes.

    Parameters
    ----------
    folder : Path
    settings : FitSettings
        As planned; see :func:`wsipipe.train.samples.planned`.
    """

    def __init__(self, folder: Path, settings: FitSettings) -> None:
        about = from_json((folder / "about.json").read_text(encoding="utf-8"))
        self.settings, self.crops, self.views = settings, about["crops"], about["views"]
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in about["arrays"]}
        self._order = lru_cache(2)(self._shuffled)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.settings.seed, VIEW_STREAM, epoch)).permutation(self.crops)

    def rows(self, step: int) -> list[int]:
        """Return the rows of *step*: every epoch is one view in an order of its own."""
        first = step * self.settings.batch
        places = [divmod(i, self.crops) for i in range(first, first + self.settings.batch)]
        return [epoch % self.views * self.crops + int(self._order(epoch)[i]) for epoch, i in places]

    def batch(self, step: int) -> tuple[list[Tensor], Targets]:
        """Return the feature maps (B, C, h, w), coarse to fine, and targets of *step*."""
        rows = self.rows(step)
        taken = {name: torch.from_numpy(np.stack([array[r] for r in rows])) for name, array in self.arrays.items()}
        levels = sum(name.startswith("level") for name in taken)
        features = [taken[f"level{k}"].float().permute(0, 3, 1, 2) for k in range(levels)]
        directions, centres, weight = (taken[name].float() for name in ("directions", "centres", "weight"))
        types = taken["types"].long() if "types" in taken else None
        return features, Targets(taken["classes"].long(), directions, centres, weight, types)


def feature_cache(
    folder: Path,
    pool: Pool,
    settings: FitSettings,
    types: Sequence[str],
    extract: Extract,
    report: Callable[[int, int], None] = lambda done, total: None,
    weights: str = "",
) -> FeatureCache:
    """Return the cache in *folder*, made first when it is not there; it appears whole or not at all.

    One of other images, settings or weights is made again.

    Parameters
    ----------
    extract : images (B, 3, H, W) -> feature maps
        On the CPU or not; without gradient.
    weights : str
        Digest of the weights behind *extract*.
    report : (crops done, crops in all) -> None

    Raises
    ------
    OutputError
        When the disk is too small, which is found out first.
    """
    key = _key(pool, settings, types, weights)
    if (folder / "about.json").exists():
        if from_json((folder / "about.json").read_text(encoding="utf-8")).get("key") == key:
            return FeatureCache(folder, settings)
        log.warning("%s: features of another backbone, or of other images or crops; they are computed again", folder)
    remove_leftovers(folder)
    crops = crops_of(pool, settings)
    total, done = crops * settings.cache_features, 0
    writers: dict[str, _Rows] = {}
    with atomic_folder(folder, "about.json") as part:
        try:
            for batch in batches_of(views(pool, settings, types), settings.batch):
                rows = _rows(batch, extract, bool(types))
                if not writers:
                    _check_room(part, rows, total, settings)
                    writers = {name: _Rows(part / f"{name}.npy", array, total) for name, array in rows.items()}
                for name, array in rows.items():
                    writers[name].write(array)
                done += len(batch)
                report(done, total)
        finally:
            for writer in writers.values():
                writer.close()
        about = {"key": key, "crops": crops, "views": settings.cache_features, "arrays": list(writers)}
        write_json(part / "about.json", about)
    return FeatureCache(folder, settings)


def _key(pool: Pool, settings: FitSettings, types: Sequence[str], weights: str) -> str:
    """Return the digest of all that rows of the cache follow from."""
    names = "cache_features", "crop_px", "working_mpp", "seed", "precision", "augment"
    asked = {name: getattr(settings, name) for name in names}
    images = [
        (a.name, a.mpp, a.types, *(hashlib.sha256(x.tobytes()).hexdigest() for x in (a.image, a.labels)))
        for _, images in pool
        for a in images
    ]
    return digest([weights, asked, types, images])


def _rows(batch: Sequence[Sample], extract: Extract, typed: bool) -> dict[str, NDArray[Any]]:
    """Return what the cache keeps of some crops, channels last."""
    features = extract(images_of([s.image for s in batch]))
    targets = targets_of(batch)
    rows = {f"level{k}": f.permute(0, 2, 3, 1).half().cpu().numpy() for k, f in enumerate(features)}
    rows["classes"] = targets.classes.to(torch.int8).numpy()
    rows |= {name: getattr(targets, name).half().numpy() for name in ("directions", "centres", "weight")}
    return rows | ({"types": np.stack([s.types for s in batch])} if typed else {})


class _Rows:
    """An NPY file that grows row by row; a full disk is an error, not a crash as with memory maps."""

    def __init__(self, path: Path, first: NDArray[Any], rows: int) -> None:
        self.path, self.file = path, path.open("wb")
        shape = (rows, *first.shape[1:])
        header = {"descr": npy.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_2_0(self.file, header)

    def write(self, rows: NDArray[Any]) -> None:
        try:
            self.file.write(np.ascontiguousarray(rows).tobytes())
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written ({error.strerror}); free some space") from error

    def close(self) -> None:
        self.file.close()


def _check_room(folder: Path, rows: dict[str, NDArray[Any]], total: int, settings: FitSettings) -> None:
    need = sum(array.nbytes // len(array) for array in rows.values()) * total / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    if need > 0.98 * free:
        raise OutputError(
            f"{folder.parent}: --cache-features {settings.cache_features} needs {need:.1f} GB for {total} crops, and "
            f"{free:.1f} GB are free; take fewer views, a smaller backbone or another --output"
        )


def crops_of(pool: Pool, settings: FitSettings) -> int:
    """Return how many crops a view shows of *pool*."""
    return sum(_count(a, settings) for _, images in pool for a in images)


def _count(image: Annotated, settings: FitSettings) -> int:
    """Return how many crops a view shows of *image*."""
    if settings.cache_features == 1:
        columns, rows = _grid(image, settings)
        return len(columns) * len(rows)
    return max(1, math.ceil(crops_in(image, settings) - 0.01))


def views(pool: Pool, settings: FitSettings, types: Sequence[str]) -> Iterator[Sample]:
    """Yield the crops of all views, one after the other."""
    images = [a for _, images in pool for a in images]
    if settings.cache_features == 1:
        yield from (_plain(a, corner, settings, types) for a in images for corner in _corners(a, settings))
        return
    for view in range(settings.cache_features):
        shown = [a for a in images for _ in range(_count(a, settings))]
        for i, image in enumerate(shown):
            rng = np.random.default_rng((settings.seed, VIEW_STREAM, view, i))
            yield augmented(image, settings.crop_px, settings, rng, types)


def _plain(image: Annotated, corner: tuple[float, float], settings: FitSettings, types: Sequence[str]) -> Sample:
    pixels, labels = plain_crop(image, corner, settings.crop_px, settings.working_mpp)
    return Sample(pixels, labels, type_map(labels, image, types), image.merged)


def _corners(image: Annotated, settings: FitSettings) -> list[tuple[float, float]]:
    columns, rows = _grid(image, settings)
    return [(x, y) for y in rows for x in columns]


def _grid(image: Annotated, settings: FitSettings) -> tuple[list[float], list[float]]:
    """Return where crops begin along x and y, on the working grid: evenly spread, the last one at the edge."""
    height, width = (side * image.mpp / settings.working_mpp for side in image.labels.shape)
    return _starts(width, settings.crop_px), _starts(height, settings.crop_px)


def _starts(side: float, size: int) -> list[float]:
    count = max(1, math.ceil(side / size - 0.01))
    return np.linspace(0, side - size, count).tolist() if count > 1 else [(side - size) / 2]


def batches_of(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    """Yield *samples* in lists of *size*, the last one perhaps shorter."""
    batch: list[Sample] = []
    for one in samples:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
