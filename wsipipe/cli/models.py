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
    """List the shipped models and the kinds of other networks; `wsipipe models show NAME` prints the card of one.

    A name stands for the model in --model, wherever that is asked for. `wsipipe models export` copies one with other
    thresholds.
    """
    if ctx.invoked_subcommand is None:
        _show_list()


@models.command("list", cls=Command)
def list_() -> None:
    """List the shipped models, as `wsipipe models` does."""
    _show_list()


@models.command(cls=Command)
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
def encoders() -> None:
    """List the foundation models that are known by name: for `models import`, and --encoder of other commands."""
    from rich.console import Console
    from rich.table import Table

    from wsipipe.models.encoders import known

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("name", "network", "features", "M parameters", "licence", "weights at the hub"):
        table.add_column(title, overflow="fold", no_wrap=title in ("name", "network"))
    for name, one in known().items():
        network = f"ViT {one.depth} x {one.width} / {one.patch}" if one.layout == "vit" else one.title
        where = f"{one.hub}{' (licence to be accepted)' if one.gated else ''}"
        table.add_row(name, network, str(one.width), f"{one.parameters:g}", one.licence, where)
    Console(highlight=False, markup=False, width=max(120, Console().width)).print(table)


@models.command("import", cls=Command)
@click.argument("source", metavar="ENCODER")
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The new file.")
@click.option(
    "--grid", type=click.Choice(["16", "32", "64"]), default="32", show_default=True,
    help="Patches along a side of a 256 px tile, which is enlarged to as many.",
)  # fmt: skip
@click.option(
    "--blocks", type=click.Choice(["last", "shallow", "deep", "mixed"]), default="last", show_default=True,
    help="Whose tokens heads see: the last block's, or of four blocks of the first half, the last half, or all.",
)  # fmt: skip
@click.option(
    "--mpp", type=click.FloatRange(0.05, 5), default=0.5, show_default=True, help="Resolution it works at, µm/px."
)
def import_(source: str, output: Path, grid: str, blocks: str, mpp: float) -> None:
    """Make a backbone of a foundation model: a name of `models encoders`, NAME=FOLDER, or a folder with weights.

    Only plain vision transformers. `wsipipe fit --backbone FILE` then trains a head on it, with --adapt or --unfreeze
    more. Its licence is its makers'.

    \b
    Examples:
      wsipipe models import uni -o uni.safetensors
      wsipipe models import virchow2=weights/virchow2/ -o virchow2.safetensors --blocks mixed
      wsipipe fit my-set --backbone uni.safetensors --head decoder --adapt lora -o run/
    """
    from wsipipe.models.imported import import_encoder

    import_encoder(source, output, int(grid), blocks, mpp)
    click.echo(f"wrote {output} ({_size(output)}); use it with: wsipipe fit DATASET --backbone {output} -o run/")


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
    from wsipipe.plugins.opening import registered

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
    others = ", ".join(f"{name}:WEIGHTS" for name in sorted(registered()))
    click.echo(f"\nother networks, from a file or folder of yours: --model with {others}\n(docs/plugins.md)")


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
    """Return kind and size of the backbone, the size by its letter, where it is one of the usual ones."""
    from wsipipe.models.backbone_kinds import title_of

    return title_of(card.backbone)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
