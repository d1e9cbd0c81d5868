"""Where a slide's resolution comes from, and whether to believe it."""

from __future__ import annotations

from wsipipe.errors import ImplausibleMpp, MissingMpp
from wsipipe.settings import SlideSettings
from wsipipe.slide.protocol import MppSource, SlideInfo
from wsipipe.units import Pair

PLAUSIBLE_MPP = (0.05, 5.0)
"""Microns per pixel that a light microscope gives."""
UM_PER_UNIT = {"inch": 25_400.0, "centimeter": 10_000.0, "millimeter": 1_000.0, "micrometer": 1.0}
MPP_AT_1X = 10.0
"""An objective of 20x is taken as 0.5 µm/px, one of 40x as 0.25."""


def choose_mpp(vendor: Pair | None, tiff: Pair | None, objective: float | None) -> tuple[Pair | None, MppSource | None]:
    """Return the best resolution that a file states, and its source."""
    if vendor is not None:
        return vendor, MppSource.VENDOR
    if tiff is not None:
        return tiff, MppSource.TIFF
    if objective is not None and objective > 0:
        mpp = MPP_AT_1X / objective
        return (mpp, mpp), MppSource.OBJECTIVE
    return None, None


def pair(x: object, y: object) -> Pair | None:
    """Return two numbers or numeric texts as a pair of positive floats; None where one is missing or not a number."""
    try:
        mpp = float(str(x)), float(str(y))
    except ValueError:
        return None
    return mpp if all(0 < m < float("inf") for m in mpp) else None


def number(value: object) -> float | None:
    """Return a number or numeric text as a positive float, else None."""
    found = pair(value, value)
    return found[0] if found else None


def tiff_mpp(x_resolution: object, y_resolution: object, unit: object) -> Pair | None:
    """Return µm/px from TIFF resolution tags (pixels per *unit*); None where the unit is not a length."""
    per_unit, um = pair(x_resolution, y_resolution), UM_PER_UNIT.get(str(unit).lower())
    return None if per_unit is None or um is None else (um / per_unit[0], um / per_unit[1])


def is_plausible(mpp: Pair) -> bool:
    """Whether a microscope gives such pixels: 0.05 to 5 µm/px in both axes."""
    low, high = PLAUSIBLE_MPP
    return all(low <= m <= high for m in mpp)


def concerns(info: SlideInfo) -> tuple[str, ...]:
    """Return what is doubtful about the resolution of a slide, one line each."""
    found = []
    if info.mpp is not None and not is_plausible(info.mpp):
        found.append(f"implausible resolution: {_implausible(info)}")
    if info.mpp_source is MppSource.OBJECTIVE and info.mpp is not None:
        found.append(f"resolution of {info.mpp[0]:g} µm/px only inferred from the objective; --mpp gives the true one")
    if info.mpp is not None and max(info.mpp) > 1.05 * min(info.mpp):
        found.append(f"pixels are not square: {info.mpp[0]:g} x {info.mpp[1]:g} µm")
    return tuple(found)


def missing_mpp(path: str) -> MissingMpp:
    """Return the error of a file that says nothing of its resolution."""
    return MissingMpp(
        f"{path} does not state its resolution: give it in µm/px with --mpp; `wsipipe info {path} --estimate-mpp` "
        "estimates it by the size of nuclei"
    )


def require_mpp(info: SlideInfo, settings: SlideSettings | None = None) -> tuple[float, float]:
    """Return the slide's microns per base pixel in x and y, or stop.

    Raises
    ------
    MissingMpp
        When the file states none, or under ``strict_mpp`` only an objective power.
    ImplausibleMpp
        When it is outside 0.05-5 µm/px and ``force_mpp`` is off.
    """
    settings = settings or SlideSettings()
    if info.mpp is None:
        raise missing_mpp(info.path)
    if settings.strict_mpp and info.mpp_source is MppSource.OBJECTIVE:
        raise MissingMpp(
            f"{info.path} states only an objective of {info.objective:g}x, which --strict-mpp does not accept: give "
            f"the true resolution with --mpp ({MPP_AT_1X / (info.objective or 1):g} µm/px would be usual for it)"
        )
    if not is_plausible(info.mpp) and not settings.force_mpp:
        raise ImplausibleMpp(f"{info.path}: {_implausible(info)}")
    return info.mpp


def _implausible(info: SlideInfo) -> str:
    assert info.mpp is not None
    low, high = PLAUSIBLE_MPP
    x, y = info.mpp
    return (
        f"{x:.4g} x {y:.4g} µm/px ({info.mpp_source}), expected {low:g} to {high:g}: "
        "give the true one with --mpp, or --force-mpp to accept it"
    )
