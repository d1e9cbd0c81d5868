"""How blurred tissue is, in µm, place by place: from the light and dark that is left at two scales.

Fine detail (a Laplacian of Gaussian at 0.4 µm) fades with blur much sooner than coarse detail (at 1.6 µm). Their ratio
does not depend on how strongly a slide is stained or how much there is to see, which is why it can be judged in small
windows, where the 99th percentile of one Laplacian (:func:`~wsipipe.quality.focus.sharpness`) only tells how much there
is. What a ratio means was measured by blurring sharp tissue by a known amount.
"""

from __future__ import annotations

import cv2
import numpy as np

from wsipipe.quality.light import Floats, Mask, Pixels

FINE_UM, COARSE_UM = 0.4, 1.6
"""Widths (sigma) of the two filters."""
CURVE_UM = (0.0, 0.75, 1.0, 1.5, 2.0, 3.0)
CURVE_RATIO = (0.676, 0.25, 0.2, 0.15, 0.138, 0.12)
"""Sigma of a Gaussian by which sharp tissue was blurred (then noise of 1.5 grey levels and JPEG 80, as of a scanner),
and the median ratio after it, of fields of four public sets; see the decision on quality."""
WINDOW_UM = 12.0
"""Sigma of the window over which detail is averaged."""
FAINT = 0.15
"""Detail in grey levels that is nothing: it keeps empty places from having any ratio."""
LEAST_DETAIL = 1.5
"""Coarse detail, in grey levels, below which there is nothing to judge by."""


def detail(rgb: Pixels, mpp: float, per: int) -> tuple[Floats, Floats]:
    """Return the mean squares of fine and of coarse detail in squares of *per* x *per* px, float32 (h / per, w / per).

    Parameters
    ----------
    rgb : uint8 (h, w, 3)
        At *mpp*, at most 0.75 µm/px; h and w are multiples of *per*.
    mpp : float
    per : int
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    size = rgb.shape[1] // per, rgb.shape[0] // per
    squares = []
    for sigma in (FINE_UM, COARSE_UM):
        smooth = cv2.GaussianBlur(grey, (0, 0), sigma / mpp, borderType=cv2.BORDER_REFLECT)
        curved = cv2.Laplacian(smooth, cv2.CV_32F, borderType=cv2.BORDER_REFLECT) * (sigma / FINE_UM) ** 2
        squares.append(np.asarray(cv2.resize(curved * curved, size, interpolation=cv2.INTER_AREA), np.float32))
    return squares[0], squares[1]


def blur_um(fine: Floats, coarse: Floats, um_per_px: float) -> Floats:
    """Return the blur in µm (sigma) at every place, 0 to 3; NaN where there is no detail to judge by.

    Parameters
    ----------
    fine, coarse : float32 (h, w)
        From :func:`detail`.
    um_per_px : float
    """
    ratio, there = detail_ratio(fine, coarse, um_per_px)
    found = np.interp(-ratio, [-r for r in CURVE_RATIO], CURVE_UM)
    return np.where(there, found, np.nan).astype(np.float32)


def detail_ratio(fine: Floats, coarse: Floats, um_per_px: float) -> tuple[Floats, Mask]:
    """Return the ratio of fine to coarse detail around every place, and where there is detail enough to judge by.

    The mean over the window is a geometric one: a sharp neighbour has thirty times the fine detail of a blurred place,
    and would outshine it.
    """
    logs = [cv2.GaussianBlur(np.log(a + FAINT**2), (0, 0), WINDOW_UM / um_per_px) for a in (fine, coarse)]
    ratio = np.exp(0.5 * (logs[0] - logs[1]))
    return np.asarray(ratio, np.float32), np.asarray(logs[1] >= 2 * np.log(LEAST_DETAIL), bool)
