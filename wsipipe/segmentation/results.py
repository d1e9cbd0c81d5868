"""Results of one slide, or of a folder of them: which there are, what goes with each, where what is made of it goes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from wsipipe._version import __version__
from wsipipe.artifacts import check_writable, copy_file, remove_leftovers, write_json
from wsipipe.errors import OutputError, SettingsError, SlideError, StoreError
from wsipipe.formats.imported import DRAWN
from wsipipe.formats.parquet import MASTER, metadata
from wsipipe.formats.summary import check_excel, ending_of
from wsipipe.quality.kept import beside
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.found_before import record_beside, record_of, slide_of
from wsipipe.segmentation.request import slide_file

Made = TypeVar("Made")


def list_results(sources: Sequence[Path]) -> dict[str, Path]:
    """Return the master files among *sources* and in the folders there, by name, sorted by it.

    The name is the path below the folder without ending, as a batch names its results; tables that
    ``wsipipe summarise`` wrote are left out.

    Raises
    ------
    SettingsError
        When a folder holds none, or two have one name.
    """
    found: list[tuple[str, Path]] = []
    for source in sources:
        if not source.is_dir():
            found.append((source.name.removesuffix(MASTER), source))
            continue
        below = sorted(p for p in source.rglob(f"*{MASTER}") if not _hidden(p.relative_to(source)))
        inside = [p for p in below if not _is_table(p)]
        if not inside:
            raise SettingsError(
                f"{source} holds no cells (*{MASTER}); expected a folder that `wsipipe segment` wrote to"
            )
        found += [(p.relative_to(source).as_posix().removesuffix(MASTER), p) for p in inside]
    twice = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if twice:
        raise SettingsError(f"two cells files are called {twice[0]}; give the folder above, which tells them apart")
    return dict(sorted(found))


def is_many(sources: Sequence[Path]) -> bool:
    """Whether *sources* stand for any number of slides rather than for one cells file."""
    return len(sources) != 1 or sources[0].is_dir()


def claim_of(sources: Sequence[Path], out: Path) -> Path:
    """Return what is claimed of an output of *sources*: itself, or a name in the folder that several make."""
    return out / "results" if is_many(sources) else out


def outputs_for(sources: Sequence[Path], masters: Mapping[str, Path], out: Path, what: str) -> dict[str, Path]:
    """Return where *what* is made of each master file goes: to *out*, or of several into that folder, by name.

    Raises
    ------
    OutputError
        When *out* is of the wrong kind, is the input itself, or cannot be written.
    """
    if is_many(sources):
        if out.suffix == MASTER or out.is_file():
            raise OutputError(f"-o {out}: {what} of several slides need one folder, as in -o out/")
        found = {name: out / f"{name}{MASTER}" for name in masters}
    elif out.suffix != MASTER:
        raise OutputError(f"{out}: {what} are a {MASTER} (`wsipipe convert` makes the rest of it)")
    else:
        found = dict.fromkeys(masters, out)
    for name, path in found.items():
        if path.exists() and path.samefile(masters[name]):
            raise OutputError(f"{path} is the input itself; give another name")
        check_writable(path)
    return found


def file_for(given: Path | None, name: str, endings: Sequence[str] = DRAWN) -> Path | None:
    """Return the file that goes with the results *name*: *given* itself, or ``NAME`` with one of *endings* in it.

    None where there is none in a folder.
    """
    if given is None or not given.is_dir():
        return given
    return next((path for ending in endings if (path := given / f"{name}{ending}").is_file()), None)


def check_tables(
    tables: Sequence[Path], masters: Mapping[str, Path], regions: Path | None = None, slide: str = ""
) -> None:
    """Refuse, before any work, tables that cannot be written, and what goes with one slide when there are several.

    Raises
    ------
    OutputError, SettingsError, MissingDependency
    """
    for path in tables:
        ending = ending_of(path)
        if ending == ".geojson" and len(masters) > 1:
            raise OutputError(f"{path}: annotations lie on one slide, and there are {len(masters)}; give a .csv")
        if ending == ".xlsx":
            check_excel()
        if any(path.exists() and path.samefile(master) for master in masters.values()):
            raise OutputError(f"{path} is the input itself; give another name")
        check_writable(path)
    if len(masters) > 1 and regions is not None and not regions.is_dir():
        raise SettingsError(
            f"--regions {regions} holds the regions of one slide, and there are {len(masters)}; give a folder with "
            "NAME.geojson for each"
        )
    if len(masters) > 1 and slide:
        raise SettingsError(f"--slide {slide} goes with one cells file, and there are {len(masters)}")


def each_slide(
    masters: Mapping[str, Path], progress: Progress, make: Callable[[str, Path], Made]
) -> tuple[dict[str, Made], tuple[tuple[str, str], ...]]:
    """Return what *make* makes of each name and master file, and name and reason of those that failed.

    What fails of one slide does not stop the others; of a single one it is raised.

    Raises
    ------
    SettingsError
        When all of several fail.
    """
    made: dict[str, Made] = {}
    failed: list[tuple[str, str]] = []
    if len(masters) > 1:
        progress.start("slides", len(masters))
    for name, master in masters.items():
        try:
            made[name] = make(name, master)
        except (StoreError, SlideError, SettingsError) as error:
            if len(masters) == 1:
                raise
            progress.say(f"warning: {name}: {error}")
            failed.append((name, str(error)))
        if len(masters) > 1:
            progress.advance("slides")
    if not made:
        raise SettingsError(f"none of the {len(masters)} slides could be done (why stands above); nothing was written")
    return made, tuple(failed)


def pass_on(master: Path, output: Path, slide: str = "", more: Mapping[str, Any] | None = None) -> None:
    """Record beside *output*, which was made of *master*, on which slide its cells lie; where that is known.

    The quality map of the slide goes with it, where there is one, and so does what *more* there is to record.
    """
    kept = beside(output)
    if not kept.exists() and beside(master).exists():
        remove_leftovers(kept)
        copy_file(beside(master), kept)
    slide = slide or slide_of(master, record_of(master)) or ""
    if not slide or record_of(output).get("outputs"):
        return  # or a record of its own stands there, of the run that found the cells
    about = metadata(output)
    record = {
        "slide": slide if "://" in slide else os.path.abspath(slide),
        "slide_fingerprint": about["fingerprint"],
        "slide_file": slide_file(slide),
        "fingerprint": about.get("run_fingerprint"),
        "made_of": master.name,
        "version": __version__,
        **(more or {}),
    }
    path = record_beside(output)
    remove_leftovers(path)  # whoever holds the output writes its record
    write_json(path, record)


def _is_table(path: Path) -> bool:
    """Whether *path* is a table that this command wrote."""
    try:
        return b"wsipipe.summary" in (pq.read_schema(path).metadata or {})
    except (OSError, ValueError):
        return False


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
