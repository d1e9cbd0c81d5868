"""Which stains a slide has: as the user says, as its cells file does, or by its own colours, which is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsipipe.geometry import intersect
from wsipipe.raster import Raster
from wsipipe.stain import sampled
from wsipipe.stain.unmix import (
    DEFAULTS,
    HE,
    StainVectors,
    angle,
    contradicts,
    estimate,
    guess,
    read_vectors,
    vectors_of,
)
from wsipipe.units import Box

Pixels = NDArray[np.uint8]
WINDOWS, SIDE = 16, 256
"""Places that tell a slide's stains, and their side in pixels of the working grid."""


def stains_of(
    asked: str, pixels: Callable[[], Pixels], known: Mapping[str, str] | None = None
) -> tuple[StainVectors, str]:
    """Return the stain vectors that *asked* means, and a line that tells of them; "" where there is nothing to tell.

    Parameters
    ----------
    asked : str
        :attr:`wsipipe.settings.StainSettings.stain_vectors`.
    pixels : callable
        Gives pixels (n, 3) of the slide's tissue, where they are needed.
    known : mapping, optional
        What a cells file says of its stains, which auto takes.

    Raises
    ------
    SettingsError
        When a file is not one of stain vectors, or nothing can be estimated.
    """
    if asked in DEFAULTS:
        return DEFAULTS[asked], ""
    if asked == "auto" and known:
        return vectors_of(known), ""
    if asked not in ("auto", "estimate"):
        return read_vectors(Path(asked)), ""
    seen = pixels()
    like = guess(seen)
    if asked == "auto":
        other = "hdab" if like is HE else "he"
        return like, f"stains: taken for {' and '.join(n for n, _ in like.stains)}, by the colours of the slide " + (
            f"(--stain-vectors {other}, or a file, says otherwise)"
        )
    found = estimate(seen, like)
    turned = [f"{n} {angle(v, w):.1f}° from the default" for (n, v), (_, w) in zip(found.stains, like.stains)]
    return found, f"stains estimated: {', '.join(turned)}; {found.as_dict()}"


def stain_doubts(asked: str, vectors: StainVectors, pixels: Callable[[], Pixels]) -> tuple[str, ...]:
    """Return a line when the slide does not look as if it had the stains that were *asked* for; else nothing."""
    if asked in ("auto", "estimate"):
        return ()
    told = contradicts(vectors, pixels())
    return (f"--stain-vectors {asked}: {told}",) if told else ()


def pixels_in(raster: Raster, boxes: Sequence[Box]) -> Pixels:
    """Return pixels (n, 3) of up to :data:`WINDOWS` of the *boxes* (grid px), spread evenly."""
    chosen = sampled(len(boxes))
    chosen = np.unique(chosen[np.linspace(0, len(chosen) - 1, min(WINDOWS, len(chosen))).round().astype(int)])
    read = [raster.read(boxes[k])[::2, ::2].reshape(-1, 3) for k in chosen.tolist()]
    return np.concatenate([*read, np.zeros((0, 3), np.uint8)])


def boxes_around(master: Path, raster: Raster) -> list[Box]:
    """Return windows (grid px) around some of the cells of a master file."""
    with pq.ParquetFile(master) as file:
        groups: Iterable[Any] = (file.read_row_group(i, columns=["x", "y"]) for i in range(file.num_row_groups))
        xy = [np.column_stack([t["x"].to_numpy(), t["y"].to_numpy()])[:: max(1, t.num_rows // 64)] for t in groups]
    boxes = []
    for x, y in np.concatenate([*xy, np.zeros((0, 2))]) / np.array(raster.grid.scale):
        left, top = int(x) - SIDE // 2, int(y) - SIDE // 2
        boxes.append(intersect((left, top, left + SIDE, top + SIDE), (0, 0, *raster.grid.size)))
    return boxes
