"""Every ``wsipipe`` command that the documentation, the examples of --help and the workflows show is one it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.conftest import ROOT
from tests.docs.reading import DOCS, blocks, wsipipe_commands
from wsipipe.cli.main import COMMANDS, LazyGroup, cli

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "workflows").rglob("*.md"))]
GROUP = LazyGroup("wsipipe")


def shown(text: str) -> Iterator[list[str]]:
    """Yield the commands in a text, leaving out those with a placeholder."""
    for words in wsipipe_commands(text):
        if words and not any("…" in word or word in ("...", "COMMAND", "EXAMPLE") for word in words):
            yield [re.sub(r"\$\{?\w+\}?", "1", word) for word in words]  # a variable of the shell


def check(words: list[str]) -> None:
    """Let click parse the words of a command, all the way to the values of options."""
    command: click.Command = cli
    context = click.Context(cli, info_name="wsipipe")
    words = [word for word in words if word != "--debug"]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    if isinstance(command, click.Group):
        return
    values, rest, order = command.make_parser(context).parse_args(list(words))
    assert not rest
    for param in order:
        if isinstance(param, click.Option) and not isinstance(param.type, click.Path | click.File):
            param.type_cast_value(context, values.get(param.name))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_of_a_page(page: Path) -> None:
    for block in blocks(page):
        if block.language in ("bash", "console", "sh"):
            for words in shown(block.text):
                check(words)
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line in re.findall(r"^    (?:\$ )?(wsipipe .*)$", text, re.MULTILINE):
        for words in shown(line):
            check(words)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_help(name: str) -> None:
    command = GROUP.get_command(click.Context(GROUP), name)
    assert command is not None
    lines = re.findall(r"^\s*((?:torchrun .*-m )?wsipipe .*(?:\\\n.*)?)$", command.help or "", re.MULTILINE)
    lines = [re.split(r"\s{3,}(?!-)", line)[0] if "\\" not in line else line for line in lines]
    for line in lines:
        for words in shown(line):
            check(words)


@pytest.mark.parametrize("line", ["segment a.svs -o x --overlpa y", "sgment a", "segment a -o x --overlap much"])
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises(click.ClickException):
        check(line.split())


BENCHMARKS = {"performance", "scale", "results"}
"""Pages that speak of options of benchmarks, as do the decisions and workflows."""
FOREIGN = {"array", "cpus", "gres", "memory", "network", "nproc-per-node", "nthreads", "pyramid", "requeue"}
FOREIGN |= {"jobs", "totals", "resources", "signal", "tile"}
"""Options of SLURM, Dask, Docker, torchrun, vips and our own fuzzing that the pages speak of."""


def test_every_option_in_the_text_is_one() -> None:
    known = {"help", "debug", "version"}
    for name in COMMANDS:
        command = GROUP.get_command(click.Context(GROUP), name)
        assert command is not None
        for one in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
            known |= {flag[2:] for p in one.params for flag in (*p.opts, *p.secondary_opts) if flag.startswith("--")}
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        named = {
            flag for code in re.findall(r"`[^`]+`", text) for flag in re.findall(r"(?<![\w-])--([a-z][\w-]*)", code)
        }
        if page.stem not in BENCHMARKS and not {"decisions", "workflows"} & set(page.parts):
            assert named <= known | FOREIGN, page
