"""``wsipipe models``: the models that are at hand, and what each says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wsipipe.cli.options import Command, options_for
from wsipipe.settings import CellSettings

if TYPE_CHECKING:
    from wsipipe.models.checkpoint import ModelCard

Rows = list[tuple[str, str]]


@click.group(invoke_without_command=True)
@click.pass_context
def models(ctx: click.Context) -> None:
    """List the shipped models; `wsipipe models show NAME` prints the card of one.

    A name stands for the model in --model, wherever that is asked for. `wsipipe models export` copies one with other
    thresholds.
    """
    if ctx.invoked_subcommand is None:
        _show_list()


@models.command("list")
def list_() -> None:
    """List the shipped models, as `wsipipe models` does."""
    _show_list()


@models.command()
@click.argument("name")
def show(name: str) -> None:
    """Print what the model NAME (or a .safetensors file) says of itself, and its model card."""
    from wsipipe.models.checkpoint import model_hash, read_card
    from wsipipe.models.zoo import card_text, resolve

    path = resolve(name)
    rows = [("file", str(path)), ("size", _size(path)), ("SHA-256", model_hash(path)), *_facts(read_card(path))]
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        click.echo(f"{key:<{width}}  {value}")
    if text := card_text(name):
        click.echo(f"\n{text.rstrip()}")


@models.command(cls=Command)
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The new file.")
@click.option("--name", default=None, help="Name of the model in its card and in results.")
@click.option("--licence", default=None, help="Licence of the weights.")
@click.option(
    "--normalise/--no-normalise",
    default=None,
    help="Bring slides to the colours of the training images from now on, or no longer; default: as the model does.",
)
@click.option("--half", is_flag=True, help="Store the weights in 16 bits: half the size.")
@click.option("--max-diameter-um", type=click.FloatRange(2, 200), default=None, help="No nucleus is larger.")
@click.option("--growth-um", type=click.FloatRange(0, 50), default=None, help="How far a core grows.")
@options_for(CellSettings, exclude=("expand_um",))
def export(
    model: str,
    output: Path,
    name: str | None,
    licence: str | None,
    normalise: bool | None,
    half: bool,
    **rules: float | None,
) -> None:
    """Copy MODEL with other thresholds, name or licence in its card, which `segment` then takes as its defaults.

    \b
    Example:
      wsipipe models export run/model.safetensors -o mine.safetensors --threshold 0.45 --min-area-um2 8 --half
    """
    from wsipipe.models.zoo import resolve
    from wsipipe.pipelines.export import export_model

    export_model(resolve(model), output, name, licence, rules, half, normalise)
    click.echo(
        f"wrote {output} ({_size(output)}); use it with: wsipipe segment SLIDE --model {output} -o cells.geojson"
    )


def _show_list() -> None:
    from rich.console import Console
    from rich.table import Table

    from wsipipe.models.checkpoint import read_card
    from wsipipe.models.zoo import DEFAULT, resolve, shipped

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("name", "head", "µm/px", "backbone", "size", "licence"):
        table.add_column(title, overflow="fold", no_wrap=title != "licence")
    for name in shipped():
        path = resolve(name)
        card = read_card(path)
        title = f"{name} (default)" if name == DEFAULT else name
        table.add_row(title, _head(card), f"{card.mpp:g}", _backbone(card), _size(path), card.licence)
    if table.rows:
        Console(highlight=False, markup=False).print(table)
    else:
        click.echo("no model is shipped with this copy of wsipipe; make one with `wsipipe fit`")


def _facts(card: ModelCard) -> Rows:
    """Return name and value of everything in the header."""
    rows = [
        ("name", card.name),
        ("kind", card.kind),
        ("backbone", _backbone(card)),
        ("head", _head(card)),
        ("resolution", f"{card.mpp:g} µm/px"),
        ("licence", card.licence),
    ]
    if card.head:
        rows.append(("types", ", ".join(card.head.types) or "none"))
        rows += [(key.replace("_", " "), f"{value:g}") for key, value in vars(card.rules).items()]
    if card.colours:
        rows.append(("colours (Lab)", " ".join(f"{v:g}" for v in (*card.colours.mean, *card.colours.spread))))
        rows.append(("normalises slides", "yes" if card.normalise else "no"))
    return rows + [(f"training: {key}", _plain(value)) for key, value in card.training.items()]


def _head(card: ModelCard) -> str:
    return card.head.kind if card.head else "none"


def _backbone(card: ModelCard) -> str:
    """Return the size of the backbone by its letter, where it is one of the usual ones."""
    from wsipipe.models.cmd import SIZES

    config = card.backbone
    letter = next((k for k, size in SIZES.items() if size(config.condition) == config), f"of width {config.widths[0]}")
    return f"CMD-{letter}" if len(letter) == 1 else f"CMD {letter}"


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
