"""Regions that nobody drew: the cores of a microarray, and hot spots, as ``wsipipe summarise`` asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from wsipipe.analysis.core_names import CLASSES, NUMBERS, cores_of
from wsipipe.analysis.counted import CountedCells
from wsipipe.analysis.derived import NEGATIVE
from wsipipe.analysis.hotspots import FEWEST, hot_spots
from wsipipe.analysis.regions import CORE, HOT_SPOT, regions_frame
from wsipipe.errors import SettingsError
from wsipipe.settings import HotSpotSettings
from wsipipe.slide import Slide
from wsipipe.units import Pair

if TYPE_CHECKING:
    import geopandas

HOT_SPOT_CLASS, HOT_SPOT_COLOUR = "Hot spot", (255, 200, 0)


def core_regions(slide: Slide, mpp: Pair, names: Path | None, tell: Callable[[str], None]) -> geopandas.GeoDataFrame:
    """Return the cores of the microarray as regions, with what is known of each in columns that begin with ``core_``.

    Raises
    ------
    UnsupportedSlide
        When it is no microarray.
    """
    cores = cores_of(slide, mpp, names, tell)
    rows, told = [], []
    own = {"name", "geometry", "missing", "x", "y"}
    for row in cores.table.to_dict("records"):
        kind, colour = CLASSES[str(row["status"])]
        shape = row["geometry"]
        rows.append({"name": row["name"], "classification": kind, "kind": CORE, "colour": colour, "geometry": shape})
        place = f"{row['row']}-{row['column']}" if row["row"] else ""
        extra = {k: v for k, v in row.items() if k not in own | {"row", "column", "status", *NUMBERS}}
        numbers = {f"core_{name}": row[name] for name in NUMBERS}
        told.append({"core": place, "core_status": row["status"]} | numbers | extra)
    frame = regions_frame(rows)
    return frame.assign(**{str(k): [t[k] for t in told] for k in (told[0] if told else ())})


def hot_spot_regions(
    cells: CountedCells, about: Mapping[str, Any], settings: HotSpotSettings, tell: Callable[[str], None]
) -> geopandas.GeoDataFrame:
    """Return the hot spots of a slide as regions, best first; *tell* hears when there are fewer than asked for.

    Raises
    ------
    SettingsError
        When shares are compared and no cell is scored, or the square does not fit into the slide.
    """
    scored = np.asarray(cells.grade != "")
    xy, positive = cells.xy_base, np.asarray(scored & (cells.grade != NEGATIVE))
    if settings.by == "positive":
        if not scored.any():
            raise SettingsError("--by positive needs cells that are scored, and none is; run `wsipipe score` first")
        xy, positive = xy[scored], positive[scored]
    size = int(about["size"][0]), int(about["size"][1])
    area = settings.hot_spot_area or None
    spots = hot_spots(xy, size, cells.mpp, settings.hot_spots, area, positive, by_share=settings.by == "positive")
    if len(spots) < settings.hot_spots:
        fewest = FEWEST if settings.by == "positive" or area is None else 1
        what = f"squares of {area:g} mm²" if area else "squares"
        tell(
            f"warning: {len(spots)} of {settings.hot_spots} hot spots found: no more {what} that do not overlap hold "
            f"{fewest:,} cells{' with a positive one' if settings.by == 'positive' else ''}"
        )
    rows = [
        {
            "name": f"Hot spot {k}",
            "classification": HOT_SPOT_CLASS,
            "kind": HOT_SPOT,
            "colour": HOT_SPOT_COLOUR,
            "geometry": shapely.box(*spot.box),
        }
        for k, spot in enumerate(spots, 1)
    ]
    return regions_frame(rows)


def without_doubtful_shares(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a hot spot, without shares where it holds too few cells to tell any."""
    if row["kind"] != HOT_SPOT or row["cells"] >= FEWEST:
        return row
    return {k: None if "_share" in k else v for k, v in row.items()}
