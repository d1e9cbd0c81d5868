"""Networks of four stages, of which heads see some: what their sizes have in common."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from wsipipe.models.baselines.plain import check_plain
from wsipipe.models.checks import expect, many, number, whole

TAKEN = {"shallow": (0, 1), "deep": (2, 3), "mixed": (0, 1, 2, 3), "last": (3,)}
"""Stages by the words of `models import --blocks`."""


class Stages:
    """A size: a frozen dataclass with these fields, whose stages are a 4th to a 32nd as large as the picture."""

    widths: Any
    depths: tuple[int, ...]
    taken: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    condition: int
    channels: int

    def check_rest(self, title: str) -> None:
        """Refuse what are no stages or colours, and what *title* is not told: ValueError."""
        good = many(whole(0, 3))(self.taken) and len(self.taken) > 0 and list(self.taken) == sorted(set(self.taken))
        expect(good, "backbone's taken stages", self.taken, "numbers that rise from 0 to 3")
        for name in ("mean", "std"):
            expect(many(number(-10, 10), 3)(getattr(self, name)), name, getattr(self, name), "three numbers")
        check_plain(self.condition, self.channels, title)

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of the taken stages, coarse to fine."""
        return tuple(self.widths[k] for k in self.taken[::-1])

    @property
    def deepest_width(self) -> int:
        """Channels of the last taken stage."""
        return int(self.widths[self.taken[-1]])

    @property
    def scale(self) -> int:
        """Pixels along a side of a pixel of the first taken stage."""
        return int(4 * 2 ** self.taken[0])

    def in_latents(self, channels: int) -> Self:
        """Return the configuration for latents: ValueError, there is none."""
        return dataclasses.replace(self, channels=channels)  # type: ignore[type-var]
