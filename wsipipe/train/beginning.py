"""The network that is fitted, before the first step: its size, its head, and the weights that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from wsipipe.errors import SettingsError
from wsipipe.formats.colours import class_colours
from wsipipe.models import adapters, backbone_kinds, checkpoint
from wsipipe.models.backbone import Backbone
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.conditioned import EncoderConfig, TileEncoder, WithEncoder, bare
from wsipipe.models.conditioning import check_encoder, open_encoder, token_of
from wsipipe.models.heads import TYPED, Head, HeadConfig
from wsipipe.models.vit import ViT
from wsipipe.models.vit_backbone import GRIDS, config_of
from wsipipe.models.zoo import resolve
from wsipipe.settings import RANDOM, FitSettings


def new_segmenter(settings: FitSettings, types: Sequence[str] = ()) -> tuple[Segmenter, ModelCard]:
    """Return the network to fit and its card; a backbone from random weights starts with open gates.

    A conditioned backbone that is trained further is trained without its condition, and has none from then on.
    """
    torch.manual_seed(settings.seed)
    known = None if settings.backbone in RANDOM else checkpoint.read_card(resolve(settings.backbone))
    config = known.backbone if known else backbone_kinds.random(settings.backbone)
    inside = known.encoder if known and settings.frozen else None
    given: TileEncoder | None = None
    if settings.encoder and not (known and known.condition and settings.frozen):
        raise SettingsError(
            "--encoder is for a backbone that was pretrained with one and stays frozen; "
            f"--backbone {settings.backbone} is not, or is trained further: leave --encoder out"
        )
    if not settings.frozen:
        config = adapters.config_for(backbone_kinds.without_condition(config), settings.adapt)
    elif known and known.condition:
        given = _encoder_for(known, settings)
        inside = given.config
    kind = TYPED if settings.types_only else settings.head
    space = known.space if known else None
    head = HeadConfig(kind, config.feature_widths, tuple(types), config.scale * (space.scale if space else 1))
    adapters.check(settings, known is not None)
    if settings.starts_from_head and (known is None or not _goes_on(known.head, head)):
        raise SettingsError(_no_such_head(settings, head, known.head if known else None))
    colours = class_colours(dict.fromkeys(types))
    card = ModelCard(settings.name, config, head, settings.working_mpp, licence=settings.licence, classes=colours)
    card = replace(card, space=space, encoder=inside)
    if settings.types_only and known:
        _check_types_only(settings, known, types)
        card = replace(known, name=settings.name, head=head, licence=settings.licence, classes=colours)
    network = cast(Segmenter, checkpoint.build(card))
    if known is None:
        network.backbone.open_gates()
    else:
        _take_weights(network, settings, given)
    network.backbone.requires_grad_(not settings.frozen)
    if settings.adapt != "none":
        adapters.adapt(network.backbone, settings.adapt, settings.rank)
    network.backbone.output.requires_grad_(False)  # the reconstruction's layers see no loss here
    return network, card


def _goes_on(found: HeadConfig | None, wanted: HeadConfig) -> bool:
    """Return whether a head can start as another one is: of the same types, or a cisca head that gets its first."""
    if found is None:
        return False
    found, wanted = (replace(h, kind="cisca", types=()) if h.kind == TYPED else h for h in (found, wanted))
    first = found.kind == "cisca" and not found.types
    return found == (replace(wanted, types=()) if first else wanted)


def _with_types(found: Head, wanted: Head) -> dict[str, Tensor]:
    """Return the weights of *found* for *wanted*, whose outputs for types may be new."""
    fresh, state = wanted.state_dict(), found.state_dict()
    kept = {name: new for name, new in fresh.items() if not name.startswith("types.")}
    return fresh | {
        name: torch.cat((state[name], new[len(state[name]) :])) if new.ndim else state[name]
        for name, new in kept.items()
    }


def _encoder_for(known: ModelCard, settings: FitSettings) -> TileEncoder:
    """Return the encoder that the backbone of *known* was pretrained with.

    Raises
    ------
    SettingsError
    """
    encoder = open_encoder(settings.encoder, torch.device("cpu"), token_of(known)) if settings.encoder else None
    check_encoder(known, encoder)
    assert encoder is not None
    vit = encoder.network
    if not isinstance(vit, ViT):
        raise SettingsError(
            f"--encoder {settings.encoder} is built by timm, and cannot go into a model file; expected the weights of "
            "a plain vision transformer on disk: NAME=FOLDER, or a folder"
        )
    mean, std = (tuple(float(v) for v in values.flatten()) for values in (encoder.mean, encoder.std))
    config = config_of(vit, grid=GRIDS[0], taken=(len(vit.blocks) - 1,), mean=mean, std=std)
    return TileEncoder(EncoderConfig(encoder.name, config, encoder.side, encoder.token), vit)


def _take_weights(network: Segmenter, settings: FitSettings, given: TileEncoder | None) -> None:
    """Give *network* the weights of the backbone that *settings* name, and of its head where that is asked for.

    A backbone with its encoder inside gets that *given*, or that of the model it comes from.
    """
    source, _ = checkpoint.load(resolve(settings.backbone))
    backbone = network.backbone
    weights = bare(source.backbone if isinstance(source, Segmenter) else cast(Backbone, source)).state_dict()
    wanted = bare(backbone).state_dict()
    added = {} if settings.adapt == "none" else wanted  # an adapter's own weights are new
    bare(backbone).load_state_dict({name: weights[name] if name in weights else added[name] for name in wanted})
    if isinstance(backbone, WithEncoder):
        of = given or cast(WithEncoder, cast(Segmenter, source).backbone).encoder
        backbone.encoder.load_state_dict(of.state_dict())
    if settings.starts_from_head:
        network.head.load_state_dict(_with_types(cast(Segmenter, source).head, network.head))


def _no_such_head(settings: FitSettings, wanted: HeadConfig, found: HeadConfig | None) -> str:
    def told(head: HeadConfig) -> str:
        return f"head {head.kind}" + (f" of the types {', '.join(head.types)}" if head.types else "")

    has = told(found) if found else "no head"
    option = "--types-only" if settings.types_only else "--reuse-head"
    return f"{option}: {settings.backbone} has {has}, these sets want {told(wanted)}; leave {option} out"


def _check_types_only(settings: FitSettings, known: ModelCard, types: Sequence[str]) -> None:
    if not settings.types:
        raise SettingsError("--types-only learns types and nothing else; leave --no-types out")
    if not types:
        raise SettingsError("--types-only: no set tells types of cells; expected types/NAME.csv beside its images")
    if settings.unfreeze:
        raise SettingsError("--types-only leaves the network as it is; leave --unfreeze out")
    if known.mpp != settings.working_mpp:
        raise SettingsError(
            f"--types-only: {settings.backbone} works at {known.mpp} µm/px, not {settings.working_mpp}; "
            f"give --working-mpp {known.mpp}"
        )
