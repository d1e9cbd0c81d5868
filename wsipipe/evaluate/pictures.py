"""What an evaluation shows: label maps, and pictures of what was right and wrong in the best and worst images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_write
from wsipipe.evaluate.image import Labels
from wsipipe.evaluate.metrics import MATCH_IOU, Counts, boundary, overlaps, scored, scores
from wsipipe.figure.overlay import View, draw_legend, draw_scale_bar, write_png
from wsipipe.labels import Annotated

COLOURS = {"found": (0, 220, 60), "false": (255, 30, 30), "missed": (255, 225, 0)}
"""Outlines: found nuclei that match a true one, those that do not, and true ones without a match."""
PICTURE_SIDE = 1600
"""Small images are shown enlarged up to about this side."""


def ranked(counted: list[tuple[Annotated, Counts]], pictures: int) -> dict[str, Annotated]:
    """Return the best and worst images by PQ, by the name of their picture; those without nuclei are left out."""
    order = sorted((pair for pair in counted if pair[1].truth), key=lambda pair: -scores(pair[1])["PQ"])
    best = order[: min(pictures, (len(order) + 1) // 2)]
    worst = order[::-1][: min(pictures, len(order) // 2)]
    named = {f"best-{i}-{item.name}": item for i, (item, _) in enumerate(best, 1)}
    return named | {f"worst-{i}-{item.name}": item for i, (item, _) in enumerate(worst, 1)}


def write_labels(folder: Path, name: str, labels: Labels) -> None:
    """Write a label map as 16-bit PNG, or as NPY when it holds more than 65,535 cells."""
    folder.mkdir(exist_ok=True)
    if labels.max(initial=0) > np.iinfo(np.uint16).max:
        with atomic_write(folder / f"{name}.npy") as file:
            np.save(file, labels)
        return
    _, data = cv2.imencode(".png", labels.astype(np.uint16))
    with atomic_write(folder / f"{name}.png") as file:
        file.write(data.tobytes())


def write_pictures(folder: Path, items: Mapping[str, Annotated], found: Mapping[str, Labels]) -> None:
    """Write a PNG per entry of *items* (by its name): the image with right and wrong outlines; old ones go."""
    folder.mkdir(exist_ok=True)
    for old in [*folder.glob("best-*.png"), *folder.glob("worst-*.png")]:
        old.unlink()
    for name, item in items.items():
        write_png(folder / f"{name}.png", picture(item, found[item.name]))


def picture(item: Annotated, found: Labels) -> NDArray[np.uint8]:
    """Return the image, enlarged when small, with outlines in :data:`COLOURS`, a legend and a scale bar."""
    height, width = found.shape
    times = max(1, min(4, PICTURE_SIDE // max(height, width)))
    truth, found = scored(item.labels, found)
    pairs = overlaps(truth, found)
    good = pairs.iou > MATCH_IOU
    hit = np.isin(found, pairs.found[good])
    layers = {
        "missed": np.where(np.isin(truth, pairs.truth[good]), 0, truth),
        "false": np.where(hit, 0, found),
        "found": np.where(hit, found, 0),
    }
    view = View(_enlarged(item.image, times), (0, 0, width, height), (1 / times,) * 2, (item.mpp / times,) * 2)
    for name, labels in layers.items():
        view.rgb[_outline(labels, times)] = COLOURS[name]
    numbers = {name: len(np.unique(labels[labels > 0])) for name, labels in layers.items()}
    draw_legend(view, {f"{name}: {numbers[name]}": colour for name, colour in COLOURS.items()})
    draw_scale_bar(view)
    return view.rgb


def _enlarged(image: NDArray[np.uint8], times: int) -> NDArray[np.uint8]:
    size = image.shape[1] * times, image.shape[0] * times
    return np.array(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _outline(labels: Labels, times: int) -> NDArray[np.bool_]:
    """Return the outline, two pixels wide, of every nucleus in an enlarged picture."""
    large = np.repeat(np.repeat(labels, times, axis=0), times, axis=1)
    edge = boundary(large)
    if times == 1:
        return edge
    wide = cv2.dilate(edge.view(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return wide & (large > 0)
