"""Cellpose-SAM (ViT-L): weights from the file FOLDER/cellpose, else random ones."""

import sys
from pathlib import Path

here = str(Path(__file__).parent)
sys.path = [place for place in sys.path if str(Path(place or ".").resolve()) != here]  # its own name
import torch  # noqa: E402
from cellpose import core, models, transforms, vit_sam  # noqa: E402

sys.path.append(here)
from common import Stopwatch, arguments, tell  # noqa: E402

picture, weights = arguments()
if weights:
    model = models.CellposeModel(gpu=False, pretrained_model=str(weights), use_bfloat16=False)
    with Stopwatch() as watch:
        masks, _, _ = model.eval(picture)
    tell(watch, "complete", int(masks.max()))
else:
    network = vit_sam.Transformer(dtype=torch.float32).eval()
    network.device = torch.device("cpu")
    pixels = transforms.normalize_img(picture.astype("float32"))[None]
    with Stopwatch() as watch, torch.inference_mode():
        core.run_net(network, pixels, batch_size=1, bsize=256)
    tell(watch, "random weights: forward pass only")
