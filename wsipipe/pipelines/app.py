"""The story of `wsipipe app`: the page to start from, served on this machine until interrupted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wsipipe.artifacts import atomic_write, check_writable
from wsipipe.artifacts.system import WINDOWS
from wsipipe.models.zoo import DEFAULT, card_text, shipped
from wsipipe.segmentation.found_before import open_pair
from wsipipe.segmentation.slides import SECTIONS, SLIDE_SUFFIXES
from wsipipe.settings import ExportSettings, RunSettings, SlideSettings
from wsipipe.view.answers import Shown
from wsipipe.view.changing import ChangingIndex
from wsipipe.view.editing import Editing
from wsipipe.view.server import listen, new_token
from wsipipe.view.start.desk import Desk
from wsipipe.view.start.folders import Folders
from wsipipe.view.start.pages import Office, serve


@dataclass(frozen=True)
class AppJob:
    """What the page is started with.

    Attributes
    ----------
    roots : tuple of Path
        Folders that may be looked into.
    results : Path
        Where the folders of runs go.
    models : tuple of str
        Checkpoints to choose from, beside those that are shipped.
    port : int
        0 takes a free one.
    """

    roots: tuple[Path, ...]
    results: Path
    models: tuple[str, ...] = ()
    port: int = 0


def run_app(job: AppJob, started: Callable[[str], None]) -> None:
    """Serve until interrupted; *started* hears the address to open. What runs then is asked to stop.

    Raises
    ------
    OutputError
        When results cannot be written, or the port is taken.
    MissingDependency
    """
    check_writable(job.results / "run" / "app.json")
    sections = SECTIONS | {"run": RunSettings, "export": ExportSettings}
    folders = Folders((*job.roots, job.results), SLIDE_SUFFIXES)
    with listen(job.port) as listener:
        desk = Desk(job.results)
        try:
            serve(Office(folders, desk, sections, models(job.models), show), listener, new_token(), started)
        finally:
            desk.close()


def models(more: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the models to choose from, the default first, and the first lines of their cards."""
    names = sorted(shipped(), key=lambda name: (name != DEFAULT, name))
    return {name: _about(card_text(name) or "") for name in names} | dict.fromkeys(more, "")


def _about(card: str) -> str:
    """Return the first paragraph of a model card, without its heading."""
    paragraphs = [part.strip() for part in card.split("\n\n") if part.strip() and not part.startswith("#")]
    return " ".join(paragraphs[0].replace("**", "").split()) if paragraphs else ""


def show(slide: str, master: Path) -> Shown:
    """Return a slide and its cells, opened to be looked at."""
    opened, warnings = open_pair(slide, master, SlideSettings())
    index = ChangingIndex(master)
    return Shown(opened, os.path.basename(slide), index, tuple(warnings), editing=Editing(index, master))


def write_launcher(folder: Path, job: AppJob) -> Path:
    """Write a file into *folder* that opens the page by a double click, and return it.

    Raises
    ------
    OutputError
    """
    words = [sys.executable, "-m", "wsipipe", "app", *map(str, job.roots), "--results", str(job.results)]
    name, text = launcher(words, "windows" if WINDOWS else sys.platform)
    with atomic_write(folder / name, "w") as file:
        file.write(text)
    if not WINDOWS:
        (folder / name).chmod(0o755)
    return folder / name


def launcher(words: list[str], system: str) -> tuple[str, str]:
    """Return name and content of the launcher on a *system*: windows, darwin or another."""
    if system == "windows":
        quoted = " ".join('"' + word.replace("%", "%%") + '"' for word in words)
        return "wsipipe.bat", f"@echo off\r\nchcp 65001 >nul\r\n{quoted}\r\nif errorlevel 1 pause\r\n"
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    if system == "darwin":
        return "wsipipe.command", f"#!/bin/sh\nexec {quoted}\n"
    inner = " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"' for word in words)
    lines = ["[Desktop Entry]", "Type=Application", "Name=wsipipe", "Comment=Cells of whole-slide images"]
    return "wsipipe.desktop", "\n".join([*lines, f"Exec={inner}", "Terminal=true", ""])
