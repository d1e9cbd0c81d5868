"""Does a patch show a part of a test image? Found by local hashes, decided by laying the two over each other.

Points that stand out (ORB: corners at eight scales, turned upright) carry a 256-bit hash of their surroundings, which
survives recompression, turning, and scales from a half to double. Images with several hashes of a patch are candidates.
A similarity transform fitted to the pairs then places the image on the patch, and only where the pixels correlate are
they the same tissue: stained nuclei look alike, and hashes alone would cry wolf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.corpus.lookup import Descriptors, Lookup
from wsipipe.corpus.sources import Source
from wsipipe.errors import DatasetError, SlideError, UnsupportedSlide
from wsipipe.raster import Pixels
from wsipipe.slide import Slide, open_slide
from wsipipe.units import Box

PATCH_POINTS = 500
PX2_PER_POINT = 400
"""Points of an image: one per so many square pixels."""
EDGE = 16
"""Points keep this distance from the border of a picture: what lies in a strip along it must be found too."""
WINDOW, WINDOW_OVERLAP = 1536, 512
"""Large images are cut into windows of this side, which overlap by so much."""
MAX_PIXELS = 1 << 28
LEAST_HINTS, MOST_CANDIDATES = 4, 24
"""Points of one image that must agree for a closer look, and images that are looked at."""
RATIO = 0.85
"""The nearest hash must be nearer than the second by this factor to make a pair."""
REPROJECTION_PX = 4.0
LEAST_PAIRS = 6
"""Pairs that agree on where the image lies. Of unrelated tissue up to 14 have agreed: hence the look at the pixels."""
SCALES = 0.3, 3.3
MARGIN = 16
"""Pixels around the pairs that agree in which the two are compared."""
LEAST_OVERLAP = 2304
"""Pixels of the patch that must be compared for a verdict."""
SAME = 0.5
"""Correlation of the overlap from which on it is the same tissue: unrelated tissue reaches 0.2, a crop that was doubled
and saved as a poor JPEG 0.8."""


class Match(NamedTuple):
    """An image that a patch shows a part of: its name, the share of the patch it covers, and their correlation."""

    image: str
    overlap: float
    correlation: float


class Points(NamedTuple):
    """What stands out in a picture: positions float32 (n, 2) as x, y, and hashes uint8 (n, 32)."""

    xy: NDArray[np.float32]
    descriptors: Descriptors


class Placed(NamedTuple):
    """Where an image lies on a patch: the similarity transform (2, 3) of its pixels, and the box where pairs agree."""

    matrix: NDArray[np.float64]
    box: Box


class Window(NamedTuple):
    """A part of an image, or its mirror image, as grey pixels and points."""

    image: str
    grey: Pixels
    points: Points


class Excluded:
    """Images of which no patch may show a part.

    Parameters
    ----------
    windows : sequence of Window
    names : tuple of str
        Of all images, for the record.
    """

    def __init__(self, windows: Sequence[Window], names: tuple[str, ...]) -> None:
        self.windows, self.names = list(windows), names
        self._lookup = Lookup([window.points.descriptors for window in self.windows])

    def find(self, pixels: Pixels) -> Match | None:
        """Return the image that a patch, uint8 (h, w, 3), shows a part of, or None."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        points = find_points(np.asarray(grey, np.uint8), PATCH_POINTS)
        if len(points.xy) < LEAST_PAIRS:
            return None
        nearest = self._lookup.nearest(points.descriptors)
        for number in _likely(nearest[:, 0]):
            window, mine = self.windows[number], np.flatnonzero(nearest[:, 0] == number)
            if _fit(window.points.xy[nearest[mine, 1]], points.xy[mine], LEAST_HINTS) is None:
                continue
            placed = _place(points, window.points)
            if placed is not None:
                overlap, correlation = _compare(np.asarray(grey, np.uint8), window.grey, placed)
                if correlation >= SAME:
                    return Match(window.image, round(overlap, 3), round(correlation, 3))
        return None


def index_images(
    sources: Sequence[Source], say: Callable[[str], None] = print, done: Callable[[], None] = lambda: None
) -> Excluded:
    """Return *sources* (pictures and small slides) made ready for :meth:`Excluded.find`.

    Files of other than colour pixels (label maps) are left out, and said so.

    Raises
    ------
    DatasetError
        When an image cannot be read or is too large: nothing could be promised about it.
    """
    windows: list[Window] = []
    names, maps = [], 0
    for source in sources:
        picture = _read(source)
        done()
        if picture is None:
            maps += 1
            continue
        names.append(source.name)
        found = list(_windows(source.name, picture))
        if not found:
            say(f"--exclude: {source.name} shows nothing that could be recognised")
        windows += found
    if maps:
        say(f"--exclude: {maps} files without colour (label maps?) left out")
    if not names:
        raise DatasetError(
            f"--exclude: none of {len(sources)} files is a colour image; expected the images of a test set"
        )
    return Excluded(windows, tuple(names))


def find_points(grey: Pixels, most: int) -> Points:
    """Return up to *most* points that stand out in a grey picture, uint8 (h, w)."""
    orb = cv2.ORB.create(nfeatures=most, scaleFactor=1.2, nlevels=8, edgeThreshold=EDGE, fastThreshold=5)
    keypoints, descriptors = orb.detectAndCompute(grey, None)
    if descriptors is None:
        return Points(np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8))
    return Points(np.array([point.pt for point in keypoints], np.float32), np.asarray(descriptors, np.uint8))


def _read(source: Source) -> Pixels | None:
    """Return the pixels of an image, or None for one without colour."""
    try:
        with open_slide(source.path) as slide:
            return _whole(slide)
    except UnsupportedSlide:
        return None
    except SlideError as error:
        raise DatasetError(f"--exclude: {error}") from error


def _whole(slide: Slide) -> Pixels:
    width, height = slide.info.size
    if width * height > MAX_PIXELS:
        raise DatasetError(
            f"--exclude: {slide.info.path} has {width} x {height} px; expected at most 2^28: leave whole "
            "slides of a test set out of the inputs, by file or by patient"
        )
    return slide.read_region(0, 0, 0, width, height)


def _windows(name: str, picture: Pixels) -> Iterator[Window]:
    """Yield the windows of an image and of its mirror image that have points."""
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = grey.shape
    step = WINDOW - WINDOW_OVERLAP
    for top in range(0, max(1, height - WINDOW_OVERLAP), step):
        for left in range(0, max(1, width - WINDOW_OVERLAP), step):
            part = grey[top : top + WINDOW, left : left + WINDOW]
            for view in (part, part[:, ::-1]):
                view = np.ascontiguousarray(view)
                points = find_points(view, max(PATCH_POINTS, view.size // PX2_PER_POINT))
                if len(points.xy) >= LEAST_PAIRS:
                    yield Window(name, view, points)


def _likely(images: NDArray[np.int64]) -> list[int]:
    """Return the images that most points are like, best first."""
    votes = np.bincount(images[images >= 0])
    order = np.argsort(-votes, kind="stable")[:MOST_CANDIDATES]
    return [int(number) for number in order if votes[number] >= LEAST_HINTS]


def _place(patch: Points, image: Points) -> Placed | None:
    """Return where an image lies on a patch, or None where too few pairs agree on it."""
    pairs = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(patch.descriptors, image.descriptors, k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < RATIO * p[1].distance]
    if len(good) < LEAST_PAIRS:
        return None
    to, source = patch.xy[[m.queryIdx for m in good]], image.xy[[m.trainIdx for m in good]]
    fitted = _fit(source, to, LEAST_PAIRS)
    if fitted is None:
        return None
    matrix, agreeing = fitted[0], to[fitted[1]]
    x0, y0 = np.floor(agreeing.min(axis=0) - MARGIN).astype(int).clip(0).tolist()
    x1, y1 = np.ceil(agreeing.max(axis=0) + MARGIN).astype(int).tolist()
    return Placed(matrix, (x0, y0, x1, y1))


def _fit(
    source: NDArray[np.float32], to: NDArray[np.float32], least: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
    """Return the similarity transform (2, 3) of points, and which agree on it; None when it is fewer than *least*."""
    matrix, inliers = cv2.estimateAffinePartial2D(source, to, ransacReprojThreshold=REPROJECTION_PX)
    if matrix is None or int(inliers.sum()) < least:
        return None
    within = SCALES[0] <= float(np.hypot(matrix[0, 0], matrix[1, 0])) <= SCALES[1]
    return (np.asarray(matrix, np.float64), inliers.ravel() > 0) if within else None


def _compare(patch: Pixels, image: Pixels, placed: Placed) -> tuple[float, float]:
    """Return the share of *patch* that *image*, placed on it, covers, and their correlation where pairs agreed."""
    size, (x0, y0, x1, y1) = (patch.shape[1], patch.shape[0]), placed.box
    other = cv2.warpAffine(image, placed.matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full(image.shape, 255, np.uint8), placed.matrix, size) == 255
    covered = cv2.erode(inside.astype(np.uint8), np.ones((9, 9), np.uint8))[y0:y1, x0:x1] > 0
    if int(covered.sum()) < LEAST_OVERLAP:
        return float(inside.mean()), 0.0
    a, b = (_texture(grey)[y0:y1, x0:x1][covered] for grey in (patch, np.asarray(other, np.uint8)))
    scale = float(np.sqrt((a * a).mean() * (b * b).mean()))
    return float(inside.mean()), float((a * b).mean()) / scale if scale > 0 else 0.0


def _texture(grey: Pixels) -> NDArray[np.float32]:
    """Return what is finer than a few nuclei and coarser than compression: differences of two blurs."""
    real = grey.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(real, (0, 0), 2.0) - cv2.GaussianBlur(real, (0, 0), 12.0), np.float32)
