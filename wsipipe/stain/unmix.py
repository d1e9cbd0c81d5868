"""Stains told apart by colour (Ruifrok and Johnston 2001), the one place that does: vectors, files, amounts.

A stain takes up red, green and blue in fixed proportions of optical density, its *vector*. Densities are to base 10 and
relative to the background, as in QuPath, whose default vectors and whose files of them are used.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_write, from_json
from wsipipe.artifacts.plain import text_of
from wsipipe.errors import SettingsError, in_words

Triple = tuple[float, float, float]
Floats = NDArray[np.float64]
RESIDUAL = "Residual"
"""Name of the vector at right angles to two stains, which takes what is neither."""
CALL = re.compile(r"setColorDeconvolutionStains\(\s*'(.*?)'\s*\)", re.DOTALL)
LEAST_ANGLE = 5.0
"""Degrees between two stains under which they cannot be told apart."""


@dataclass(frozen=True)
class StainVectors:
    """Two or three stains of a slide.

    Attributes
    ----------
    name : str
    stains : tuple of (str, (float, float, float))
        Names and vectors (red, green, blue), of unit length.
    background : (float, float, float)
        What glass looks like: density 0.
    """

    name: str
    stains: tuple[tuple[str, Triple], ...]
    background: Triple = (255.0, 255.0, 255.0)

    def __post_init__(self) -> None:
        vectors = np.array([vector for _, vector in self.stains], np.float64)
        if not 2 <= len(self.stains) <= 3 or not np.isfinite(vectors).all() or not (vectors**2).sum(1).all():
            raise SettingsError(f"stain vectors {self.name!r}: expected two or three stains, each with three numbers")
        if not all(1 <= value <= 255 for value in self.background):
            raise SettingsError(f"stain vectors {self.name!r}: background is {self.background}; expected 1 to 255")
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        stains = tuple((name, _triple(vector)) for (name, _), vector in zip(self.stains, unit))
        object.__setattr__(self, "stains", stains)
        turned = [angle(a[1], b[1]) for k, a in enumerate(stains) for b in stains[:k]]
        if min(turned) < LEAST_ANGLE or abs(np.linalg.det(self._basis)) < 1e-3:
            raise SettingsError(
                f"stain vectors {self.name!r}: two of them are {min(turned):.1f} degrees apart, too like each other to "
                f"be told apart; expected over {LEAST_ANGLE:g}"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the stains as they stand in columns: hematoxylin, dab."""
        return tuple(key_of(name) for name, _ in self.stains)

    @cached_property
    def _basis(self) -> Floats:
        rows = [np.array(vector) for _, vector in self.stains]
        if len(rows) == 2:
            rest = np.cross(rows[0], rows[1])
            rows.append(rest / np.linalg.norm(rest))
        return np.stack(rows)

    @cached_property
    def table(self) -> Floats:
        """What each value of R, G and B adds to the amounts of the k stains, float64 (3, 256, k)."""
        inverse = np.linalg.inv(self._basis)[:, : len(self.stains)]
        return np.ascontiguousarray(inverse[:, None, :] * density_table(self.background)[:, :, None])

    def amounts(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the amount of each stain in each pixel (h, w, k), in optical densities."""
        table = self.table.astype(np.float32)
        return np.asarray(table[0][rgb[..., 0]] + table[1][rgb[..., 1]] + table[2][rgb[..., 2]], np.float32)

    def alone(self, rgb: NDArray[np.uint8], stain: int) -> NDArray[np.uint8]:
        """Return what the pixels (h, w, 3) would look like with the stain of that number alone, uint8 (h, w, 3)."""
        density = np.maximum(self.amounts(rgb)[..., stain], 0)
        shades = np.array([-math.log(10) * value for value in self._basis[stain]], np.float32)
        light = np.array(self.background, np.float32) * np.exp(density[..., None] * shades)
        return np.asarray(np.rint(np.clip(light, 0, 255)), np.uint8)

    def as_dict(self) -> dict[str, str]:
        """Return the vectors as QuPath's ``setColorDeconvolutionStains`` writes them."""
        told = {"Name": self.name}
        for k, (name, vector) in enumerate(self.stains, 1):
            told |= {f"Stain {k}": name, f"Values {k}": " ".join(f"{value:.5g}" for value in vector)}
        return told | {"Background": " ".join(f"{value:g}" for value in self.background)}


def key_of(name: str) -> str:
    """Return the name of a stain as it stands in columns."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("haem", "hem")).strip("_") or "stain"


def density_table(background: Triple = (255.0, 255.0, 255.0)) -> Floats:
    """Return the optical density (3, 256) of each value of R, G and B; at least 0, and that of 1 for 0."""
    values = np.maximum(np.arange(256), 1)[None, :] / np.array(background)[:, None]
    return np.asarray(np.maximum(0.0, -np.log10(values)), np.float64)


def densities(rgb: NDArray[np.uint8], background: Triple = (255.0, 255.0, 255.0)) -> Floats:
    """Return the optical densities (..., 3) of pixels (..., 3)."""
    table = density_table(background)
    return np.stack([table[c][rgb[..., c]] for c in range(3)], axis=-1)


def angle(a: Triple | Floats, b: Triple | Floats) -> float:
    """Return the angle between two vectors in degrees."""
    cosine = float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def _numbers(text: Any) -> Triple:
    r, g, b = (float(word) for word in (text.split() if isinstance(text, str) else text))
    return r, g, b


def _triple(values: Any) -> Triple:
    r, g, b = (round(float(v), 6) for v in values)
    return r, g, b


HEMATOXYLIN, EOSIN, DAB = (0.65111, 0.70119, 0.29049), (0.2159, 0.8012, 0.5581), (0.26917, 0.56824, 0.77759)
"""QuPath's defaults: of Ruifrok and Johnston's table .65 .70 .29 and .27 .57 .78; eosin as it is today."""
HE = StainVectors("H&E default", (("Hematoxylin", HEMATOXYLIN), ("Eosin", EOSIN)))
HDAB = StainVectors("H-DAB default", (("Hematoxylin", HEMATOXYLIN), ("DAB", DAB)))
DEFAULTS = {"he": HE, "hdab": HDAB}


# --- files ------------------------------------------------------------------------------------------------------------


def read_vectors(path: Path) -> StainVectors:
    """Return the stain vectors in a file: QuPath's JSON, or a script that holds the call with it.

    Raises
    ------
    SettingsError
    """
    try:
        text = text_of(path, "utf-8-sig")
    except FileNotFoundError as error:
        raise SettingsError(
            f"--stain-vectors {path}: neither he, hdab, estimate or auto, nor a file that is there"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--stain-vectors {path}: cannot be read ({in_words(error)})") from error
    found = CALL.search(text)
    try:
        return vectors_of(from_json(found.group(1) if found else text), path.stem)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, SettingsError):
            raise SettingsError(f"--stain-vectors {path} cannot be used: {error}") from error
        raise SettingsError(
            f"--stain-vectors {path}: not a file of stain vectors ({in_words(error)}); expected he, hdab, estimate, "
            "auto, or a file with the JSON of QuPath's setColorDeconvolutionStains"
        ) from error


def vectors_of(told: Mapping[str, Any], name: str = "") -> StainVectors:
    """Return the stain vectors of :meth:`StainVectors.as_dict`, or of what QuPath writes.

    Raises
    ------
    ValueError, LookupError, TypeError, AttributeError
        When *told* is something else.
    """
    keys = [key for key in (f"Stain {k}" for k in (1, 2, 3)) if told.get(key, RESIDUAL) != RESIDUAL]
    stains = tuple((str(told[key]), _numbers(told[key.replace("Stain", "Values")])) for key in keys)
    return StainVectors(str(told.get("Name") or name), stains, _numbers(told.get("Background", "255 255 255")))


def write_vectors(path: Path, vectors: StainVectors) -> None:
    """Write stain vectors as the line of a QuPath script, which :func:`read_vectors` reads too."""
    with atomic_write(path, "w") as file:
        file.write(f"setColorDeconvolutionStains('{json.dumps(vectors.as_dict(), ensure_ascii=False)}');\n")


# --- from the slide itself --------------------------------------------------------------------------------------------

LEAST_OD, MOST_OD = 0.05, 1.0
"""A pixel with a channel fainter than the first, or darker than the second in all, does not tell a stain's colour."""
EXTREME = 1.0
"""Percent of the pixels beyond each of the two vectors."""
GREY = 0.05
"""Spread of the channels' share of the density under which a pixel is grey: pigment, dirt, shadow."""
FEWEST_PIXELS = 1000


def estimate(rgb: NDArray[np.uint8], like: StainVectors) -> StainVectors:
    """Return the stain vectors of a slide, as QuPath estimates them, after pixels (n, 3) of its tissue.

    In the plane of the two largest eigenvectors of the densities' covariance, the vectors are the directions with one
    percent of the pixels beyond them. Faint, very dark and grey pixels are left out. The stains are those of *like*,
    each by the vector that is nearer.

    Raises
    ------
    SettingsError
        When too few pixels are left.
    """
    od = densities(rgb.reshape(-1, 3), like.background)
    share = od / np.maximum(od.sum(1, keepdims=True), 1e-9)
    coloured = np.ptp(share, axis=1) >= GREY
    od = od[(od.min(1) >= LEAST_OD) & (np.linalg.norm(od, axis=1) <= MOST_OD) & coloured]
    if len(od) < FEWEST_PIXELS:
        raise SettingsError(
            f"--stain-vectors estimate: {len(od):,} pixels are neither faint, dark nor grey; expected at least "
            f"{FEWEST_PIXELS:,}: give he, hdab or a file"
        )
    _, vectors = np.linalg.eigh(np.cov(od.T))
    plane = vectors[:, [2, 1]]
    plane = plane * np.where((od.mean(0) @ plane) < 0, -1, 1)
    flat = od @ plane
    turn = np.arctan2(flat[:, 1], flat[:, 0])
    order = np.argsort(turn, kind="stable")
    ends = [order[min(len(od) - 1, round(len(od) * p / 100))] for p in (EXTREME, 100 - EXTREME)]
    found = [plane @ np.array([math.cos(turn[i]), math.sin(turn[i])]) for i in ends]
    found = [np.maximum(vector, 0) for vector in found]
    first, second = (np.array(vector) for _, vector in like.stains[:2])
    straight = angle(found[0], first) + angle(found[1], second)
    if straight > angle(found[1], first) + angle(found[0], second):
        found.reverse()
    stains = tuple((name, _triple(vector)) for (name, _), vector in zip(like.stains, found))
    return replace(like, name=f"{like.name.split()[0]} estimated", stains=stains)


STAINED_OD = 0.15
"""Mean density of a pixel that takes part in the guess."""
MOSTLY_PINK = 0.2
"""Share of pink pixels from which tissue that is said to be H-DAB looks like H&E: 1,150 of 1,318 H&E pictures do."""
LEAST_BROWN, BROWNER = 0.03, 1.5
"""Share of brown pixels from which tissue is H-DAB, where it is so many times that of pink ones; see
``docs/decisions``."""


def guess(rgb: NDArray[np.uint8]) -> StainVectors:
    """Return H-DAB or H&E, whichever pixels (n, 3) of a slide's tissue look like.

    H-DAB when their mean density lies nearer DAB or haematoxylin than eosin. That alone takes H&E with crowded nuclei
    for H-DAB, so there must be brown ones too (which absorb blue most), and fewer pink ones.
    """
    found = hues(rgb)
    if found is None:
        return HE
    brown, pink, mean = found
    nearer = min(angle(mean, HEMATOXYLIN), angle(mean, DAB)) < angle(mean, EOSIN)
    return HDAB if nearer and brown > max(LEAST_BROWN, BROWNER * pink) else HE


def contradicts(vectors: StainVectors, rgb: NDArray[np.uint8]) -> str:
    """Return how pixels (n, 3) of a slide's tissue contradict that it has the stains *vectors*; "" where they do not.

    Eosin where there is brown as on H-DAB, or DAB where most is pink; a negative marker is no contradiction.
    """
    found = hues(rgb)
    if found is None:
        return ""
    brown, pink, _ = found
    other = "H&E" if "dab" in vectors.keys and pink > max(MOSTLY_PINK, 2 * brown) else ""
    other = "H-DAB" if "eosin" in vectors.keys and guess(rgb) is HDAB else other
    told = f"{brown:.0%} of its stained pixels are brown, {pink:.0%} pink"
    return (
        other
        and f"stains are said to be {' and '.join(n for n, _ in vectors.stains)}, but it looks like {other}: {told}"
    )


def hues(rgb: NDArray[np.uint8]) -> tuple[float, float, Floats] | None:
    """Return the shares of brown and of pink among stained pixels, and their mean density; None of very few."""
    od = densities(rgb.reshape(-1, 3))
    od = od[od.mean(1) > STAINED_OD]
    if len(od) < FEWEST_PIXELS:
        return None
    red, green, blue = od.T
    brown = float(((blue > 1.1 * green) & (red < blue)).mean())
    pink = float(((green > 1.4 * red) & (blue <= 1.1 * green)).mean())
    return brown, pink, np.asarray(od.mean(0))
