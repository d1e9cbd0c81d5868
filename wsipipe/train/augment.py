"""Training samples: a random crop at a random scale and angle, stained, blurred and compressed as slides are.

Every sample's randomness comes from its own generator, so data order and augmentation are functions of
(seed, step, index) alone.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.labels import Annotated
from wsipipe.settings import AugmentSettings

HED = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
"""Ruifrok and Johnston's stain vectors: haematoxylin, eosin, DAB."""

SMALLEST_PX = 9.0
"""Median diameter below which no sample's nuclei are shrunk."""
FINEST_STEP = 1.2
"""Pixels that are farther apart than this in the picture are means of several samples of it."""
OUTSIDE = -1
"""Label of pixels outside the annotated picture; they carry no loss."""


def crop(
    source: Annotated, size: int, mpp: float, rng: np.random.Generator, settings: AugmentSettings
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return a random (size, size) crop of image and labels at *mpp*, scaled, rotated and flipped at random.

    Beyond the picture's edge the image is mirrored and the labels are :data:`OUTSIDE`. A picture of small nuclei is not
    made smaller than leaves them :data:`SMALLEST_PX` across.
    """
    least = min(1.0, np.nan_to_num(SMALLEST_PX * mpp / (source.diameter * source.mpp)))
    zoom = np.exp(rng.uniform(np.log(max(settings.scale_low, least)), np.log(settings.scale_high)))
    step = mpp / source.mpp / zoom  # source pixels per output pixel
    angle = rng.uniform(0, 2 * np.pi)
    flip = rng.choice([-1.0, 1.0])
    cx, cy = _centre(source, step * size / 2, rng, settings.on_nuclei)
    c, s = step * np.cos(angle), step * np.sin(angle)
    linear = np.array([[c * flip, -s], [s * flip, c]])
    half = (size - 1) / 2
    matrix = np.column_stack([linear, np.array([cx, cy]) - 0.5 - linear @ np.array([half, half])])
    return _warped(source, matrix, step, size)


def _centre(source: Annotated, reach: float, rng: np.random.Generator, on_nuclei: float) -> tuple[float, float]:
    """Return the centre of a crop in px of *source*: anywhere, or on a pixel of a nucleus, *reach* within the edges."""
    h, w = source.labels.shape
    low, high = (np.minimum(reach, (w / 2, h / 2)), np.maximum(np.array([w, h]) - reach, (w / 2, h / 2)))
    centre = rng.uniform(low, high)
    if rng.random() < on_nuclei and (nuclei := np.flatnonzero(source.labels > 0)).size:
        y, x = divmod(int(nuclei[rng.integers(nuclei.size)]), w)
        centre = np.clip((x + 0.5, y + 0.5), low, high)
    return float(centre[0]), float(centre[1])


def plain_crop(
    source: Annotated, corner: tuple[float, float], size: int, mpp: float
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return the (size, size) crop of image and labels at *mpp* whose corner lies at *corner* (x, y) on that grid."""
    step = mpp / source.mpp
    matrix = np.column_stack([np.eye(2) * step, (np.array(corner) + 0.5) * step - 0.5])
    return _warped(source, matrix, step, size)


def _warped(
    source: Annotated, matrix: NDArray[np.float64], step: float, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return image and labels under the affine *matrix* from crop to source, whose pixels are *step* source pixels."""
    finer = 2 if step > FINEST_STEP else 1  # samples per pixel and axis, whose mean it is, as on a slide
    halvings = min(max(0, round(math.log2(step / finer))), len(source.pyramid) - 1)
    at = np.array([[1 / finer, 0, 0.5 / finer - 0.5], [0, 1 / finer, 0.5 / finer - 0.5], [0, 0, 1]])
    inverse = np.vstack([matrix, [0, 0, 1]]) @ at
    inverse = np.column_stack([inverse[:2, :2], inverse[:2, 2] + 0.5]) / 2**halvings - np.array([[0, 0, 0.5]])
    linearly, nearest = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    reduced, fine = source.pyramid[halvings], (size * finer, size * finer)
    image = cv2.warpAffine(reduced, inverse, fine, flags=linearly, borderMode=cv2.BORDER_REFLECT_101)
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    labels = cv2.warpAffine(
        source.labels.astype(np.float32), matrix, (size, size), flags=nearest, borderValue=(OUTSIDE,)
    )
    return np.asarray(image, np.uint8), labels.astype(np.int32)


def stain(image: NDArray[np.uint8], rng: np.random.Generator, spread: float, hue: float = 0.0) -> NDArray[np.uint8]:
    """Return *image* with the strength, offset and colour of each stain changed at random in HED space."""
    strength, offset = rng.uniform(1 - spread, 1 + spread, 3), rng.uniform(-spread / 6, spread / 6, 3)
    return painted(densities(image) * strength + offset, HED + rng.normal(0, 1, (3, 3)) * hue if hue else HED)


def restained(
    image: NDArray[np.uint8], strength: NDArray[np.float64], offset: NDArray[np.float64] | float = 0.0
) -> NDArray[np.uint8]:
    """Return *image* with its density of each stain of :data:`HED` times *strength* (3,) plus *offset* (3,)."""
    return painted(densities(image) * strength + offset)


def densities(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the density of each stain of :data:`HED` in the RGB *image*, float32 (H, W, 3)."""
    stains: NDArray[np.float32] = -np.log((image.astype(np.float32) + 1) / 256) @ np.linalg.inv(HED).astype(np.float32)
    return stains


def painted(stains: NDArray[np.floating], vectors: NDArray[np.floating] = HED) -> NDArray[np.uint8]:
    """Return the RGB picture of densities (H, W, 3) of stains with these *vectors* (3, 3); see :func:`densities`."""
    changed: NDArray[np.float64] = 256 * np.exp(-(stains @ vectors)) - 1
    return np.clip(changed, 0, 255).astype(np.uint8)


def appearance(image: NDArray[np.uint8], rng: np.random.Generator, settings: AugmentSettings) -> NDArray[np.uint8]:
    """Return *image* with stain, brightness, contrast, blur, noise and JPEG compression changed at random."""
    if settings.stain and rng.random() < 0.9:
        image = stain(image, rng, settings.stain, settings.hue)
    if settings.gamma:
        image = np.asarray(cv2.LUT(image, _curve(rng.uniform(-settings.gamma, settings.gamma))), np.uint8)
    b = settings.brightness
    gain, offset = rng.uniform(1 - b, 1 + b, 3), rng.uniform(-b, b) * 128
    x = (image.astype(np.float32) - 128) * rng.uniform(1 - b, 1 + b) * gain + 128 + offset
    if rng.random() < 0.3:
        x += rng.normal(0, rng.uniform(0, 6), x.shape)
    image = np.asarray(np.clip(x, 0, 255), np.uint8)
    if rng.random() < 0.35:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.2, max(settings.blur, 0.21))), np.uint8)
    if rng.random() < settings.jpeg:
        image = jpeg(image, int(rng.integers(35, 95)))
    return image


def _curve(exponent: float) -> NDArray[np.uint8]:
    """Return what a scanner of gamma e**exponent makes of each grey level, uint8 (256,)."""
    levels: NDArray[np.float64] = 255 * (np.arange(256) / 255) ** np.exp(exponent)
    return np.rint(levels).astype(np.uint8)


def jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return the RGB *image* after JPEG compression."""
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])
