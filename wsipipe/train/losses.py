"""Losses of the heads: cross-entropy and Dice, and for cisca Tversky and absolute error of the directional maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wsipipe.models.heads import kind_of
from wsipipe.train.targets import NUCLEUS


@dataclass(frozen=True)
class Targets:
    """What a batch should predict.

    Attributes
    ----------
    classes : int64 (B, H, W)
        0 background, 1 interior, 2 boundary, 3 nucleus (interior or boundary, not told); -1 where there is no
        annotation.
    directions : float32 (B, 4, H, W)
    centres : float32 (B, H, W)
        Depth inside the nucleus, 0 to 1.
    weight : float32 (B, H, W)
        How much a pixel counts for directions and centres; see :func:`wsipipe.train.targets.whole_weight`.
    types : int64 (B, H, W), optional
        Number of the pixel's type from 1 on, 0 where it has none or it is not known.
    """

    classes: Tensor
    directions: Tensor
    centres: Tensor
    weight: Tensor
    types: Tensor | None = None

    def to(self, device: torch.device) -> Targets:
        """Return the same on *device*."""
        return Targets(*(None if t is None else t.to(device) for t in vars(self).values()))  # type: ignore[arg-type]


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


def divergence(logits: Tensor, truth: Tensor) -> Tensor:
    """Return, per pixel, the binary cross-entropy of *logits* above its least possible value for soft *truth*."""
    entropy = -(torch.xlogy(truth, truth) + torch.xlogy(1 - truth, 1 - truth))
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none") - entropy


def instance_loss(logits: Tensor, targets: Targets) -> Tensor:
    """Return the cisca loss of logits (B, 8, H, W): three classes, four directions, the centre.

    Cross-entropy with the rare boundary class weighted up; Dice of the nuclei; Tversky (favouring recall) of the
    boundary; absolute error of the directions (a third as heavy outside nuclei, where they are 0); divergence of the
    centre map. Where a set says only that a pixel is a nucleus, interior and boundary are right alike.
    """
    known, told = (targets.classes >= 0).float(), (targets.classes != NUCLEUS).float()
    p = logits[:, :3].softmax(1)
    nucleus = (targets.classes > 0).float()
    dice = tversky(1 - p[:, 0], nucleus, known)
    edge = tversky(p[:, 2], (targets.classes == 2).float(), known * told, alpha=0.4)
    inside = targets.weight * (nucleus + (1 - nucleus) / 3)
    error = (logits[:, 3:7].tanh() - targets.directions).abs().mean(1)
    centre = divergence(logits[:, 7], targets.centres)
    return (
        (class_entropy(logits[:, :3], targets.classes) * known).sum() / known.sum().clamp(min=1)
        + dice
        + 0.25 * edge
        + (error * inside).sum() / inside.sum().clamp(min=1)
        + 2 * (centre * targets.weight).sum() / targets.weight.sum().clamp(min=1)
    )


def class_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """Return, per pixel, the cross-entropy of logits (B, 3, H, W), the rare boundary weighted up; 0 where unknown."""
    weight = logits.new_tensor([1.0, 1.0, 1.5])
    exact = F.cross_entropy(logits, classes.where(classes != NUCLEUS, -1), weight, ignore_index=-1, reduction="none")
    either = logits.logsumexp(1) - logits[:, 1:].logsumexp(1)
    return torch.where(classes == NUCLEUS, either, exact)


def type_loss(logits: Tensor, types: Tensor, weights: Tensor) -> Tensor:
    """Return cross-entropy + Dice of the types, on nucleus pixels of known type alone.

    Parameters
    ----------
    logits : Tensor (B, T or T + 1, H, W)
        Of the types, perhaps after a channel for "none", which is never right on a nucleus.
    types : int64 (B, H, W)
        1..T, 0 where nothing is known.
    weights : Tensor (T,)
        How much a pixel of each type counts.
    """
    known, first = types > 0, logits.shape[1] - len(weights)
    if not known.any():
        return logits.sum() * 0
    right = (types - 1 + first).clamp(min=0)
    weight = weights[(types - 1).clamp(min=0)] * known
    entropy = (F.cross_entropy(logits, right, reduction="none") * weight).sum() / weight.sum()
    p, there = logits.softmax(1)[:, first:], known.float()
    shown = torch.unique(types[known]).tolist()
    dice = torch.stack([tversky(p[:, k - 1], (types == k).float(), there) * weights[k - 1] for k in shown])
    return entropy + dice.sum() / weights[[k - 1 for k in shown]].sum()


def head_loss(kind: str, logits: Tensor, targets: Targets, type_weights: Tensor | None = None) -> Tensor:
    """Return the loss of a head of *kind* (see :data:`wsipipe.settings.HEADS`), computed in fp32.

    Parameters
    ----------
    type_weights : Tensor (T,), optional
        Of a head with T cell types: how much a pixel of each counts.
    """
    logits = logits.float()
    if kind_of(kind).instances:
        loss, of_types = (
            instance_loss(logits, targets),
            logits[:, -1 - (0 if type_weights is None else len(type_weights)) :],
        )
    elif type_weights is None:
        loss, of_types = mask_loss(logits, targets), logits[:, :0]
    else:  # the same probabilities: of the background, and of a nucleus of any type
        of_types = logits[:, 1:]
        loss = mask_loss(torch.stack((logits[:, 0], of_types.logsumexp(1)), 1), targets)
    if type_weights is None or targets.types is None:
        return loss
    return loss + type_loss(of_types, targets.types, type_weights)
