"""Kinds of values that options take: points, boxes and resolutions."""

from __future__ import annotations

import typing
from typing import Any

import click

from wsipipe.units import Box, Pair


class PointType(click.ParamType[Pair]):
    """``x,y`` in pixels."""

    name = "x,y"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Pair:
        """Return the two numbers."""
        if isinstance(value, tuple):
            return typing.cast(Pair, value)
        try:
            x, y = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no position; expected two numbers such as 10400,8200", param, ctx)
        return x, y


class BoxType(click.ParamType[Box]):
    """``x0,y0,x1,y1`` in whole pixels, half-open."""

    name = "x0,y0,x1,y1"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Box:
        """Return the four numbers; a box without area is refused."""
        if isinstance(value, tuple):
            return typing.cast(Box, value)
        try:
            x0, y0, x1, y1 = (int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a box; expected four whole numbers such as 0,0,4096,4096", param, ctx)
        if x1 <= x0 or y1 <= y0:
            self.fail(f"{value!r} is an empty box; expected x0,y0,x1,y1 with x1 > x0 and y1 > y0", param, ctx)
        return x0, y0, x1, y1


class MppType(click.ParamType["float | str"]):
    """A resolution in µm/px, ``auto`` or ``nuclei``."""

    name = "µm/px|auto|nuclei"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Return the number, or the word."""
        if value in ("auto", "nuclei"):
            return str(value)
        try:
            mpp = float(value)
        except ValueError:
            mpp = 0.0
        if not 0.05 <= mpp <= 5:
            self.fail(f"{value!r} is no resolution; expected 0.05 to 5 µm/px, auto, or nuclei", param, ctx)
        return mpp


class PatchMppType(click.ParamType[float]):
    """A resolution in µm/px, or ``native``, which is 0: each image's own."""

    name = "µm/px|native"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        if value == "native":
            return 0.0
        try:
            mpp = float(value)
        except ValueError:
            mpp = -1.0
        if not 0.05 <= mpp <= 5:
            self.fail(f"{value!r} is no resolution; expected 0.05 to 5 µm/px, or native", param, ctx)
        return mpp
