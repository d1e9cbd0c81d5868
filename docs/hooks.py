"""Pages that mkdocs makes while it builds: the reference of commands, settings and Python, and the model cards.

They come from what the program itself shows (options, settings classes, ``wsipipe models show``), so that they cannot
go stale, and nothing of them is committed. :func:`pages` makes them without mkdocs; :func:`on_files` is mkdocs' hook.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from wsipipe import errors, settings  # noqa: E402
from wsipipe.cli.main import COMMANDS, LazyGroup, cli, main  # noqa: E402
from wsipipe.cli.options import SECTIONS, SettingOption, _heading, _plain, _type  # noqa: E402
from wsipipe.errors import WsipipeError  # noqa: E402

TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", tuple: "[x0, y0, x1, y1]"}
SETTINGS = [c for c in vars(settings).values() if inspect.isclass(c) and is_dataclass(c)]
CLASSES = {_heading(cls): cls for cls in [*SETTINGS, *SECTIONS.values()]}
SECTION = {cls: name for name, cls in SECTIONS.items()}
PYTHON = {
    "Segmenting": ["wsipipe.segmentation.run.segment", "wsipipe.segmentation.job.SegmentJob"],
    "Stage by stage": [
        "wsipipe.raster.slide.open_slide_raster", "wsipipe.raster.slide.SlideRaster", "wsipipe.geometry.Grid",
        "wsipipe.tissue.regions.find_tissue", "wsipipe.tissue.regions.Tissue",
        "wsipipe.quality.map.quality_map", "wsipipe.raster.tiling.TileGrid",
        "wsipipe.models.zoo.resolve", "wsipipe.infer.predict.Predictor", "wsipipe.infer.blend.blend",
        "wsipipe.segmentation.prepare.cell_rules", "wsipipe.cells.instances.find_cells", "wsipipe.cells.polygons.trace",
    ],
    "Commands as functions": [
        "wsipipe.segmentation.run.run_segment", "wsipipe.segmentation.batch.run_batch",
        "wsipipe.segmentation.batch.BatchJob",
        *(f"{module}.{name}" for module, names in {
            "wsipipe.segmentation.measuring": ("run_measure", "MeasureJob"),
            "wsipipe.pipelines.convert": ("run_convert", "ConvertJob"),
            "wsipipe.pipelines.classify": ("run_classify", "ClassifyJob"),
            "wsipipe.pipelines.score": ("run_score", "ScoreJob"),
            "wsipipe.pipelines.summarise": ("run_summarise", "SummariseJob"),
            "wsipipe.pipelines.tma": ("run_tma", "TmaJob"),
            "wsipipe.pipelines.quality": ("run_quality", "QualityJob"),
            "wsipipe.pipelines.report": ("run_report", "ReportJob"),
            "wsipipe.pipelines.features": ("run_features", "FeaturesJob"),
            "wsipipe.pipelines.corpus": ("run_build_corpus", "CorpusJob"),
            "wsipipe.pipelines.pretrain": ("run_pretrain", "PretrainJob"),
            "wsipipe.pipelines.fit": ("run_fit", "FitJob"),
            "wsipipe.pipelines.evaluate": ("run_evaluate", "EvaluateJob"),
            "wsipipe.pipelines.visualize": ("run_visualize", "VisualizeJob"),
        }.items() for name in names),
    ],
    "In a notebook": ["wsipipe.view.notebook.show.show"],
    "Slides": [
        "wsipipe.slide.opening.open_slide", "wsipipe.slide.protocol.Slide", "wsipipe.slide.protocol.SlideInfo",
        "wsipipe.slide.overview.thumbnail", "wsipipe.slide.sampling.fingerprint",
    ],
    "Cells": [
        "wsipipe.formats.parquet.read_cells", "wsipipe.formats.parquet.metadata",
        "wsipipe.formats.geojson.write_geojson",
    ],
    "The tile store": ["wsipipe.store.read.open_store", "wsipipe.store.read.TileStore"],
    "A corpus of patches": ["wsipipe.corpus.read.open_corpus", "wsipipe.corpus.read.Corpus"],
    "Annotated images": [
        "wsipipe.labels.reading.read_set", "wsipipe.labels.annotated.DatasetSpec",
        "wsipipe.labels.annotated.Annotated",
    ],
    "Scores": ["wsipipe.evaluate.metrics.cells.count", "wsipipe.evaluate.metrics.cells.pool", "wsipipe.evaluate.metrics.cells.summarise"],
    "Reports": ["wsipipe.report.page.write_report", "wsipipe.report.facts.Facts"],
}  # fmt: skip
"""Names on the page of the Python interface, by heading."""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to what mkdocs builds."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Return the generated pages, path in the site → Markdown."""
    return {
        "reference/cli.md": cli_page(),
        "reference/settings.md": settings_page(),
        "reference/python.md": python_page(),
        "models.md": models_page(),
    }


def cli_page() -> str:
    """Return the reference of all commands."""
    head = [
        "# Commands",
        "Made from the program itself: the same texts as `wsipipe COMMAND --help`. "
        "Options with a default under a heading that names a section, as in `[cells]`, may also stand in a file for "
        "`--config`: see [Settings](settings.md).",
        _table(
            ("command", "what it does"),
            [(f"[`wsipipe {name}`](#wsipipe-{name})", entry.summary) for name, entry in COMMANDS.items()],
        ),
    ]
    body = [_command(path, command) for path, command in commands()]
    return "\n\n".join([*head, *body, "## wsipipe", _described(cli.help or ""), *_options(cli)]) + "\n"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield name and command of every command and subcommand, in the order of help."""
    group = LazyGroup("wsipipe")
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", command.commands[below]) for below in command.commands)


def _command(path: str, command: click.Command) -> str:
    """Return the section of one command."""
    with click.Context(command, info_name=f"wsipipe {path}") as context:
        usage = " ".join(["wsipipe", path, *command.collect_usage_pieces(context)])
    level = "##" if " " not in path else "###"
    parts = [f"{level} wsipipe {path}", f"```text\n{usage}\n```", _described(command.help or ""), *_options(command)]
    return "\n\n".join(parts)


def _described(text: str) -> str:
    r"""Return the help text of a command as Markdown; blocks marked by ``\b`` stay as they are laid out."""
    parts = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if "\b" not in paragraph:
            parts.append(_escaped(" ".join(paragraph.split())))
            continue
        lines = [line for line in paragraph.replace("\b", "").splitlines() if line.strip()]
        if lines and lines[0].rstrip().endswith(":") and not lines[0].startswith(" "):
            parts.append(f"**{_escaped(lines.pop(0).strip())}**")
        block = inspect.cleandoc("\n".join(["", *lines]))
        parts.append(f"```text\n{block}\n```")
    return "\n\n".join(parts)


def _options(command: click.Command) -> Iterator[str]:
    """Yield one table of options per heading, the command's own first."""
    groups: dict[str, list[Sequence[str]]] = {"": []}
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            heading = param.heading if isinstance(param, SettingOption) else ""
            groups.setdefault(heading, []).append(_setting_row(param) if heading else _plain_row(param))
    for heading, rows in groups.items():
        if rows:
            name = SECTION.get(CLASSES.get(heading, object))
            section = f" · [`[{name}]`](settings.md#{name})" if name else ""
            yield f"**{heading or 'Options'}**{section}"
            yield _table(("option", "default", "range or unit", "what it is"), rows)


def _setting_row(param: SettingOption) -> Sequence[str]:
    """Return the row of an option that is made of a settings field."""
    cls = CLASSES[param.heading]
    field = next(f for f in dataclasses.fields(cls) if f.name == param.name)
    return _names(param), _default(field), _range(field), _escaped(field.metadata["help"])


def _plain_row(param: click.Option) -> Sequence[str]:
    """Return the row of an option that the command has of its own."""
    choices = _choices(param.type.choices) if isinstance(param.type, click.Choice) else ""
    if isinstance(param.type, click.FloatRange | click.IntRange):
        choices = f"{_plain(param.type.min)} to {_plain(param.type.max)}"
    default = f"`{param.default}`" if param.show_default and param.default not in (None, "") else ""
    told = "required" if param.required else default
    return _names(param), told, choices, _escaped(param.help or "") + (" May be repeated." if param.multiple else "")


def _names(param: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in param.opts)
    if param.is_flag or isinstance(param.type, click.Choice):
        return names
    return f"{names} `{param.make_metavar(click.Context(click.Command('')))}`"


def settings_page() -> str:
    """Return the reference of every setting, by section of ``--config``."""
    taken: dict[str, list[str]] = {name: [] for name in SECTIONS}
    for path, command in commands():
        for heading in dict.fromkeys(p.heading for p in command.params if isinstance(p, SettingOption)):
            if name := SECTION.get(CLASSES[heading]):
                taken[name].append(f"[{path}](cli.md#wsipipe-{path.replace(' ', '-')})")
    parts = [
        "# Settings",
        "Every setting has one home: a field of a frozen dataclass, from which the options, the keys of a `--config` "
        "file and this page are made. A command line wins over the file, the file over the defaults. Only settings "
        "that determine the result belong to its fingerprint; the others (blocks, workers, devices) never change a byte.",
        '```toml title="run.toml"\n[slide]\nmpp = 0.25\n\n[cells]\nmin_area_um2 = 12\n```',
    ]
    for name, cls in SECTIONS.items():
        rows = [
            (f"`{f.name}`", TYPES[_type(cls, f.name)], _default(f), _range(f),
             "yes" if f.metadata["result"] else "no", _escaped(f.metadata["help"]))
            for f in dataclasses.fields(cls) if "help" in f.metadata
        ]  # fmt: skip
        parts += [f"## [{name}] {{: #{name} }}", f"{' '.join((cls.__doc__ or '').split())} "
                  f"In Python: `{cls.__module__}.{cls.__name__}`."]  # fmt: skip
        parts += [f"Taken by {', '.join(taken[name])}."] if taken[name] else []
        parts.append(_table(("key", "type", "default", "range or unit", "determines the result", "what it is"), rows))
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    """Return the reference of the Python interface, which mkdocstrings fills in from the docstrings."""
    parts = [
        "# Python",
        "`import wsipipe` is instant and offers `wsipipe.segment`, `wsipipe.show`, `wsipipe.open_slide`, the settings of a run and "
        "`wsipipe.WsipipeError`; the rest is imported from where it stands below. Settings classes: "
        "[Settings](settings.md). `examples/stage_by_stage.py` goes through the stages of a run by hand.",
    ]
    for heading, names in PYTHON.items():
        parts += [f"## {heading}", *(f"::: {name}" for name in names)]
    rows = [
        (f"`{name}`", " / ".join(f"`{base.__name__}`" for base in cls.__bases__), str(cls.exit_code),
         (cls.__doc__ or "").splitlines()[0])
        for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, WsipipeError)
    ]  # fmt: skip
    told = "All in `wsipipe.errors`. What to do about each message: [Troubleshooting](../troubleshooting.md)."
    return "\n\n".join([*parts, "## Errors", told, _table(("error", "is a", "exit code", "when"), rows)]) + "\n"


def models_page() -> str:
    """Return the cards of the shipped models, as ``wsipipe models show`` prints them."""
    from wsipipe.models.zoo import DEFAULT, resolve, shipped

    parts = [
        "# Model cards",
        "What `wsipipe models show NAME` prints of each shipped model: the facts in the file's header, then the card "
        "written for it. A model of your own ([tutorial](tutorials/train.md)) has the same header.",
    ]
    for name in shipped():
        facts, _, card = shown(name).partition("\n\n")
        rows = [re.split(r"\s{2,}", line, maxsplit=1) for line in facts.splitlines()]
        rows = [(key, Path(value).name if key == "file" else value) for key, value in rows]
        title = f"## {name}{' (default)' if name == DEFAULT else ''} {{: #{name} }}"
        text = re.sub(r"^(#+) ", r"##\1 ", card.partition("\n")[2].strip(), flags=re.MULTILINE).replace("####", "###")
        assert resolve(name).is_file()
        parts += [title, text, "### In the file's header", _table(("", ""), [(k, _escaped(v)) for k, v in rows])]
    return "\n\n".join(parts) + "\n"


def shown(name: str) -> str:
    """Return what ``wsipipe models show`` prints of a model."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["models", "show", name]) == 0
    return out.getvalue()


def _default(field: Any) -> str:
    if field.default in (None, ""):
        return ""
    return ("on" if field.default else "off") if isinstance(field.default, bool) else f"`{_plain(field.default)}`"


def _range(field: Any) -> str:
    """Return choices, or range and unit, of a settings field."""
    meta = field.metadata
    low, high, unit = meta["low"], meta["high"], meta["unit"]
    if meta["choices"]:
        return _choices(meta["choices"])
    if high is not None:
        text = f"{_plain(low)} to {_plain(high)}" if low is not None else f"at most {_plain(high)}"
    else:
        text = f"at least {_plain(low)}" if low is not None and low >= 0.01 else ""
    return f"{text} {unit}".strip()


def _choices(values: Sequence[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Return plain text so that Markdown shows it as it is, save what stands in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_<\[\]])", r"\\\1", p) for p in parts)
