"""``wsipipe completion``: a script that lets a shell complete commands, options and files."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from wsipipe.cli.main import COMPLETION
from wsipipe.cli.options import Command

SHELLS = ("bash", "zsh", "fish")


class _OrFiles(ShellComplete):
    """Offers files where nothing else is known: most arguments are slides or results, given as text."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        found = super().get_completions(args, incomplete)
        anything = args and not incomplete.startswith("-")
        return found or ([CompletionItem(incomplete, type="file")] if anything else [])


class Bash(_OrFiles, BashComplete):
    """Bash 4.4 or newer."""


class Zsh(_OrFiles, ZshComplete):
    """Zsh."""


class Fish(_OrFiles, FishComplete):
    """Fish."""


CLASSES: dict[str, type[ShellComplete]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}


def register() -> None:
    """Let click answer shells by the classes above."""
    for shell, cls in CLASSES.items():
        click.shell_completion.add_completion_class(cls, shell)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, their values and files of wsipipe.

    \b
    For every new shell of yours:
      wsipipe completion bash > ~/.local/share/bash-completion/completions/wsipipe     (make the folder first)
      wsipipe completion zsh > ~/.zfunc/_wsipipe        (with fpath+=~/.zfunc before compinit in ~/.zshrc)
      wsipipe completion fish > ~/.config/fish/completions/wsipipe.fish

    \b
    For this one:
      eval "$(wsipipe completion bash)"
      eval "$(wsipipe completion zsh)"
      wsipipe completion fish | source
    """
    click.echo(CLASSES[shell](ctx.find_root().command, {}, "wsipipe", COMPLETION).source(), nl=False)
