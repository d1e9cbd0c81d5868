"""What was kept and what was dropped, and why: tables of the store, and a report made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsipipe.artifacts import write_json
from wsipipe.corpus.collect import Note
from wsipipe.corpus.filters import REASONS
from wsipipe.corpus.pictures import draw_contact_sheet, draw_organs
from wsipipe.corpus.read import SPLITS, Corpus
from wsipipe.corpus.table import Columns, Origin
from wsipipe.errors import DatasetError


def slide_columns(origins: Sequence[Origin], notes: Mapping[int, Note]) -> Columns:
    """Return the columns of the table of slides: patches kept, dropped by reason, and why a slide cannot be used."""
    of = [notes[number] for number in range(len(origins))]
    columns: dict[str, Any] = {name: [getattr(origin, name) for origin in origins] for name in Origin._fields}
    columns["mpp"] = np.array([note.mpp for note in of], np.float64)
    columns["kept"] = np.array([note.kept for note in of], np.int64)
    for reason in REASONS:
        columns[reason] = np.array([note.dropped.get(reason, 0) for note in of], np.int64)
    columns["failure"] = [note.failure for note in of]
    columns["warnings"] = ["; ".join(note.warnings) for note in of]
    return columns


def match_columns(origins: Sequence[Origin], notes: Mapping[int, Note]) -> Columns:
    """Return the columns of the table of patches that show a part of a test image."""
    found = [(origins[number].slide, *match) for number in sorted(notes) for match in notes[number].matches]
    slide, x, y, image, overlap, correlation = zip(*found, strict=True) if found else ((),) * 6
    return {
        "slide": list(slide),
        "x_base": np.array(x, np.int64),
        "y_base": np.array(y, np.int64),
        "image": list(image),
        "overlap": np.array(overlap, np.float64),
        "correlation": np.array(correlation, np.float64),
    }


def report(corpus: Corpus) -> dict[str, Any]:
    """Return what a corpus holds and what was left out of it, as JSON."""
    slides = corpus.slides.to_pylist()
    dropped = {reason: sum(slide[reason] for slide in slides) for reason in REASONS}
    return {
        "patches": len(corpus),
        "slides": {
            "given": len(slides),
            "used": sum(slide["kept"] > 0 for slide in slides),
            "failed": sum(bool(slide["failure"]) for slide in slides),
        },
        "patients": len({slide["patient"] for slide in slides if slide["kept"]}),
        "dropped": {reason: count for reason, count in dropped.items() if count},
        "splits": {split: _part(slides, "split", split) for split in SPLITS},
        "organs": {organ: _part(slides, "organ", organ) for organ in sorted({s["organ"] for s in slides if s["kept"]})},
        "excluded": corpus.excluded.to_pylist(),
        "excluding": corpus.about["excluding"],
        "failures": {slide["slide"]: slide["failure"] for slide in slides if slide["failure"]},
        "warnings": {slide["slide"]: slide["warnings"] for slide in slides if slide["warnings"]},
        "fingerprint": corpus.fingerprint,
        "settings": corpus.about["settings"],
        "by_slide": {slide["slide"]: _by_reason(slide) for slide in slides},
    }


def resolutions(corpus: Corpus) -> dict[str, int]:
    """Return the number of patches by resolution in µm/px, rounded, ascending."""
    counts = Counter(np.asarray(corpus.table["mpp"]).round(3).tolist())
    return {f"{mpp:g}": counts[mpp] for mpp in sorted(counts)}


def _part(slides: Sequence[Mapping[str, Any]], key: str, value: str) -> dict[str, int]:
    """Return patches, slides and patients of the slides of one split or organ."""
    used = [slide for slide in slides if slide[key] == value and slide["kept"]]
    patients = len({slide["patient"] for slide in used})
    return {"patches": sum(slide["kept"] for slide in used), "slides": len(used), "patients": patients}


def _by_reason(slide: Mapping[str, Any]) -> dict[str, int]:
    return {key: slide[key] for key in ("kept", *REASONS) if slide[key]}


def refuse_empty(notes: Mapping[int, Note]) -> None:
    """Raise :class:`~wsipipe.errors.DatasetError` when no patch was kept, with the reasons."""
    if any(note.kept for note in notes.values()):
        return
    failures = [note.failure for note in notes.values() if note.failure]
    dropped: dict[str, int] = {}
    for reason, count in ((r, c) for note in notes.values() for r, c in note.dropped.items()):
        dropped[reason] = dropped.get(reason, 0) + count
    why = [f"{len(failures)} cannot be used, the first: {failures[0]}"] if failures else []
    why += [", ".join(f"{count} patches dropped for {reason}" for reason, count in dropped.items())] if dropped else []
    raise DatasetError(f"no patch is left of {len(notes)} slides: {'; '.join(why) or 'no tissue'}")


def beside(output: Path) -> dict[str, Path]:
    """Return the files that accompany the corpus at *output*: report, sheet and organs."""
    stem = output.name.removesuffix(".zarr")
    return {
        "report": output.with_name(f"{stem}.report.json"),
        "sheet": output.with_name(f"{stem}.sheet.png"),
        "organs": output.with_name(f"{stem}.organs.png"),
    }


def write_beside(corpus: Corpus, target: Path) -> None:
    """Write report and pictures of the corpus at *target* where they are missing or of another corpus."""
    paths, content = beside(target), report(corpus)
    same = paths["report"].exists() and corpus.fingerprint in paths["report"].read_text(encoding="utf-8")
    if same and all(path.exists() for path in paths.values()):
        return
    draw_contact_sheet(corpus, paths["sheet"])
    draw_organs(content["organs"], paths["organs"])
    write_json(paths["report"], content)
