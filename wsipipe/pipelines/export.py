"""The story of `wsipipe models export`: a fitted model made ready to ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsipipe.artifacts import check_writable
from wsipipe.errors import SettingsError
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import HALF, ModelCard
from wsipipe.runs import claimed


def export_model(
    source: Path,
    out: Path,
    name: str | None,
    licence: str | None,
    rules: Mapping[str, float | None],
    half: bool,
    normalise: bool | None = None,
) -> None:
    """Write the model at *source* to *out* under another name, licence or rules; what is None stays.

    Parameters
    ----------
    rules : mapping
        Fields of :class:`wsipipe.models.checkpoint.Rules`, as chosen on validation images.
    half : bool
        Store weights in 16 bits, half the size; they are computed with in fp32 all the same.
    normalise : bool, optional
        Bring slides to the colours of the training images from now on, or no longer.

    Raises
    ------
    ModelNotFound, NotAModel, OutputError
    SettingsError
        *out* is *source*, or the model does not know the colours of its training images.
    """
    if out.exists() and out.samefile(source):
        raise SettingsError(f"{out} is the model itself; choose another -o")
    with claimed(out):
        check_writable(out)
        network, card = checkpoint.load(source)
        card = _card(card, source, name, licence, rules, normalise)
        checkpoint.save(out, network, card, HALF if half else None)


def _card(
    card: ModelCard,
    source: Path,
    name: str | None,
    licence: str | None,
    rules: Mapping[str, float | None],
    normalise: bool | None,
) -> ModelCard:
    """Return the card of the model as it is shipped."""
    given: dict[str, Any] = {key: value for key, value in rules.items() if value is not None}
    if normalise and card.colours is None:
        raise SettingsError(f"--normalise: {source} does not say which colours it was trained on; fit the model again")
    return replace(
        card,
        name=name or card.name,
        licence=licence or card.licence,
        rules=replace(card.rules, **given),
        normalise=card.normalise if normalise is None else normalise,
    )
