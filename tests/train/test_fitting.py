"""Fitting on a tiny backbone: it runs, resumes, and every batch follows from its step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch

from tests import tiny
from wsipipe.errors import DatasetError, SettingsError
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.cmd import CMDConfig
from wsipipe.settings import FitSettings, LoopSettings
from wsipipe.train.cached import feature_cache
from wsipipe.train.fitting import Fitting, Pool, Watch, batch_of, count_trainable, fit, new_segmenter, nuclei_in
from wsipipe.train.samples import colours_in, normalised, planned, type_weights


@pytest.fixture
def pool() -> Pool:
    labels = tiny.disc_labels(120, (30, 30, 12), (55, 30, 12), (80, 80, 14), (25, 90, 10))
    image = np.where(labels[..., None] > 0, (120, 80, 160), (235, 200, 225)).astype(np.uint8)
    small = Annotated("b", "b", image[:70, :90], np.minimum(labels[:70, :90], 2), 0.5)
    return [
        (DatasetSpec("one", weight=0.7), [Annotated("a", "a", image, labels, 0.5), small]),
        (DatasetSpec("two", weight=0.3), [Annotated("c", "c", image[::-1].copy(), labels[::-1].copy(), 0.4)]),
    ]


@pytest.fixture
def settings(tmp_path: Path) -> FitSettings:
    """Return settings that fit a tiny backbone with everything unfrozen."""
    path = tmp_path / "backbone.safetensors"
    network = tiny.backbone()
    network.open_gates()
    checkpoint.save(path, network, replace(tiny.card(), head=None))
    loop = LoopSettings(steps=4, warmup=1, checkpoint_every=2)
    return FitSettings(backbone=str(path), unfreeze=True, batch=2, crop=64, final_share=0, loop=loop)


def test_a_batch_is_a_function_of_seed_and_step(pool: Pool, settings: FitSettings) -> None:
    (x, targets), (again, _), (other, _) = (batch_of(step, pool, settings) for step in (3, 3, 2))
    assert torch.equal(x, again) and not torch.equal(x, other)
    assert not torch.equal(x, batch_of(3, pool, replace(settings, seed=1))[0])
    assert x.shape == (2, 3, 64, 64) and x.dtype == torch.float32 and x.min() >= -1 and x.max() <= 1
    assert x.is_contiguous(memory_format=torch.channels_last) and not torch.equal(x[0], x[1])
    assert targets.classes.shape == (2, 64, 64) and set(targets.classes.unique().tolist()) <= {-1, 0, 1, 2}
    assert targets.directions.shape == (2, 4, 64, 64) and targets.directions.dtype == torch.float32


def test_the_last_steps_see_whole_tiles_and_as_many_pixels(pool: Pool, settings: FitSettings) -> None:
    settings = replace(settings, crop=128, batch=8, final_share=0.25)
    assert [tuple(batch_of(step, pool, settings)[0].shape) for step in (2, 3)] == [(8, 3, 128, 128), (2, 3, 256, 256)]
    assert batch_of(3, pool, replace(settings, batch=1))[0].shape == (1, 3, 256, 256)


def test_pixels_outside_the_picture_are_unknown_to_the_loss(pool: Pool, settings: FitSettings) -> None:
    _, targets = batch_of(0, pool, replace(settings, crop=256))
    assert (targets.classes == -1).any() and not targets.directions[:, :, :2, :2].any()


def test_training_images_may_be_shown_in_their_common_colours(
    pool: Pool, settings: FitSettings, tmp_path: Path
) -> None:
    pool[1][1][0] = replace(pool[1][1][0], image=(pool[1][1][0].image * 0.8).astype(np.uint8))
    target = colours_in(pool, 0.5)
    assert target
    images = [a for _, images in normalised(pool, target, 0.5) for a in images]
    means = [np.mean(a.image, (0, 1)) for a in (images[0], images[2])]
    assert np.abs(means[0] - means[1]).max() < 3 < np.abs(means[0] - pool[0][1][0].image.mean((0, 1))).max()
    _, card = fit(pool, replace(settings, normalise=True), tmp_path)
    assert card.normalise and card.colours == colours_in(pool, 0.5)


@pytest.mark.parametrize("head", ["linear", "cisca"])
def test_a_fit_learns_and_gives_the_average_with_its_card(
    head: str, pool: Pool, settings: FitSettings, tmp_path: Path
) -> None:
    settings = replace(settings, head=head, name="mine", loop=LoopSettings(steps=8, warmup=1, lr=5e-3))
    losses: list[float] = []
    network, card = fit(pool, settings, tmp_path, lambda step, loss: losses.append(loss))
    assert len(losses) == 8 and np.mean(losses[-3:]) < losses[0]
    assert card.name == "mine" and card.head is not None and card.head.kind == head
    assert card.head.widths == network.backbone.feature_widths
    checkpoint.save(tmp_path / "m.safetensors", network, card)
    assert checkpoint.load(tmp_path / "m.safetensors")[1] == card


def test_a_model_of_grey_pictures_can_be_loaded(pool: Pool, settings: FitSettings, tmp_path: Path) -> None:
    """Its card has no colours to bring slides to."""
    grey: Pool = [
        (spec, [replace(a, image=a.image[..., :1].repeat(3, 2)) for a in images]) for spec, images in pool
    ]  # fmt: skip
    settings = replace(settings, head="linear", loop=LoopSettings(steps=1, warmup=1))
    network, card = fit(grey, settings, tmp_path / "run")
    checkpoint.save(tmp_path / "m.safetensors", network, card)
    assert checkpoint.load(tmp_path / "m.safetensors")[1].colours is None
    with pytest.raises(DatasetError, match="show no colours to bring slides to"):
        fit(grey, replace(settings, normalise=True), tmp_path / "none")


def test_a_resumed_fit_is_the_same_fit(pool: Pool, settings: FitSettings, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(step: int, loss: float) -> None:
        if step == 2:
            raise Interrupted

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, _ = fit(pool, settings, tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(pool, settings, tmp_path / "parts", stop)
    steps: list[int] = []
    resumed, _ = fit(pool, settings, tmp_path / "parts", lambda step, loss: steps.append(step))
    assert steps == [2, 3]
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_a_frozen_backbone_stays_as_it_was(pool: Pool, settings: FitSettings, tmp_path: Path) -> None:
    frozen = replace(settings, unfreeze=False, head="linear")
    network, _ = fit(pool, frozen, tmp_path)
    source, _ = checkpoint.load(Path(settings.backbone))
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])
    assert count_trainable(new_segmenter(frozen)[0]) == 2 * sum(tiny.FEATURES) + 2


def test_a_conditioned_backbone_is_refused_frozen_and_loses_its_condition_when_trained(
    pool: Pool, settings: FitSettings, tmp_path: Path
) -> None:
    source, config = tiny.backbone(condition=12), CMDConfig(tiny.WIDTHS, 12)
    checkpoint.save(tmp_path / "c.safetensors", source, ModelCard("c", config))
    settings = replace(settings, backbone=str(tmp_path / "c.safetensors"), head="linear")
    with pytest.raises(SettingsError, match="conditioned on an encoder: give it, --encoder"):
        fit(pool, replace(settings, unfreeze=False), tmp_path)
    network, card = new_segmenter(settings)
    assert card.backbone == CMDConfig(tiny.WIDTHS) == network.backbone.config
    assert torch.equal(network.backbone.stem.weight, source.stem.weight)
    assert not [name for name in network.state_dict() if ".feature." in name]


def test_a_segmenter_gives_its_backbone(settings: FitSettings, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "s.safetensors", tiny.segmenter(seed=5), tiny.card())
    network, card = new_segmenter(replace(settings, backbone=str(tmp_path / "s.safetensors"), head="light"))
    assert card.backbone.widths == tiny.WIDTHS
    for name, value in tiny.segmenter(seed=5).backbone.state_dict().items():
        assert torch.equal(value, network.backbone.state_dict()[name])


def test_a_model_may_give_its_head_too(settings: FitSettings, tmp_path: Path) -> None:
    source = tiny.segmenter("cisca", seed=5)
    checkpoint.save(tmp_path / "s.safetensors", source, tiny.card("cisca"))
    settings = replace(settings, backbone=str(tmp_path / "s.safetensors"), reuse_head=True)
    network, _ = new_segmenter(settings)
    for name, value in source.head.state_dict().items():
        assert torch.equal(value, network.head.state_dict()[name])
    with pytest.raises(SettingsError, match="has head cisca, these sets want head light; leave --reuse-head out"):
        new_segmenter(replace(settings, head="light"))
    typed, _ = new_segmenter(settings, ("a", "b"))
    for name, value in source.head.state_dict().items():  # as it was, with new channels at the end
        assert torch.equal(value, typed.head.state_dict()[name][: len(value)] if value.ndim else value)
    checkpoint.save(tmp_path / "t.safetensors", typed, replace(tiny.card("cisca"), head=typed.head.config))
    with pytest.raises(SettingsError, match="has head cisca of the types a, b, these sets want head cisca of the"):
        new_segmenter(replace(settings, backbone=str(tmp_path / "t.safetensors")), ("a", "c"))
    with pytest.raises(SettingsError, match="T has no head"):
        new_segmenter(FitSettings(reuse_head=True))


def test_random_weights_follow_the_seed_and_start_with_open_gates() -> None:
    a, b, c = (new_segmenter(FitSettings(head="linear", seed=seed))[0] for seed in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.backbone.stem.weight, c.backbone.stem.weight)
    assert all((block.modulation.bias.chunk(3)[2] == 0.5).all() for block in a.backbone.blocks())
    unseen = {n for n, p in a.named_parameters() if not p.requires_grad}
    assert unseen == {n for n, _ in a.named_parameters() if n.startswith("backbone.output.")}


def test_nuclei_are_counted(pool: Pool) -> None:
    assert nuclei_in(pool) == 4 + 2 + 4


HEADS_AND_MODES = [(head, cache) for head in ("linear", "light", "sota", "cisca") for cache in (0, 2)]


@pytest.mark.parametrize(("head", "cache"), HEADS_AND_MODES)
def test_a_frozen_backbone_gets_no_gradient_and_every_part_of_the_head_does(
    head: str, cache: int, pool: Pool, settings: FitSettings, tmp_path: Path
) -> None:
    settings = planned(replace(settings, unfreeze=False, head=head, cache_features=cache), pool)
    network, _ = new_segmenter(settings)
    fitting = Fitting(network, settings, None)
    batch: Any = batch_of(0, pool, settings)
    if cache:
        batch = feature_cache(tmp_path / "features", pool, settings, (), fitting.extract).batch(0)
    fitting.loss(batch).backward()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert [n for n, p in network.head.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert not network.backbone.training and network.head.training
    assert {n for n, p in network.named_parameters() if p.requires_grad} == {
        f"head.{n}" for n, _ in network.head.named_parameters()
    }


@pytest.mark.parametrize("cache", [0, 2])
def test_frozen_features_are_those_of_the_network(
    cache: int, pool: Pool, settings: FitSettings, tmp_path: Path
) -> None:
    settings = planned(replace(settings, unfreeze=False, head="light"), pool)
    network, _ = new_segmenter(settings)
    x, _ = batch_of(0, pool, settings)
    for ours, plain in zip(Fitting(network, settings, None).extract(x), network.backbone.features(x), strict=True):
        assert torch.allclose(ours, plain, atol=1e-4)


def test_cached_features_of_other_weights_in_the_same_file_are_not_taken(
    pool: Pool, settings: FitSettings, tmp_path: Path
) -> None:
    loop = replace(settings.loop, steps=1)
    settings = replace(settings, unfreeze=False, head="linear", cache_features=1, loop=loop)
    fit(pool, settings, tmp_path)
    old = np.load(tmp_path / "features" / "level0.npy")
    network = tiny.shake(tiny.backbone(seed=3))
    checkpoint.save(Path(settings.backbone), network, replace(tiny.card(), head=None))
    fit(pool, settings, tmp_path)
    assert not np.allclose(np.load(tmp_path / "features" / "level0.npy"), old)


def test_a_resumed_fit_on_cached_features_is_the_same_fit(pool: Pool, settings: FitSettings, tmp_path: Path) -> None:
    settings = replace(settings, unfreeze=False, head="light", cache_features=2)

    def stop(step: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, _ = fit(pool, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(pool, settings, tmp_path / "parts", stop)
    resumed, _ = fit(pool, settings, tmp_path / "parts")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    assert (tmp_path / "whole/log.csv").read_bytes() == (tmp_path / "parts/log.csv").read_bytes()


def test_features_of_a_backbone_that_changes_are_not_kept(pool: Pool, settings: FitSettings, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--cache-features needs a frozen backbone"):
        fit(pool, replace(settings, cache_features=1), tmp_path)


def test_the_backbone_may_learn_more_slowly(pool: Pool, settings: FitSettings, tmp_path: Path) -> None:
    settings = replace(settings, head="linear", backbone_lr=0.0)
    network, _ = fit(pool, settings, tmp_path)
    start, _ = new_segmenter(settings)
    for name, value in start.backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[name], value)
    assert not torch.equal(network.head.trunk.levels[0].weight, start.head.trunk.levels[0].weight)


def test_random_weights_may_stay_frozen() -> None:
    settings = FitSettings(head="linear", unfreeze=False)
    network, _ = new_segmenter(settings)
    assert settings.frozen and settings.crop_px == 256 and FitSettings().crop_px == 160 and not FitSettings().frozen
    assert not any(p.requires_grad for p in network.backbone.parameters())


@pytest.mark.parametrize("head", ["light", "cisca"])
def test_types_are_learned(head: str, pool: Pool, settings: FitSettings, tmp_path: Path) -> None:
    typed = [
        (spec, [replace(a, types=tuple("ab"[k % 2] for k in range(a.labels.max()))) for a in images])
        for spec, images in pool
    ]
    _, targets = batch_of(0, typed, settings, ("a", "b"))
    assert targets.types is not None and set(targets.types.unique().tolist()) == {0, 1, 2}
    assert (targets.classes[targets.types > 0] > 0).all()
    network, card = fit(typed, replace(settings, head=head), tmp_path)
    assert card.head is not None and card.head.types == ("a", "b") and set(card.classes) == {"a", "b"}
    assert network.head.map_names[-2:] == ("type:a", "type:b")
    checkpoint.save(tmp_path / "m.safetensors", network, card)
    assert checkpoint.load(tmp_path / "m.safetensors")[1] == card
    plain, card = fit(typed, replace(settings, head=head, types=False), tmp_path / "plain")
    assert (
        card.head is not None
        and card.head.types == ()
        and not set(network.head.map_names[-2:]) & set(plain.head.map_names)
    )


def test_what_watches_sees_the_average_now_and_then(pool: Pool, settings: FitSettings, tmp_path: Path) -> None:
    class Seen(Watch):
        steps: ClassVar[list[int]] = []

        def rewind(self, step: int) -> None:
            self.steps.append(-step)

        def __call__(self, step: int, network: Segmenter, card: ModelCard) -> None:
            assert not network.head.training
            self.steps.append(step)

    fit(pool, replace(settings, head="linear", validate_every=3), tmp_path, watch=Seen())
    assert Seen.steps == [0, 3, 4]


def test_types_alone_are_learned_for_a_model_that_stays_as_it_is(
    pool: Pool, settings: FitSettings, tmp_path: Path
) -> None:
    source, before = tiny.segmenter("cisca", seed=5), replace(tiny.card("cisca"), colours=colours_in(pool, 0.5))
    checkpoint.save(tmp_path / "s.safetensors", source, before)
    loop = LoopSettings(steps=30, warmup=1, lr=0.05, ema=0.5)
    settings = replace(settings, backbone=str(tmp_path / "s.safetensors"), types_only=True, unfreeze=None, loop=loop)
    typed: Pool = [
        (spec, [replace(a, types=tuple("aab"[k % 3] for k in range(a.labels.max()))) for a in images])
        for spec, images in pool
    ]
    losses: list[float] = []
    network, card = fit(typed, settings, tmp_path / "run", lambda step, loss: losses.append(loss))
    learned = safetensors.torch.load_file(tmp_path / "run" / "state.safetensors")["ema.levels.0.bias"]
    weights = type_weights(typed, ("a", "b"))  # b is rarer, and counted for more than it occurs
    own = network.head.types.levels[0].bias
    assert weights[1] > weights[0] and torch.allclose(own[-2:], learned[-2:] - weights.log())
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    for name, value in source.state_dict().items():
        assert torch.equal(
            value, network.state_dict()[name][: len(value)] if value.ndim else network.state_dict()[name]
        )
    assert card.head is not None and card.head.types == ("a", "b")
    assert (card.rules, card.colours, card.mpp) == (before.rules, before.colours, before.mpp)
    again, _ = fit(typed, settings, tmp_path / "run")  # resumed at its end
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in again.state_dict().items())
    with pytest.raises(SettingsError, match="no set tells types of cells"):
        fit(pool, settings, tmp_path / "none")
    with pytest.raises(SettingsError, match="leave --no-types out"):
        fit(typed, replace(settings, types=False), tmp_path / "none")
    with pytest.raises(SettingsError, match="leave --unfreeze out"):
        fit(typed, replace(settings, unfreeze=True), tmp_path / "none")
    with pytest.raises(SettingsError, match="T has no head"):
        fit(typed, replace(settings, backbone="T"), tmp_path / "none")
    with pytest.raises(SettingsError, match=r"works at 0\.5 µm/px, not 0\.25; give --working-mpp 0\.5"):
        fit(typed, replace(settings, working_mpp=0.25), tmp_path / "none")
