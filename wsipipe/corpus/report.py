"""What was kept and what was dropped, and why: tables of the store, and a report made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsipipe.corpus.collect import Note
from wsipipe.corpus.filters import REASONS
from wsipipe.corpus.read import SPLITS, Corpus
from wsipipe.corpus.table import Columns, Origin


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
