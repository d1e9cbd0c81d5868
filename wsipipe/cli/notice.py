"""The notice at the first use of a model: research use only, and the licence of its weights."""

from __future__ import annotations

from pathlib import Path

import click


def show_notice(model: str) -> None:
    """Print the notice on stderr once per model and user."""
    from wsipipe.models.checkpoint import model_hash, read_card
    from wsipipe.models.zoo import resolve

    path = resolve(model)
    card = read_card(path)
    seen = Path(click.get_app_dir("wsipipe")) / "noticed" / model_hash(path)[:16]
    if seen.exists():
        return
    click.echo(
        f"wsipipe: for research use only, not for diagnosis. Model {card.name}: weights under {card.licence}. "
        "(This notice is shown once.)",
        err=True,
    )
    try:
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.touch()
    except OSError:
        return  # a read-only home: the notice comes again next time
