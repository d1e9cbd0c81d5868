"""The stages of `wsipipe segment` by hand, on one field of a slide: pixels, maps, cells, polygons.

python examples/stage_by_stage.py [SLIDE]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from wsipipe.cells.instances import find_cells
from wsipipe.cells.polygons import trace
from wsipipe.infer.blend import blend
from wsipipe.infer.predict import Predictor
from wsipipe.models.zoo import resolve
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.raster import open_slide_raster
from wsipipe.raster.tiling import TileGrid
from wsipipe.segmentation.prepare import cell_rules
from wsipipe.settings import CellSettings, GridSettings, SlideSettings

with tempfile.TemporaryDirectory() as folder:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/phantom.tiff")
    if not path.exists():
        write_phantom(path, PhantomSettings(width=600, height=500, mpp=0.5, tissue=1.0))

    model = Predictor(resolve("cmd-t"), device="cpu")
    raster = open_slide_raster(path, SlideSettings(), model.card.mpp)
    size = raster.grid.size
    field = (0, 0, min(600, size[0]), min(500, size[1]))  # grid pixels: the working resolution

    tiles = TileGrid(size, GridSettings.overlap)
    i0, j0, i1, j1 = tiles.tiles_over(field)
    wanted = [(i, j) for j in range(j0, j1) for i in range(i0, i1)]
    maps = model.maps(np.stack([raster.read(tiles.box(i, j)) for i, j in wanted]))
    blended = blend(field, tiles, dict(zip(wanted, maps, strict=True)), len(model.names))

    rules = cell_rules(model.card.rules, CellSettings(), raster.grid)
    cells = find_cells(blended, model.names, field, field, (field[2], field[3]), rules)
    polygons = trace(cells, blended[0], rules.threshold, raster.grid)

print(f"{len(wanted)} tiles, maps {blended.shape} of {', '.join(model.names)}, {len(polygons)} cells")
print("the first cell, in level-0 pixels:", polygons[0].wkt[:120] if len(polygons) else "none")
