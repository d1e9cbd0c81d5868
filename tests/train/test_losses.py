"""Losses are least where the answer is right, and blind where there is no annotation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.tiny import disc_batch, disc_labels, shown
from wsipipe.models.heads import kind_of, kinds
from wsipipe.train.fitting import targets_of
from wsipipe.train.losses import Targets, divergence, head_loss, instance_loss, mask_loss, tversky, type_loss


def ideal(kind: str, targets: Targets, sure: float = 12.0) -> Tensor:
    """Return logits that give the right answer."""
    if not kind_of(kind).instances:
        truth = (targets.classes > 0).float()
        return sure * torch.stack([1 - truth, truth], 1)
    classes = torch.nn.functional.one_hot(targets.classes.clamp(min=0), 3).permute(0, 3, 1, 2).float()
    centres = targets.centres[:, None].clamp(1e-5, 1 - 1e-5).logit()
    return torch.cat([sure * classes, targets.directions.clamp(-0.9999, 0.9999).atanh(), centres], 1)


@pytest.mark.parametrize("kind", kinds())
def test_the_right_answer_costs_nothing_and_a_wrong_one_does(kind: str) -> None:
    _, targets = disc_batch()
    best = ideal(kind, targets)
    assert best.shape[1] == (8 if kind_of(kind).instances else 2)
    assert head_loss(kind, best, targets) < 0.01
    assert head_loss(kind, best.flip(1), targets) > 2
    assert head_loss(kind, torch.zeros_like(best), targets) > 0.5


@pytest.mark.parametrize("kind", kinds())
def test_pixels_without_annotation_do_not_count(kind: str) -> None:
    torch.manual_seed(0)
    _, targets = disc_batch()
    classes, weight = targets.classes.clone(), targets.weight.clone()
    classes[:, :, 30:] = -1
    weight[:, :, 30:] = 0
    logits = torch.randn(2, 8 if kind_of(kind).instances else 2, 64, 64)
    other = torch.where(classes[:, None] < 0, torch.randn_like(logits) * 5, logits)
    masked = replace(targets, classes=classes, weight=weight)
    assert torch.equal(head_loss(kind, logits, masked), head_loss(kind, other, masked))
    logits.requires_grad_()
    head_loss(kind, logits, masked).backward()
    assert logits.grad is not None and not logits.grad[..., 30:].any() and logits.grad[..., :30].any()


@pytest.mark.parametrize("kind", kinds())
def test_a_batch_without_annotation_or_nuclei_has_a_finite_loss(kind: str) -> None:
    logits = torch.randn(1, 8 if kind_of(kind).instances else 2, 8, 8)
    for value in (-1, 0):
        nothing = torch.zeros(1, 8, 8)
        targets = Targets(torch.full((1, 8, 8), value), torch.zeros(1, 4, 8, 8), nothing, nothing)
        assert torch.isfinite(head_loss(kind, logits, targets))


def test_tversky_is_dice_at_one_half_and_weighs_errors_otherwise() -> None:
    p, truth, weight = torch.tensor([1.0, 1, 0, 0]), torch.tensor([1.0, 0, 1, 1]), torch.ones(4)
    assert tversky(p, truth, weight).item() == pytest.approx(1 - (1 + 1) / (1 + 1.5 + 1))
    assert tversky(p, truth, weight, alpha=0.3).item() == pytest.approx(1 - 2 / (1 + 0.3 + 0.7 * 2 + 1))
    assert tversky(truth, truth, weight).item() == 0


def test_the_centre_is_learned_from_whole_nuclei_only() -> None:
    """The depth inside a nucleus is unknown where the crop's edge cuts it."""
    labels = disc_labels(40, (3, 20, 8), (25, 20, 8))
    targets = targets_of([shown(labels)])
    logits = torch.randn(1, 8, 40, 40, requires_grad=True)
    head_loss("cisca", logits, targets).backward()
    assert logits.grad is not None
    reached = logits.grad[0, 3:].abs().amax(0).numpy() > 0
    assert not reached[labels == 1].any() and reached[labels == 2].all() and reached[labels == 0].all()


def test_divergence_is_zero_at_the_truth_and_grows_away_from_it() -> None:
    truth = torch.linspace(0.05, 0.95, 7)
    assert divergence(truth.logit(), truth).abs().max() < 1e-6
    assert (divergence(truth.logit() + 1, truth) > 0.01).all() and (divergence(truth.logit() - 1, truth) > 0.01).all()


def test_half_precision_logits_are_judged_in_fp32() -> None:
    _, targets = disc_batch()
    logits = torch.randn(2, 8, 64, 64).bfloat16()
    loss = head_loss("cisca", logits, targets)
    assert loss.dtype == torch.float32 and torch.equal(loss, instance_loss(logits.float(), targets))
    assert torch.equal(head_loss("linear", logits[:, :2], targets), mask_loss(logits[:, :2].float(), targets))


def typed_targets() -> tuple[Targets, Tensor]:
    """Return targets whose nuclei are of two types, some unknown, and weights."""
    _, targets = disc_batch()
    side = torch.arange(64).expand(2, 64, 64)
    types = torch.where(targets.classes > 0, (side > 20).long() + 1, 0)
    types[:, :, 50:] = 0
    return Targets(targets.classes, targets.directions, targets.centres, targets.weight, types), torch.tensor(
        [0.6, 1.4]
    )


@pytest.mark.parametrize("kind", kinds())
def test_right_types_cost_nothing_and_wrong_ones_do(kind: str) -> None:
    targets, weights = typed_targets()
    assert targets.types is not None
    right = 12 * torch.nn.functional.one_hot(targets.types, 3).permute(0, 3, 1, 2).float()
    if kind_of(kind).instances:
        best = torch.cat((ideal(kind, targets), right), 1)
        wrong = torch.cat((ideal(kind, targets), right[:, [0, 2, 1]]), 1)
    else:
        nucleus = (targets.classes > 0)[:, None]
        unknown = nucleus & (targets.types == 0)[:, None]
        best = torch.where(unknown, torch.tensor([0.0, 12, 12])[None, :, None, None], right)
        wrong = best[:, [0, 2, 1]]
    assert head_loss(kind, best, targets, weights) < 0.01
    assert head_loss(kind, wrong, targets, weights) > 5


@pytest.mark.parametrize("kind", kinds())
def test_types_are_learned_on_nuclei_of_known_type_alone(kind: str) -> None:
    torch.manual_seed(0)
    targets, weights = typed_targets()
    assert targets.types is not None
    logits = torch.randn(2, (8 if kind_of(kind).instances else 0) + 3, 64, 64, requires_grad=True)
    untyped = Targets(targets.classes, targets.directions, targets.centres, targets.weight)
    (head_loss(kind, logits, targets, weights) - head_loss(kind, logits, untyped, weights)).backward()
    assert logits.grad is not None
    size = logits.grad.abs().amax(1)
    assert size[targets.types > 0].min() > 1e-6 and size[targets.types == 0].max() < 1e-7


def test_rare_types_weigh_more() -> None:
    targets, _ = typed_targets()
    assert targets.types is not None
    logits = torch.zeros(2, 2, 64, 64)
    logits[:, 0] = 3  # everything is the first type
    even, rare = (type_loss(logits, targets.types, torch.tensor(w)) for w in ([1.0, 1.0], [0.5, 1.5]))
    assert rare > even
    assert type_loss(logits, torch.zeros(2, 64, 64, dtype=torch.long), torch.ones(2)) == 0


def test_of_merged_nuclei_interior_and_boundary_are_right_alike_and_no_centre_is_asked_for() -> None:
    targets = targets_of([shown(disc_labels(40, (20, 20, 8)), merged=True)])
    inside = targets.classes[0] > 0
    assert (targets.classes[0][inside] == 3).all()
    losses = []
    for nucleus in (1, 2):
        logits = torch.zeros(1, 8, 40, 40)
        logits[0, 0], logits[0, nucleus] = 12.0 * ~inside, 12.0 * inside
        logits[0, 7] = -12.0  # right outside; what is said inside does not matter
        losses.append(head_loss("cisca", logits, targets).item())
    assert losses[0] == pytest.approx(losses[1], abs=0.01) and max(losses) < 0.05
    wrong = torch.zeros(1, 8, 40, 40, requires_grad=True)
    head_loss("cisca", wrong, targets).backward()
    assert wrong.grad is not None and wrong.grad[0, :3, inside].any() and not wrong.grad[0, 3:, inside].any()
