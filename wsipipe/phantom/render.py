"""Draw the picture (H&E, or haematoxylin and DAB) and the instance map of a phantom's region."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.phantom.nuclei import NODE, gland_field, tissue_field, value_noise
from wsipipe.stain.unmix import HDAB

TEXTURE = 1024
"""Side of the periodic textures in pixels, a power of two."""
MASK = TEXTURE - 1
GLASS = np.array([243.0, 243.0, 243.0])
"""Empty slide: neutral, so that JPEG keeps it exactly."""
HEMATOXYLIN = np.array([0.98, 1.12, 0.60])
EOSIN = np.array([0.10, 0.86, 0.48])
"""Natural densities per unit of stain, for red, green and blue."""
DYES = {
    "he": np.stack([HEMATOXYLIN, EOSIN]),
    "hdab": np.array([vector for _, vector in HDAB.stains]) * math.log(10),
}
"""The two dyes of each staining; of H-DAB per unit of optical density to base 10."""
PALE = np.array([0.25, 0.08], np.float32)
"""How much of the first and second dye an H-DAB slide has between its nuclei, of what an H&E slide has."""
COUNTERSTAIN, UNDER_BROWN = 0.42, 0.4
"""Haematoxylin of a nucleus in H-DAB, of what it has in H&E; and what is left of that in a brown one."""
FARTHEST = 1.12
"""No outline reaches farther, in units of the half axes."""
SOFT = 0.05
"""Width of the tissue's edge in units of the tissue field."""


def textures(seed: int, mpp: float) -> NDArray[np.float32]:
    """Return three periodic textures (3, TEXTURE, TEXTURE) of unit variance: fibres, chromatin clumps, fine grain."""
    rng = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(TEXTURE)
    fx, fy = np.meshgrid(frequency, frequency)
    radius = np.hypot(fx, fy)
    angle = math.pi / 4
    along, across = fx * math.cos(angle) + fy * math.sin(angle), -fx * math.sin(angle) + fy * math.cos(angle)
    filters = (
        np.exp(-((along * 22 / mpp) ** 2) - (across * 2.6 / mpp) ** 2) * (1 - np.exp(-((across * 20 / mpp) ** 2))),
        np.exp(-((radius * 2.2 / mpp) ** 2)) * (1 - np.exp(-((radius * 6 / mpp) ** 2))),
        np.exp(-((radius * 1.0 / mpp) ** 2)),
    )
    out = np.empty((3, TEXTURE, TEXTURE), np.float32)
    for layer, kernel in zip(out, filters, strict=True):
        noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TEXTURE, TEXTURE))) * kernel).real
        layer[:] = (noise - noise.mean()) / noise.std()
    return out


@njit(cache=True, nogil=True)
def nodes(seed: int, box: tuple[int, int, int, int], mpp: float, area: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the fields (5, ny, nx) at the nodes that cover *box*: tissue, gland, stain, warp x, warp y."""
    i0, j0 = box[0] // NODE, box[1] // NODE
    nx, ny = box[2] // NODE + 2 - i0, box[3] // NODE + 2 - j0
    out = np.empty((5, ny, nx), np.float32)
    for j in range(ny):
        for i in range(nx):
            x, y = float((i0 + i) * NODE), float((j0 + j) * NODE)
            out[0, j, i] = tissue_field(seed, x, y, area)
            out[1, j, i] = gland_field(seed, x * mpp, y * mpp)
            out[2, j, i] = value_noise(seed, x * mpp / 300, y * mpp / 300, 131)
            out[3, j, i] = value_noise(seed, x * mpp / 90, y * mpp / 90, 132) * 14 / mpp
            out[4, j, i] = value_noise(seed, x * mpp / 90, y * mpp / 90, 133) * 14 / mpp
    return out


@njit(cache=True, nogil=True)
def tissue_nodes(seed: int, box: tuple[int, int, int, int], area: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the tissue field (ny, nx) at the nodes that cover *box*; quicker than :func:`nodes`."""
    i0, j0 = box[0] // NODE, box[1] // NODE
    out = np.empty((box[3] // NODE + 2 - j0, box[2] // NODE + 2 - i0), np.float32)
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[j, i] = tissue_field(seed, float((i0 + i) * NODE), float((j0 + j) * NODE), area)
    return out


@njit(cache=True, nogil=True)
def _reach(angle: float, wave2: float, phase2: float, wave3: float, phase3: float) -> float:
    """Return how far an outline is in direction *angle* of the nucleus' own frame, in units of its half axes."""
    return 1.0 + wave2 * math.cos(2 * angle + phase2) + wave3 * math.cos(3 * angle + phase3)


@njit(cache=True, nogil=True)
def outlines(nuclei: NDArray[np.void], vertices: int) -> NDArray[np.float64]:
    """Return the outlines (n, vertices, 2) of nuclei in base px, as if each were alone."""
    out = np.empty((len(nuclei), vertices, 2))
    for n in range(len(nuclei)):
        nucleus = nuclei[n]
        cos, sin = math.cos(nucleus["angle"]), math.sin(nucleus["angle"])
        for v in range(vertices):
            angle = 2 * math.pi * v / vertices
            reach = _reach(angle, nucleus["wave2"], nucleus["phase2"], nucleus["wave3"], nucleus["phase3"])
            u, w = reach * math.cos(angle) * nucleus["a"], reach * math.sin(angle) * nucleus["b"]
            out[n, v, 0] = nucleus["x"] + u * cos - w * sin
            out[n, v, 1] = nucleus["y"] + u * sin + w * cos
    return out


@njit(cache=True, nogil=True, fastmath=True)
def paint_nuclei(
    nuclei: NDArray[np.void], x0: int, y0: int, labels: NDArray[np.int32], stain: NDArray[np.float32],
    texture: NDArray[np.float32], mpp: float, dab: bool,
) -> None:  # fmt: skip
    """Draw nuclei in order into *labels* (h, w) and, unless that is empty, *stain* (2, h, w): both dyes."""
    height, width = labels.shape
    clumps = texture[1] if stain.shape[0] else np.zeros((1, 1), np.float32)
    for n in range(len(nuclei)):
        nucleus = nuclei[n]
        id_, a, b, dark, open_ = nucleus["id"], nucleus["a"], nucleus["b"], nucleus["dark"], nucleus["open"]
        wave2, phase2, wave3, phase3 = nucleus["wave2"], nucleus["phase2"], nucleus["wave3"], nucleus["phase3"]
        cx, cy, spot_u, spot_v = nucleus["x"] - x0, nucleus["y"] - y0, nucleus["spot_u"], nucleus["spot_v"]
        cos, sin = math.cos(nucleus["angle"]), math.sin(nucleus["angle"])
        far, soft = FARTHEST * a + 1.0 / mpp, 0.28 / (b * mpp)
        for y in range(max(0, int(cy - far)), min(height, int(cy + far) + 2)):
            for x in range(max(0, int(cx - far)), min(width, int(cx + far) + 2)):
                dx, dy = x + 0.5 - cx, y + 0.5 - cy
                u, v = (dx * cos + dy * sin) / a, (dy * cos - dx * sin) / b
                rho = u * u + v * v
                if rho > (FARTHEST + 2 * soft) ** 2:
                    continue
                r = math.sqrt(rho) / _reach(math.atan2(v, u), wave2, phase2, wave3, phase3)
                if r < 1.0:
                    labels[y, x] = id_
                cover = min(1.0, (1.0 + soft - r) / (2 * soft))
                if stain.shape[0] == 0 or cover <= 0:
                    continue
                clump = clumps[(y0 + y) & MASK, (x0 + x) & MASK]
                spot = ((u - spot_u) * a) ** 2 + ((v - spot_v) * b) ** 2
                density = _chromatin(dark, open_, r, (1 - r) * b * mpp, spot * mpp * mpp, clump)
                if dab:
                    texture_ = density / max(dark, 0.1)
                    blue = COUNTERSTAIN * density * (UNDER_BROWN if nucleus["brown"] > 0 else 1.0)
                    brown = nucleus["brown"] * (0.6 + 0.4 * texture_) if nucleus["brown"] > 0 else stain[1, y, x]
                    stain[0, y, x] += (blue - stain[0, y, x]) * cover
                    stain[1, y, x] += (brown - stain[1, y, x]) * cover
                    continue
                under = stain[0, y, x] if stain[0, y, x] > 0.5 else 0.3 * stain[0, y, x]
                full = max(density, under) + 0.3 * min(density, under)
                stain[0, y, x] += (full - stain[0, y, x]) * cover
                stain[1, y, x] += (0.1 - 0.45 * stain[1, y, x]) * cover


@njit(cache=True, nogil=True, fastmath=True)
def _chromatin(dark: float, open_: float, r: float, depth_um: float, spot_um2: float, clump: float) -> float:
    """Return hematoxylin at a point of a nucleus: a clear middle with clumps, a dark rim, a nucleolus."""
    membrane = 0.34 * math.exp(-((depth_um / 0.55) ** 2))
    nucleolus = open_ * 1.3 * math.exp(-spot_um2 / 0.55)
    middle = open_ * (1 - r * r)
    return max(0.12, dark * (1 - 0.55 * middle + (0.14 + 0.42 * middle) * clump) + membrane + nucleolus)


@njit(cache=True, nogil=True, fastmath=True)
def _blend(
    field: NDArray[np.float32], j: int, i: int, w00: float, w01: float, w10: float, w11: float
) -> float:  # fmt: skip
    """Return a field between four nodes."""
    return float(field[j, i] * w00 + field[j, i + 1] * w01 + field[j + 1, i] * w10 + field[j + 1, i + 1] * w11)


@njit(cache=True, nogil=True, fastmath=True)
def paint_tissue(
    fields: NDArray[np.float32], x0: int, y0: int, threshold: float, texture: NDArray[np.float32],
    stain: NDArray[np.float32], share: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill *stain* (2, h, w) with cytoplasm and fibres, and *share* (h, w) with how far each pixel is inside tissue."""
    _, height, width = stain.shape
    i0, j0 = x0 // NODE, y0 // NODE
    tissues, glands, tones, warps_x, warps_y = fields[0], fields[1], fields[2], fields[3], fields[4]
    fibres, clumps, grains = texture[0], texture[1], texture[2]
    for y in range(height):
        fy = (y0 + y + 0.5) / NODE - j0
        j = int(fy)
        v = fy - j
        for x in range(width):
            fx = (x0 + x + 0.5) / NODE - i0
            i = int(fx)
            u = fx - i
            w00, w01, w10, w11 = (1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v
            tissue = _blend(tissues, j, i, w00, w01, w10, w11)
            inside = min(1.0, max(0.0, (tissue - threshold) / SOFT + 0.5))
            share[y, x] = inside
            if inside == 0:
                continue
            gx = int(x0 + x + 4096 + _blend(warps_x, j, i, w00, w01, w10, w11)) & MASK
            gy = int(y0 + y + 4096 + _blend(warps_y, j, i, w00, w01, w10, w11)) & MASK
            fibre, grain = fibres[gy, gx], grains[(y0 + y) & MASK, (x0 + x) & MASK]
            clump = clumps[(y0 + y + 311) & MASK, (x0 + x + 177) & MASK]
            gland = min(1.0, max(0.0, 6 * _blend(glands, j, i, w00, w01, w10, w11) + 0.5))
            gap = min(1.0, max(0.12, 0.9 * (fibre + 1.75)))
            stroma = (0.40 + 0.17 * fibre) * gap + 0.03 * grain
            plasma = 0.46 + 0.05 * clump + 0.035 * grain
            tone = 1.0 + 0.18 * _blend(tones, j, i, w00, w01, w10, w11)
            stain[1, y, x] = max(0.0, stroma * (1 - gland) + plasma * gland) * tone
            stain[0, y, x] = max(0.0, 0.03 * (1 - gland) + (0.17 + 0.05 * clump) * gland) * tone


@njit(cache=True, nogil=True, fastmath=True)
def develop(
    stain: NDArray[np.float32], share: NDArray[np.float32], x0: int, y0: int, texture: NDArray[np.float32],
    dyes: NDArray[np.float64], out: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Turn amounts of both *dyes* (2, 3) into RGB by Beer and Lambert, with a little sensor noise inside tissue."""
    height, width = share.shape
    grains = texture[2]
    for y in range(height):
        for x in range(width):
            h, e, inside = stain[0, y, x], stain[1, y, x], share[y, x]
            noise = 1.3 * grains[(7 * (y0 + y)) & MASK, (5 * (x0 + x) + 3 * (y0 + y)) & MASK] * inside
            for c in range(3):
                density = (h * dyes[0, c] + e * dyes[1, c]) * inside
                value = GLASS[c] * math.exp(-density) + noise
                out[y, x, c] = np.uint8(min(255.0, max(0.0, value + 0.5)))
