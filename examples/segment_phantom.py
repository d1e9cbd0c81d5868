"""Draw a slide whose nuclei are known, segment it, and see how many were found.

python examples/segment_phantom.py
"""

import tempfile
from pathlib import Path

import shapely

import wsipipe
from wsipipe.phantom.slide import PhantomSettings, write_phantom

with tempfile.TemporaryDirectory() as folder:
    slide = Path(folder) / "phantom.tiff"
    truth = write_phantom(slide, PhantomSettings(width=1024, height=768, mpp=0.5, seed=1, tissue=0.7))
    cells = wsipipe.segment(slide)

nuclei = shapely.points(truth.centroids((0, 0, 1024, 768)))
found = shapely.STRtree(cells.geometry.to_numpy()).query(nuclei, predicate="within")[0]
print(f"{len(nuclei)} nuclei drawn, {len(cells)} cells found, {len(set(found))} nuclei lie inside a cell")
print(cells[["area_um2", "eccentricity", "probability"]].describe().round(2))
