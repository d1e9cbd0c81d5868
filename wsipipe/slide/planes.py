"""Focal planes of a stack: which one a reader is to give, and how they are named.

A slide that was scanned at several heights shows other cells in each. Which one is meant is never guessed: the user
says its number, or has the sharpest found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wsipipe.errors import SettingsError, UnsupportedSlide
from wsipipe.slide.protocol import Slide

CHOOSER = "wsipipe.tissue.planes:sharpest_plane"
"""Who finds the sharpest plane. What tissue and focus are is known further up; this is the one call in that direction,
made when ``sharpest`` is asked for."""
Chooser = Callable[[Callable[[int], Slide]], tuple[int, str]]


def names_of(heights: Sequence[float | None]) -> tuple[str, ...]:
    """Return the names of planes by their *heights* in µm, None where one is unknown; none for a single plane."""
    named = ("" if z is None else f"{z:+.4g} µm" if z else "0 µm" for z in heights)
    return tuple(named) if len(heights) > 1 else ()


def plane_of(path: str, plane: str | None, names: Sequence[str]) -> int:
    """Return the number of the focal plane that is to be read.

    Parameters
    ----------
    path : str
        Of the slide, for the words of an error.
    plane : str, optional
        A number, as :attr:`~wsipipe.settings.SlideSettings.plane` has it.
    names : sequence of str
        Of :func:`names_of`.

    Raises
    ------
    UnsupportedSlide
        When there are several, and none was chosen.
    SettingsError
        When there is no such plane.
    """
    refuse_plane(path, plane, names)
    return int(plane or 0)


def refuse_plane(path: str, plane: str | None, names: Sequence[str]) -> None:
    """Raise unless *plane* is one of the planes called *names*; see :func:`plane_of`."""
    if plane is None and len(names) > 1:
        raise UnsupportedSlide(
            f"{path} holds {len(names)} focal planes: {listed(names)}; choose one with --plane N, or --plane sharpest"
        )
    if int(plane or 0) >= max(1, len(names)):
        has = f"{len(names)}: {listed(names)}" if names else "one plane only: leave --plane out"
        raise SettingsError(f"{path} has no focal plane {plane}; it has {has}")


def listed(names: Sequence[str]) -> str:
    """Return the planes as ``0 (-2 µm), 1 (+0 µm)``; of more than nine the first three and the last."""
    all_ = [f"{n} ({name})" if name else str(n) for n, name in enumerate(names)]
    return ", ".join(all_ if len(all_) < 10 else [*all_[:3], "...", all_[-1]])
