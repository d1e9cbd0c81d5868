"""Names for the numbers wsipipe passes around, so that a signature says which frame and unit it means.

Frames
------
base
    Level-0 pixels of the slide, x right, y down; (0, 0) is the top-left *corner* of the first pixel and a pixel covers
    ``[x, x + 1)``. Everything stored uses this frame.
level
    Pixels of one pyramid level of the file.
grid
    Pixels of the working grid: the slide at the model's resolution, anchored at the slide's origin.
"""

from typing import NewType

Mpp = NewType("Mpp", float)
"""Microns per pixel."""
Microns = NewType("Microns", float)

Pair = tuple[float, float]
"""An (x, y) pair of floats."""
Size = tuple[int, int]
"""(width, height) in whole pixels."""
Box = tuple[int, int, int, int]
"""Half-open ``(x0, y0, x1, y1)`` in whole pixels of the frame that the name states."""
