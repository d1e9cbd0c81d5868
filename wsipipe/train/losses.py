"""Losses of the heads: cross-entropy and Dice, and for cisca Tversky and absolute error of the directional maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """What a batch should predict.

    Attributes
    ----------
    classes : int64 (B, H, W)
        0 background, 1 interior, 2 boundary; -1 where there is no annotation.
    directions : float32 (B, 4, H, W)
    """

    classes: Tensor
    directions: Tensor


def tversky(p: Tensor, truth: Tensor, weight: Tensor, alpha: float = 0.5) -> Tensor:
    """Return 1 - Tversky index over the batch; *alpha* weighs false positives (0.5 gives Dice)."""
    p, truth = p * weight, truth * weight
    both = (p * truth).sum()
    wrong = alpha * (p * (1 - truth)).sum() + (1 - alpha) * ((1 - p) * truth).sum()
    return 1 - (both + 1) / (both + wrong + 1)


def mask_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Return cross-entropy + Dice of background / nucleus logits (B, 2, H, W)."""
    known = (targets.classes >= 0).float()
    truth = (targets.classes > 0).long()
    entropy = (F.cross_entropy(logits, truth, reduction="none") * known).sum() / known.sum().clamp(min=1)
    return entropy + tversky(logits.softmax(1)[:, 1], truth.float(), known)


def instance_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Return the cisca loss of logits (B, 7, H, W): three classes, then four directions.

    Cross-entropy with the rare boundary class weighted up, Dice of the nuclei, Tversky (favouring recall) of the
    boundary, absolute error of the directions (a third as heavy outside nuclei, where they are 0).
    """
    known = (targets.classes >= 0).float()
    weight = logits.new_tensor([1.0, 1.0, 2.0])
    entropy = F.cross_entropy(logits[:, :3], targets.classes, weight=weight, ignore_index=-1, reduction="none")
    p = logits[:, :3].softmax(1)
    nucleus = (targets.classes > 0).float()
    dice = tversky(1 - p[:, 0], nucleus, known)
    edge = tversky(p[:, 2], (targets.classes == 2).float(), known, alpha=0.3)
    inside = known * (nucleus + (1 - nucleus) / 3)
    error = (logits[:, 3:7].tanh() - targets.directions).abs().mean(1)
    return (
        (entropy * known).sum() / known.sum().clamp(min=1)
        + dice
        + 0.5 * edge
        + 2 * (error * inside).sum() / inside.sum().clamp(min=1)
    )


def head_loss(kind: str, logits: Tensor, targets: Targets) -> Tensor:
    """Return the loss of a head of *kind* (see :data:`wsipipe.models.heads.HEADS`), computed in fp32."""
    return (instance_loss if kind == "cisca" else mask_loss)(logits.float(), targets)
