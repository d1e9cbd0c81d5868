"""The story of `wsipipe info --estimate-mpp`: at which resolution do a slide's nuclei have the size of nuclei?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import SettingsError
from wsipipe.evaluate.image import maps_of_all
from wsipipe.infer.predict import Predictor, load_predictor
from wsipipe.labels.nuclear_size import TYPICAL_NUCLEUS_UM
from wsipipe.models.zoo import resolve
from wsipipe.report.plausible import LEAST_PROBABILITY, MOST_OVERSIZE
from wsipipe.settings import GridSettings, SlideSettings
from wsipipe.slide import Slide, open_slide
from wsipipe.slide.overview import thumbnail
from wsipipe.stain import GLASS

ASSUMED_MPP = (0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0)
"""Resolutions that are tried, in µm/px."""
FIELD_PX, FIELDS = 384, 3
"""Side of a field in level-0 pixels, and how many there are."""
FEWEST, MANY = 10, 40
"""Nuclei from which there is an estimate at all, and from which it is sure."""
OVERVIEW_PX = 1024
"""Longest side of the picture on which the fields are chosen."""

Fields = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Trial:
    """What is found at an assumed resolution: nuclei, mean probability, median diameter, share of oversize ones."""

    mpp: float
    nuclei: int
    probability: float
    median_um: float
    oversize: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """An estimated resolution in µm/px (None: too few nuclei), and the trials it comes from."""

    mpp: float | None
    nuclei: int
    probability: float
    oversize: float
    trials: tuple[Trial, ...]

    @property
    def sure(self) -> bool:
        """Whether many nuclei were found about there, with a probability as in good slides."""
        good = self.probability >= LEAST_PROBABILITY and self.oversize <= MOST_OVERSIZE
        return self.mpp is not None and self.nuclei >= MANY and good

    @property
    def in_words(self) -> str:
        """The estimate in one line, with how sure it is and what to do."""
        if self.mpp is None:
            return f"no estimate: fewer than {FEWEST} nuclei at every resolution; ask whoever scanned the slide"
        found = f"{self.nuclei:,} nuclei, mean probability {self.probability:.2f}"
        how = "likely within a factor of 2.5" if self.sure else "unsure: compare overlays at two resolutions"
        small = "too large where nuclei are small (kidney, lymphocytes), too small where they are large (tumours)"
        return f"estimate: {self.mpp:.2g} µm/px ({found}); {how}; {small}. --mpp {self.mpp:.2g} takes it"


def estimate_mpp(path: str, model: str, settings: SlideSettings) -> Estimate:
    """Return the resolution at which the median nucleus of a few fields measures 6.5 µm, whatever the file states.

    Raises
    ------
    SlideError, ModelError
    SettingsError
        When the model has no head.
    """
    predictor = load_predictor(resolve(model), "auto", "auto", 0)
    if predictor.card.head is None:
        raise SettingsError(f"--model {model} is a backbone without a head; fit one with `wsipipe fit`")
    with open_slide(path, replace(settings, mpp=1.0)) as slide:  # pixels are counted, so that any number serves
        fields = _fields(slide)
    return conclude([_trial(fields, mpp, predictor) for mpp in ASSUMED_MPP])


def _fields(slide: Slide) -> Fields:
    """Return the fields with most that is dark, whole ones of a grid; fewer of a small slide."""
    width, height = slide.info.size
    small, scale = thumbnail(slide, max(1.0, max(width, height) / OVERVIEW_PX))
    red = small[..., 0].astype(np.float64)  # haematoxylin takes away red, eosin hardly
    dark = np.where(small.min(axis=2) < GLASS, 255 - red, 0.0)
    side = min(FIELD_PX, width, height)
    corners = [(x, y) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]

    def darkness(corner: tuple[int, int]) -> float:
        (x0, x1), (y0, y1) = ((int(c / s), math.ceil((c + side) / s)) for c, s in zip(corner, scale, strict=True))
        return float(dark[y0:y1, x0:x1].mean())

    return [slide.read_region(0, x, y, side, side) for x, y in sorted(corners, key=darkness)[: -FIELDS - 1 : -1]]


def _trial(fields: Fields, mpp: float, predictor: Predictor) -> Trial:
    maps = maps_of_all([(field, mpp) for field in fields], predictor, GridSettings(allow_upsample=True))
    areas: list[NDArray[np.float64]] = [np.zeros(0)]
    probabilities: list[NDArray[np.float64]] = [np.zeros(0)]
    oversize = 0
    for each in maps:
        cells, _ = each.cells_and_labels(predictor.card.rules)
        areas.append(np.asarray(cells.sums[:, 0] * each.grid.um2_per_px))
        probabilities.append(np.asarray(cells.probability, np.float64))
        oversize += int(cells.oversize.sum())
    area, probability = np.concatenate(areas), np.concatenate(probabilities)
    if not len(area):
        return Trial(mpp, 0, math.nan, math.nan)
    median = float(2 * np.sqrt(np.median(area) / np.pi))
    return Trial(mpp, len(area), float(probability.mean()), median, oversize / len(area))


def conclude(trials: Sequence[Trial]) -> Estimate:
    """Return where the median diameter passes 6.5 µm, between the most credible neighbours of *trials*.

    Seen too small, nuclei measure less than that, seen too large, more. Of several passages the one with the most
    nuclei, weighted by their probability, is taken; without any, the trial that comes nearest.
    """
    known = [trial for trial in trials if trial.nuclei >= FEWEST]
    if not known:
        return Estimate(None, 0, math.nan, 0.0, tuple(trials))
    nearest = min(known, key=_misfit)
    passages = [(a, b) for a, b in zip(known, known[1:]) if a.median_um <= TYPICAL_NUCLEUS_UM < b.median_um]
    passages = passages or [(nearest, nearest)]
    a, b = max(passages, key=lambda pair: sum(t.nuclei * t.probability for t in pair))
    rise = math.log(b.median_um / a.median_um)
    share = math.log(TYPICAL_NUCLEUS_UM / a.median_um) / rise if rise else 0.0
    mpp = a.mpp * (b.mpp / a.mpp) ** share
    if a is b:
        mpp *= TYPICAL_NUCLEUS_UM / a.median_um
    nuclei, probability = min(a.nuclei, b.nuclei), (a.probability + b.probability) / 2
    return Estimate(mpp, nuclei, probability, (a.oversize + b.oversize) / 2, tuple(trials))


def _misfit(trial: Trial) -> float:
    return abs(math.log(trial.median_um / TYPICAL_NUCLEUS_UM))
