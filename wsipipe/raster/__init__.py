"""The slide as one big picture at the working resolution.

A pixel of the raster has one value, whatever box is asked for, in whatever order, thread or process: pixels are made in
chunks of 512 px of the global grid, and the arithmetic of a pixel depends on its global coordinates alone.
"""

from wsipipe.raster.chunks import CHUNK, ChunkRaster, Pixels, Raster
from wsipipe.raster.slide import SlideRaster, open_slide_raster, slide_grid

__all__ = ["CHUNK", "ChunkRaster", "Pixels", "Raster", "SlideRaster", "open_slide_raster", "slide_grid"]
