"""Where the nuclei of a phantom are and what they look like, worked out for any region from seed and position alone.

Nuclei sit on a jittered lattice of sites. Everything about a site comes from a hash of (seed, column, row), so a region
of a slide of any size is known without the rest. A nucleus too close to one of higher rank gives way, which looks two
sites far. Fields (tissue, glands) are value noise on a lattice of nodes, bilinear in between.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

NODE = 16
"""Base pixels between nodes of the fields."""
REACH = 2
"""Sites that a nucleus may be from one that it gives way to."""
TOO_CLOSE = 0.66
"""Two nuclei nearer than this share of the sum of their mean radii: the one of lower rank gives way."""
PER_SITE = 2
HARMONICS = 2
CORE = 9
"""Numbers of a core of a microarray: x, y and radius (base px); two cracks through it, each by the angle of its normal
and its width (0: none); the piece between them that is lost (-1: none); how much is holes (0: nothing, 1: half)."""

NUCLEUS = np.dtype(
    [
        ("id", "i4"),
        ("kind", "i4"),
        ("rank", "u8"),
        ("x", "f8"),
        ("y", "f8"),
        ("a", "f8"),
        ("b", "f8"),
        ("angle", "f8"),
        ("wave2", "f8"),
        ("phase2", "f8"),
        ("wave3", "f8"),
        ("phase3", "f8"),
        ("dark", "f8"),
        ("open", "f8"),
        ("spot_u", "f8"),
        ("spot_v", "f8"),
        ("brown", "f8"),
    ]
)
"""A nucleus. ``x, y, a, b`` (centre and half axes) in base px; ``rank``: the higher lies on top; ``dark``: hematoxylin;
``open``: how clear its middle is; ``spot``: its nucleolus in units of the half axes; ``brown``: optical density of DAB
where it is positive, else 0."""
EPITHELIAL, STROMAL, LYMPHOCYTE = 0, 1, 2
FAINTEST, DARKEST = 0.3, 1.2
"""Optical density of DAB in a positive nucleus, at least and at most."""


@njit(cache=True, nogil=True)
def mix(seed: int, i: int, j: int, k: int) -> np.uint64:
    """Return 64 well-mixed bits (splitmix64) of a lattice point."""
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
    for word in (np.uint64(i), np.uint64(j), np.uint64(k)):
        z = (z ^ word) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return z


@njit(cache=True, nogil=True)
def uniform(seed: int, i: int, j: int, k: int) -> float:
    """Return a number in [0, 1) for a lattice point."""
    return float(mix(seed, i, j, k) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, nogil=True)
def value_noise(seed: int, x: float, y: float, k: int) -> float:
    """Return smooth noise in [-1, 1]; one feature per unit of *x*, *y*."""
    i, j = math.floor(x), math.floor(y)
    u, v = x - i, y - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    i, j = int(i) + 1_000_000, int(j) + 1_000_000
    top = uniform(seed, i, j, k) * (1 - u) + uniform(seed, i + 1, j, k) * u
    low = uniform(seed, i, j + 1, k) * (1 - u) + uniform(seed, i + 1, j + 1, k) * u
    return 2 * (top * (1 - v) + low * v) - 1


@njit(cache=True, nogil=True)
def core_field(seed: int, x: float, y: float, cores: NDArray[np.float64]) -> float:
    """Return the field that is positive in the cores of a microarray, about 5 per radius at their edge."""
    best = -1.0
    for k in range(0, cores.shape[0], CORE):
        radius = cores[k + 2]
        dx, dy = x - cores[k], y - cores[k + 1]
        if max(abs(dx), abs(dy)) > 1.5 * radius:
            continue
        gap = 5.0
        piece, px, py = 0, dx, dy
        for n in range(2):
            angle, width = cores[k + 3 + 2 * n], cores[k + 4 + 2 * n]
            if width > 0:
                cos, sin = math.cos(angle), math.sin(angle)
                across = dx * cos + dy * sin
                side = 1.0 if across > 0 else -1.0
                piece += (across > 0) * (n + 1)
                px, py = px - side * width / 2 * cos, py - side * width / 2 * sin
                gap = min(gap, 5 * (abs(across) - width / 2) / radius)
        if piece == int(cores[k + 7]):
            continue
        rough = 0.2 * value_noise(seed, 12 * dx / radius, 12 * dy / radius, 141 + k)
        edge = min(gap, 5 * (1 - math.hypot(px, py) / radius) + rough)
        lumen = value_noise(seed, 5 * dx / radius, 5 * dy / radius, 142 + k) + 1 - cores[k + 8]
        best = max(best, min(edge, lumen))
    return float(best)


@njit(cache=True, nogil=True)
def tissue_field(seed: int, x: float, y: float, area: NDArray[np.float64]) -> float:
    """Return the field whose threshold bounds the tissue: lobes that keep off the edge of *area* (x0, y0, x1, y1).

    Where cores follow in *area* (:data:`CORE` numbers each), these are the tissue, and the threshold is 0.
    """
    if area.shape[0] > 4:
        return core_field(seed, x, y, area[4:])
    width, height = area[2] - area[0], area[3] - area[1]
    size = max(width, height)
    u, v = (x - area[0]) / size, (y - area[1]) / size
    rim = max(abs(2 * (x - area[0]) / width - 1), abs(2 * (y - area[1]) / height - 1))
    lobes = value_noise(seed, 3.1 * u, 3.1 * v, 101) + 0.5 * value_noise(seed, 9 * u, 9 * v, 102)
    return float(lobes + 0.15 * value_noise(seed, 40 * u, 40 * v, 103) - 0.9 * rim**3)


@njit(cache=True, nogil=True)
def gland_field(seed: int, x_um: float, y_um: float) -> float:
    """Return the field that is positive in epithelium and negative in stroma."""
    broad = value_noise(seed, x_um / 160, y_um / 160, 111)
    middle, fine = value_noise(seed, x_um / 60, y_um / 60, 112), value_noise(seed, x_um / 14, y_um / 14, 113)
    return float(broad + 0.5 * middle + 0.12 * fine)


@njit(cache=True, nogil=True)
def fibre_angle(seed: int, x_um: float, y_um: float) -> float:
    """Return the direction of stroma fibres in radians; slowly turning."""
    return math.pi * (0.25 + 0.35 * value_noise(seed, x_um / 700, y_um / 700, 121))


@njit(cache=True, nogil=True)
def _candidate(
    seed: int, i: int, j: int, k: int, pitch: float, mpp: float, area: NDArray[np.float64], threshold: float,
    columns: int, positive: float, out: NDArray[np.void],
) -> bool:  # fmt: skip
    """Fill *out* with the nucleus *k* of site (i, j) as if it were alone; whether there is one."""
    if i < 0 or j < 0 or (k == 1 and uniform(seed, i, j, 20) > 0.3):
        return False
    x = (i + 0.5 + 0.78 * (uniform(seed, i, j, 1) - 0.5)) * pitch
    y = (j + 0.5 + 0.78 * (uniform(seed, i, j, 2) - 0.5)) * pitch
    gland = gland_field(seed, x * mpp, y * mpp)
    s = 30 * k
    draw = uniform(seed, i, j, s + 3)
    size, round_, tone = uniform(seed, i, j, s + 4), uniform(seed, i, j, s + 5), uniform(seed, i, j, s + 6)
    if draw < 0.14 + 0.1 * (gland < 0):
        kind, a, b, dark, open_ = LYMPHOCYTE, 2.7 + 0.8 * size, 0.9 + 0.1 * round_, 1.05 + 0.25 * tone, 0.1
    elif gland > 0:
        kind, a, b, dark, open_ = EPITHELIAL, 3.7 + 1.9 * size, 0.62 + 0.34 * round_, 0.62 + 0.35 * tone, 0.45
    else:
        kind, a, b, dark, open_ = STROMAL, 4.0 + 2.4 * size, 0.34 + 0.2 * round_, 0.8 + 0.3 * tone, 0.15
    if kind == STROMAL and uniform(seed, i, j, 21) < 0.35:
        return False
    angle = 2 * math.pi * uniform(seed, i, j, s + 7)
    if kind == STROMAL:
        angle = fibre_angle(seed, x * mpp, y * mpp) + 0.5 * (uniform(seed, i, j, s + 7) - 0.5)
    if k == 1:
        away, turn = 4.6 + 4.5 * uniform(seed, i, j, 22), 2 * math.pi * uniform(seed, i, j, 23)
        x, y = x + away / mpp * math.cos(turn), y + away / mpp * math.sin(turn)
    inside = area[0] <= x < area[2] and area[1] <= y < area[3]
    if not inside or tissue_field(seed, x, y, area) < threshold:
        return False
    out["id"], out["kind"], out["rank"] = (j * columns + i) * PER_SITE + k + 1, kind, mix(seed, i, j, s + 8)
    out["x"], out["y"], out["a"], out["b"], out["angle"] = x, y, a / mpp, a * b / mpp, angle
    out["wave2"], out["phase2"] = 0.05 * uniform(seed, i, j, s + 9), 2 * math.pi * uniform(seed, i, j, s + 10)
    out["wave3"], out["phase3"] = 0.06 * uniform(seed, i, j, s + 11), 2 * math.pi * uniform(seed, i, j, s + 12)
    out["dark"], out["open"] = dark, open_
    out["spot_u"], out["spot_v"] = uniform(seed, i, j, s + 13) - 0.5, uniform(seed, i, j, s + 14) - 0.5
    strength = FAINTEST + (DARKEST - FAINTEST) * uniform(seed, i, j, s + 16)
    out["brown"] = strength if uniform(seed, i, j, s + 15) < positive else 0.0
    return True


@njit(cache=True, nogil=True)
def _gives_way(found: NDArray[np.void], n: int, sites: NDArray[np.int64], m: int) -> bool:
    """Whether a nucleus of higher rank is too close to nucleus *m*."""
    radius = math.sqrt(found[m]["a"] * found[m]["b"])
    for other in range(n):
        if abs(sites[other, 0] - sites[m, 0]) > REACH or abs(sites[other, 1] - sites[m, 1]) > REACH:
            continue
        if found[other]["rank"] <= found[m]["rank"]:
            continue
        near = TOO_CLOSE * (radius + math.sqrt(found[other]["a"] * found[other]["b"]))
        dx, dy = found[other]["x"] - found[m]["x"], found[other]["y"] - found[m]["y"]
        if dx * dx + dy * dy < near * near:
            return True
    return False


@njit(cache=True, nogil=True)
def nuclei_of_sites(
    seed: int, i0: int, j0: int, i1: int, j1: int, pitch: float, mpp: float, area: NDArray[np.float64],
    threshold: float, columns: int, positive: float, found: NDArray[np.void],
) -> NDArray[np.void]:  # fmt: skip
    """Return the nuclei of the sites [i0, i1) x [j0, j1), lowest rank first. *found* is scratch space.

    *found* has room for ``PER_SITE`` nuclei of every site, with ``REACH`` sites more on each side.
    """
    n = 0
    sites = np.empty((len(found), 2), np.int64)
    for j in range(j0 - REACH, j1 + REACH):
        for i in range(i0 - REACH, i1 + REACH):
            for k in range(PER_SITE):
                if _candidate(seed, i, j, k, pitch, mpp, area, threshold, columns, positive, found[n]):
                    sites[n, 0], sites[n, 1] = i, j
                    n += 1
    keep = np.zeros(n, np.bool_)
    for m in range(n):
        own = i0 <= sites[m, 0] < i1 and j0 <= sites[m, 1] < j1
        keep[m] = own and not _gives_way(found, n, sites, m)
    kept = found[:n][keep]
    return kept[np.argsort(kept["rank"])]
