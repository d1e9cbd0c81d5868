"""The notice at the first use of a model: research use only, and the licence of its weights."""

from __future__ import annotations

from pathlib import Path

import click


def show_notice(model: str) -> None:
    """Print the notice on stderr once per model and user."""
    from wsipipe.plugins.opening import card_of, weights_digest

    card = card_of(model)
    seen = Path(click.get_app_dir("wsipipe")) / "noticed" / weights_digest(model)[:16]
    if seen.exists():
        return
    about = f"{card.name}: weights under {card.licence}" if card else f"{model}: weights under their own licence"
    click.echo(
        f"wsipipe: for research use only, not for diagnosis. Model {about}. (This notice is shown once.)",
        err=True,
    )
    try:
        seen.parent.mkdir(parents=True, exist_ok=True)
        seen.touch()
    except OSError:
        return  # a read-only home: the notice comes again next time
