"""InstanSeg: TorchScript from the file FOLDER/instanseg, else a network of the same shape with random weights."""

import sys
from pathlib import Path

here = str(Path(__file__).parent)
sys.path = [place for place in sys.path if str(Path(place or ".").resolve()) != here]  # its own name
import torch  # noqa: E402

sys.path.append(here)
from common import Stopwatch, arguments, tell  # noqa: E402

picture, weights = arguments()
if weights:
    from instanseg import InstanSeg

    model = InstanSeg(torch.jit.load(weights), device="cpu", verbosity=0)
    with Stopwatch() as watch:
        labels = model.eval_medium_image(picture, pixel_size=0.5, return_image_tensor=False, tile_size=512)
    tell(watch, "complete", int(labels.max()))
else:
    from instanseg.utils.models.InstanSeg_UNet import InstanSeg_UNet

    network = InstanSeg_UNet(in_channels=3, out_channels=[[2, 2, 1]], layers=[256, 128, 64, 32]).eval()
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    with Stopwatch() as watch, torch.inference_mode():
        for strip in pixels.split(512, 2):
            for tile in strip.split(512, 3):
                rows, columns = (-(-side // 8) * 8 - side for side in tile.shape[2:])
                network(torch.nn.functional.pad(tile, (0, columns, 0, rows)))
    tell(watch, "random weights: forward pass only")
