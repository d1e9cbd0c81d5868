"""Test-time training: before an image is predicted, the backbone fills in masked parts of that very image for a while.

The masked-diffusion objective of pretraining, on the tiles of one image; the head stays as it is, and the weights are
the model's own again for the next image (CMD paper, appendix C). For ``evaluate`` alone: on a slide a pixel's value
must not depend on what else was asked for.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsipipe.errors import ModelError, SettingsError
from wsipipe.infer.predict import Predictor
from wsipipe.models import adapters, checkpoint
from wsipipe.models.backbone import Backbone
from wsipipe.models.checkpoint import Segmenter
from wsipipe.models.cmd_block import GRN
from wsipipe.models.conditioned import WithEncoder, bare
from wsipipe.models.space import InLatents, space_of
from wsipipe.settings import EvaluateSettings, RunSettings
from wsipipe.train.diffusion import TIMESTEPS, hide, mask, normalise, reconstruction_loss

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase, GRN)
RANK = 16
"""Of the low ranks that ``lora`` adds."""


class AdaptedPredictor(Predictor):
    """A predictor that is trained on the tiles of an image before it predicts them; :meth:`maps` takes one image.

    Raises
    ------
    ModelError
        When the model's backbone has never learned to fill in pictures.
    SettingsError
    """

    def __init__(self, path: Path, run: RunSettings, settings: EvaluateSettings) -> None:
        if run.engine != "torch" or run.precision == "bf16":
            raise SettingsError("--ttt-steps trains in fp32 with torch; leave --engine and --precision out")
        super().__init__(path, run.device, "fp32", run.batch)
        self.settings = settings
        network, _ = checkpoint.load(path)
        self.segmenter = cast(Segmenter, network)
        if not self.segmenter.backbone.reconstructs:
            raise ModelError(
                f"--ttt-steps: the backbone of {self.card.name} never learned to fill in pictures; expected a head "
                "fitted on a backbone that `wsipipe pretrain` made"
            )

    def maps(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the maps of the *tiles* of one image, by the network trained on them; see :meth:`Predictor.maps`."""
        if not len(tiles):
            return super().maps(tiles)
        try:
            self.use(self.trained_on(tiles))
            return super().maps(tiles)
        finally:
            self.use(self.segmenter)

    def trained_on(self, tiles: NDArray[np.uint8]) -> Segmenter:
        """Return a copy of the network after the steps on *tiles*; what is drawn follows from seed and pixels."""
        network = copy.deepcopy(self.segmenter).to(self.device)
        backbone, asked = network.backbone, self.settings
        part = _trainable(backbone, asked.ttt_part)
        optimiser = torch.optim.AdamW(part, lr=asked.ttt_lr, weight_decay=0.0)
        pixels = int.from_bytes(hashlib.sha256(tiles.tobytes()).digest()[:8], "big")
        rng = np.random.default_rng((asked.seed, pixels))
        with torch.inference_mode(False), torch.enable_grad():
            for _ in range(asked.ttt_steps):
                chosen = rng.choice(len(tiles), asked.ttt_batch, replace=len(tiles) < asked.ttt_batch)
                optimiser.zero_grad(set_to_none=True)
                loss = self._loss(backbone, tiles[chosen], rng)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                if not bool(torch.isfinite(loss)):
                    raise ModelError(f"--ttt-steps: the loss is {loss.item()}; expected a lower --ttt-lr")
        return adapters.merged(network).eval().requires_grad_(False)

    def _loss(self, backbone: Backbone, tiles: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
        images = normalise(torch.from_numpy(tiles).to(self.device))
        z = backbone.encoder(images) if isinstance(backbone, WithEncoder) else None
        inner = bare(backbone)
        space = space_of(inner)
        timesteps = rng.integers(1, TIMESTEPS + 1, len(tiles))
        hidden = torch.from_numpy(np.stack([mask(int(t), rng, space.cells) for t in timesteps])).to(self.device)
        shown = space.encode(images)
        network = inner.inner if isinstance(inner, InLatents) else inner
        return reconstruction_loss(network(hide(shown, hidden), torch.from_numpy(timesteps).to(self.device), z), shown)


def _trainable(backbone: Backbone, part: str) -> list[nn.Parameter]:
    """Let the *part* of a backbone get gradients, and return it: backbone, norms, or lora."""
    if part == "lora":
        adapters.adapt(backbone, "lora", RANK)
        return [p for p in backbone.parameters() if p.requires_grad]
    backbone.requires_grad_(part == "backbone")
    if part == "norms":
        for name, module in bare(backbone).named_modules():
            if isinstance(module, NORMS) or name.endswith("modulation"):
                module.requires_grad_(True)
    found = [p for p in backbone.parameters() if p.requires_grad]
    if not found:
        raise SettingsError("--ttt-part norms: this backbone has none with weights; take backbone or lora")
    return found
