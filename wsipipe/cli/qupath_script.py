"""``wsipipe qupath-script``: the script by which QuPath runs wsipipe."""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path

import click

from wsipipe.cli.options import Command

LINE = 'COMMAND = ["wsipipe"]'


@click.command("qupath-script", cls=Command)
@click.argument("out", type=click.Path(path_type=Path), default="wsipipe.groovy")
def qupath_script(out: Path) -> None:
    """Write a script for QuPath to OUT (default: wsipipe.groovy) that runs this wsipipe on the open image or project.

    In QuPath: Automate > Script editor, open the file, Run. Cells come in as detections with their measurements, your
    annotations get counts and densities; with annotations selected, cells are looked for in them alone. The other way,
    `wsipipe segment project.qpproj -o out/` segments the images of a project without QuPath.

    \b
    wsipipe qupath-script
    wsipipe qupath-script ~/QuPath/scripts/
    """
    from wsipipe.artifacts import atomic_write

    file = out / "wsipipe.groovy" if out.is_dir() else out
    with atomic_write(file, "w") as stream:
        stream.write(script([sys.executable, "-m", "wsipipe"]))
    click.echo(f"wrote {file}: open it in QuPath (Automate > Script editor), and run it")


def script(command: list[str]) -> str:
    """Return the script, with what starts wsipipe written into it."""
    text = (resources.files("wsipipe.formats") / "qupath" / "wsipipe.groovy").read_text(encoding="utf-8")
    words = ", ".join(json.dumps(word, ensure_ascii=False).replace("$", "\\$") for word in command)
    return text.replace(LINE, f"COMMAND = [{words}]", 1)
