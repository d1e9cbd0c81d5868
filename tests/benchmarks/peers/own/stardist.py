"""StarDist, as its model for H&E is built (32 rays, grid of 2): weights from FOLDER/stardist, else random ones."""

import sys
import tempfile
from pathlib import Path

sys.path = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).parent]  # its own name
here = str(Path(__file__).parent)
from stardist.models import Config2D, StarDist2D  # noqa: E402

sys.path.append(here)
from common import Stopwatch, arguments, tell  # noqa: E402

picture, weights = arguments()
pixels = picture.astype("float32") / 255
tiles = (max(1, -(-picture.shape[0] // 1024)), max(1, -(-picture.shape[1] // 1024)), 1)
with tempfile.TemporaryDirectory() as folder:
    if weights:
        model = StarDist2D(None, name=weights.name, basedir=str(weights.parent))
    else:
        config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=3, axes="YXC")
        model = StarDist2D(config, name="random", basedir=folder)
    model.predict(pixels[:128, :128])
    with Stopwatch() as watch:
        if weights:
            labels, found = model.predict_instances(pixels, n_tiles=tiles, show_tile_progress=False)
        else:
            model.predict(pixels, n_tiles=tiles, show_tile_progress=False)
if weights:
    tell(watch, "complete", len(found["points"]))
else:
    tell(watch, "random weights: forward pass only")
