"""The ``wsipipe`` command: a group that imports a subcommand only when it is called, and one place for errors."""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from wsipipe._version import __version__
from wsipipe.errors import WsipipeError

INTERRUPTED = 130
COMPLETION = "_WSIPIPE_COMPLETE"
"""Environment variable by which a shell asks what could follow."""


class Entry(NamedTuple):
    """Where a subcommand lives, and what ``wsipipe --help`` says of it."""

    target: str
    group: str
    summary: str


COMMANDS = {
    "segment": Entry("wsipipe.cli.segment:segment", "Slides", "Find the cells of a slide; write them as polygons."),
    "tile": Entry("wsipipe.cli.tile:tile", "Slides", "Store tissue and tile pixels of a slide as sharded Zarr."),
    "report": Entry("wsipipe.cli.report:report", "Slides", "Show results as HTML pages that open anywhere."),
    "quality": Entry(
        "wsipipe.cli.quality:quality", "Slides", "Map what is wrong with a slide: blur, pen, folds, bubbles, dust."
    ),
    "app": Entry("wsipipe.cli.app:app", "Slides", "Open a page to do all this without a terminal."),
    "view": Entry("wsipipe.cli.view:view", "Slides", "Look at a slide and its cells in the browser."),
    "info": Entry("wsipipe.cli.info:info", "Slides", "Show what a slide file says of itself."),
    "convert": Entry("wsipipe.cli.convert:convert", "Cells", "Write found cells in another format."),
    "measure": Entry("wsipipe.cli.measure:measure", "Cells", "Measure cells, also edited ones, on their slide."),
    "label": Entry("wsipipe.cli.label:label", "Cells", "Label the least certain cells of all slides in the browser."),
    "classify": Entry("wsipipe.cli.classify:classify", "Cells", "Type cells after a few labelled ones."),
    "score": Entry("wsipipe.cli.score:score", "Cells", "Tell positive cells from negative ones: share, H, Allred."),
    "summarise": Entry("wsipipe.cli.summarise:summarise", "Cells", "Sum cells up by region: counts, shares, sizes."),
    "tma": Entry("wsipipe.cli.tma:tma", "Slides", "Find and name the cores of a tissue microarray."),
    "qupath-script": Entry(
        "wsipipe.cli.qupath_script:qupath_script", "Slides", "Write the script by which QuPath runs wsipipe."
    ),
    "features": Entry("wsipipe.cli.features:features", "Slides", "Features of a slide's tiles, for slide models."),
    "build-corpus": Entry(
        "wsipipe.cli.build_corpus:build_corpus", "Models", "Cut slides into patches for pretraining."
    ),
    "pretrain": Entry("wsipipe.cli.pretrain:pretrain", "Models", "Pretrain a backbone on unlabelled patches."),
    "fit": Entry("wsipipe.cli.fit:fit", "Models", "Train a head on annotated images."),
    "evaluate": Entry("wsipipe.cli.evaluate:evaluate", "Models", "Score a model against annotated images."),
    "benchmark": Entry("wsipipe.cli.benchmark:benchmark", "Models", "Compare models and backbones, by a plan."),
    "visualize": Entry("wsipipe.cli.visualize:visualize", "Models", "Draw what a model sees: features, similarity."),
    "models": Entry("wsipipe.cli.models:models", "Models", "List the models that are at hand, with their licences."),
    "demo-slide": Entry("wsipipe.cli.demo_slide:demo_slide", "Help", "Draw a phantom slide whose cells are known."),
    "example-slide": Entry(
        "wsipipe.cli.example_slide:example_slide", "Help", "Download a small real slide to try things on."
    ),
    "completion": Entry("wsipipe.cli.completion:completion", "Help", "Let your shell complete what you type."),
    "doctor": Entry("wsipipe.cli.doctor:doctor", "Help", "Check this machine: libraries, readers, devices, memory."),
}
"""Every subcommand. ``module:function`` is imported when the command is called."""


@dataclass
class State:
    """What the group's options say, for :func:`main` to see after a subcommand has failed."""

    debug: bool = False


class LazyGroup(click.Group):
    """A group of :data:`COMMANDS` that are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands, in the order of help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a subcommand; ``None`` when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name].target.split(":")
        command = getattr(importlib.import_module(module), function)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Return the subcommands that begin so, without importing them; options of the group itself after a dash."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(n, help=e.summary) for n, e in COMMANDS.items() if n.startswith(incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand that *args* name; a wrong name is answered with the nearest right one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands by group, without importing them."""
        for group in dict.fromkeys(entry.group for entry in COMMANDS.values()):
            with formatter.section(group):
                formatter.write_dl([(name, e.summary) for name, e in COMMANDS.items() if e.group == group])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "-V", "--version", prog_name="wsipipe", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="WSIPIPE_DEBUG", help="Show the Python traceback of an error.")
@click.pass_obj
def cli(state: State | None, debug: bool) -> None:
    """Cells of whole-slide images as polygons.

    wsipipe opens a slide, finds the tissue, segments every nucleus and writes polygons in level-0 pixels: GeoJSON that
    QuPath opens, GeoParquet for analysis. Memory stays flat however large the slide is, and the same slide, model,
    settings and recipe (version, kind of device, arithmetic) give the same bytes every time.

    \b
    Begin with:
      wsipipe demo-slide demo.tiff                      a slide to try, if you have none
      wsipipe segment demo.tiff -o cells.geojson        the main command
      wsipipe segment demo.tiff -o cells.parquet --overlay overlay.png
      wsipipe segment demo.tiff -o cells.geojson --dry-run

    `wsipipe COMMAND --help` explains a command. For research use only: not for diagnosis.
    """
    if state is not None:
        state.debug = debug


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    A :class:`~wsipipe.errors.WsipipeError` becomes one line on stderr and its own exit code, a wrong option 2, an
    operating-system error 1, Ctrl-C 130. With ``--debug`` errors keep their traceback.
    """
    state = State()
    for stream in (sys.stdout, sys.stderr):  # names of files need not be UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(args, state)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _quiet_exit()
    except (click.ClickException, WsipipeError, OSError, MemoryError) as error:
        if state.debug:
            raise
        code = _report(error)
    except (click.Abort, KeyboardInterrupt) as error:
        code = _interrupted(error)
        if args is None:
            _leave(code)
    return code


def _run(args: Sequence[str] | None, state: State) -> int:
    if COMPLETION in os.environ:
        importlib.import_module("wsipipe.cli.completion").register()
    given = list(sys.argv[1:] if args is None else args)
    result: Any = cli.main(given or ["--help"], prog_name="wsipipe", obj=state, standalone_mode=False)
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    """Write one line about *error* to stderr, and return its exit code."""
    message, code = str(error) or type(error).__name__, getattr(error, "exit_code", 1)
    if isinstance(error, MemoryError):
        message = f"out of memory ({message}); a smaller --block or fewer --workers need less"
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    _say("error: " + " ".join(message.split()))
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
    return int(code)


def _interrupted(error: BaseException) -> int:
    """Say that the run was stopped, with the hint that the interrupt carries, if any."""
    cause = error.__cause__ if isinstance(error, click.Abort) and error.__cause__ else error
    hint = "" if isinstance(cause, click.Abort) else str(cause)
    _say(f"interrupted; {hint}" if hint else "interrupted")
    return INTERRUPTED


def _leave(code: int) -> None:
    """End the process without waiting for threads that are still at work: every file is written whole or not at all."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _quiet_exit() -> int:
    """Whoever read our output has gone: leave without a word, also at interpreter shutdown."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say(line: str) -> None:
    click.echo(f"wsipipe: {line}", err=True)


if __name__ == "__main__":
    sys.exit(main())
