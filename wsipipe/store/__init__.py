"""The tile store: every pixel that a selected tile reads, once, in one sparse sharded Zarr v3 raster.

The schema is written down in ``docs/store.md``.
"""

from wsipipe.store.plan import StorePlan, plan_store, tissue_tiles
from wsipipe.store.read import StoreRaster, TileStore, is_store, open_raster, open_store
from wsipipe.store.write import write_store

__all__ = [
    "StorePlan",
    "StoreRaster",
    "TileStore",
    "is_store",
    "open_raster",
    "open_store",
    "plan_store",
    "tissue_tiles",
    "write_store",
]
