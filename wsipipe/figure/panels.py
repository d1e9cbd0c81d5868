"""The parts of the sheet: clusters of dense features, similarity to a point, reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wsipipe.figure import maps as numbers
from wsipipe.figure.maps import View
from wsipipe.figure.regions import Region, together
from wsipipe.figure.sheet import COLOURS, Pixels, Section, coloured, heated, picture, resized
from wsipipe.infer.dense import DenseBackbone
from wsipipe.raster.tiling import TILE
from wsipipe.settings import VisualizeSettings
from wsipipe.stain.unmix import HE
from wsipipe.train.diffusion import masked_count
from wsipipe.units import Pair

NUCLEUS_UM = 2.0
"""Width (standard deviation) of the blur under which the darkest place is inside a nucleus."""


@dataclass(frozen=True)
class Looked:
    """A region, the point to compare with (shares of its side), and its maps by their side in a tile."""

    region: Region
    point: Pair
    maps: dict[int, numbers.Floats]


def _views(looked: Sequence[Looked], name: str) -> list[View]:
    """Return the map of that name of every region; ``all``: all levels, to be taken as one."""
    sides = sorted(looked[0].maps) if name == "all" else [int(name)]
    return [tuple(one.maps[side] for side in sides) for one in looked]


def _caption(name: str, looked: Sequence[Looked]) -> str:
    """Return what stands above a map: how fine it is."""
    several = {one.region.mpp for one in looked}
    mpp = several.pop() if len(several) == 1 else None
    step = TILE // (max(looked[0].maps) if name == "all" else int(name))
    fine = f"{step * mpp[0]:.3g} µm" if mpp else f"{step} px"
    return f"all maps as one, {fine}" if name == "all" else f"{name} x {name} a tile, {fine}"


def clusters(looked: Sequence[Looked], backbone: DenseBackbone, settings: VisualizeSettings) -> Section:
    """Return K-means of the dense features, at every resolution asked for."""
    columns = []
    for name in settings.shown_maps:
        views, pictures = _views(looked, name), [one.region.pixels for one in looked]
        groups = [slice(None)] if settings.joint else [slice(k, k + 1) for k in range(len(looked))]
        labels = []
        for group in groups:
            view = numbers.standardised(views[group])
            labels += numbers.clusters(view, pictures[group], settings.clusters, settings.seed)
        columns.append([coloured(found, settings.panel) for found in labels])
    names = ["darkest", *[str(k) for k in range(2, settings.clusters)], "lightest"]
    how = "" if len(looked) == 1 else ", all regions together" if settings.joint else ", each region by itself"
    return Section(
        "Clusters of dense features",
        f"K-means, K = {settings.clusters}{how}; numbered by how dark the tissue is",
        ["tissue", *(_caption(name, looked) for name in settings.shown_maps)],
        [(picture(one.region, settings.panel), *row) for one, row in zip(looked, zip(*columns))],
        [one.region.name for one in looked],
        list(zip(names, COLOURS)),
    )


def similarity(looked: Sequence[Looked], backbone: DenseBackbone, settings: VisualizeSettings) -> Section:
    """Return the similarity of every place to the ringed one: of dense features, and of an encoder's tokens."""
    columns: list[list[numbers.Floats]] = []
    captions = ["tissue, and the point"]
    for name in settings.shown_maps:
        columns.append([numbers.similarity(view, one.point) for view, one in zip(_views(looked, name), looked)])
        captions.append(_caption(name, looked))
    if backbone.encoder is not None:
        tokens = [backbone.tokens(one.region.pixels[None])[0] for one in looked]
        columns.append([numbers.similarity((found,), one.point) for found, one in zip(tokens, looked)])
        captions.append(f"encoder, {tokens[0].shape[1]} x {tokens[0].shape[0]} tokens")
    rows = []
    for one, found in zip(looked, zip(*columns)):
        heat = [heated(values, one.region.pixels, settings.panel, one.point) for values in found]
        rows.append((picture(one.region, settings.panel, one.point), *heat))
    note = "cosine of features, from the least (dark) to the greatest (bright) of each picture"
    return Section("Similarity to the ringed point", note, captions, rows, [one.region.name for one in looked])


def reconstructions(looked: Sequence[Looked], backbone: DenseBackbone, settings: VisualizeSettings) -> Section:
    """Return masked inputs, and below them what the backbone makes of them, at every timestep asked for."""
    rows: list[tuple[Pixels | None, ...]] = []
    labels = []
    for one in looked:
        tiles, windows = one.region.tiles(TILE)
        pairs = [backbone.reconstructions(tiles, windows, time) for time in settings.shown_times]
        for k, first in enumerate((picture(one.region, settings.panel), None)):
            whole = [together(pair[k], one.region.side, TILE).astype(np.uint8) for pair in pairs]
            rows.append((first, *(resized(found, settings.panel) for found in whole)))
        labels += [one.region.name, "masked above, reconstructed here"]
    captions = [f"t = {time}: {masked_count(time) / masked_count(1001):.0%} masked" for time in settings.shown_times]
    note = "squares of 8 px are hidden from the backbone, which fills them in"
    return Section("Reconstructions", note, ["tissue", *captions], rows, labels)


def nucleus(region: Region) -> Pair:
    """Return the place with the most haematoxylin in the middle half of *region*, as shares of its side."""
    sigma = NUCLEUS_UM / (region.mpp[0] if region.mpp else 0.5)
    dense = cv2.GaussianBlur(np.ascontiguousarray(HE.amounts(region.pixels)[..., 0]), (0, 0), sigma)
    quarter = region.side // 4
    middle = dense[quarter:-quarter, quarter:-quarter]
    row, column = np.unravel_index(int(middle.argmax()), middle.shape)
    return (int(column) + quarter + 0.5) / region.side, (int(row) + quarter + 0.5) / region.side
