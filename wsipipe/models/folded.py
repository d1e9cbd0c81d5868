"""A segmenter as it runs at inference: the condition, constant at fixed t without z, folded into the weights.

How is the backbone's own: :meth:`wsipipe.models.backbone.Backbone.fold`. 1x1 convolutions become matrix products, whose
bytes do not depend on the number of threads.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wsipipe.errors import ModelError
from wsipipe.models.backbone import FEATURE_TIMESTEP, Backbone
from wsipipe.models.checkpoint import Segmenter
from wsipipe.models.heads import Head, MixConv
from wsipipe.models.pointwise import without_pointwise_convolutions


def without_norms(head: Head) -> Head:
    """Return *head*, in evaluation, with its batch norms in the convolutions before them; *head* itself is changed."""
    head.eval()
    for module in list(head.modules()):
        if isinstance(module, nn.Sequential):
            for k, (conv, norm) in enumerate(pairwise(module)):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[k], module[k + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
        elif isinstance(module, MixConv):
            last, norm = cast(nn.Conv2d, module.body[-1]), cast(nn.BatchNorm2d, module.norm)
            module.body[-1], module.norm = fuse_conv_bn_eval(last, norm), nn.Identity()
    return head


class FoldedSegmenter(nn.Module):
    """A segmenter whose backbone is folded: images in [-1, 1] in, maps in [0, 1] out.

    Raises
    ------
    ModelError
        When the backbone is conditioned: without its condition it would give what it was never trained to.
    """

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        if width := network.backbone.config.condition:
            raise ModelError(
                f"the backbone is conditioned on an encoder's features, {width} wide, and tells nothing without them; "
                "expected a model fitted with the same --encoder, or with --unfreeze, which leaves the encoder out"
            )
        self.backbone = network.backbone.fold()
        self.head: Head = without_norms(without_pointwise_convolutions(network.head))
        self.requires_grad_(False).eval()

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the maps that heads use; see :meth:`wsipipe.models.backbone.Backbone.features`."""
        return self.backbone.features(x)

    def encode(self, x: Tensor) -> tuple[Tensor, Any]:
        """Return the deepest map, and what :meth:`decode` needs too."""
        return self.backbone.encode(x)

    def decode(self, deepest: Tensor, rest: Any) -> list[Tensor]:
        """Return the maps that heads use, of what :meth:`encode` returns."""
        return self.backbone.decode(deepest, rest)

    def forward(self, x: Tensor) -> Tensor:
        """Return the head's maps (B, K, H, W) in [0, 1], fp32, of images (B, 3, H, W) in [-1, 1]."""
        return self.head.maps(self.head(self.features(x)))


class Conditioned(nn.Module):
    """A backbone whose condition differs from tile to tile, and so is not folded."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = without_pointwise_convolutions(backbone)
        self.requires_grad_(False).eval()

    def both(self, x: Tensor, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map, and the maps that heads use, under the condition *z* (B, D)."""
        return self.backbone.both(x, z.to(x.dtype), FEATURE_TIMESTEP)
