"""The forms in which annotated sets come, and the reader of each.

================  =====================================================================================
folders           ``images/`` and ``labels/`` of the same stems; labels are PNG, TIFF or NPY instance maps; ``masks/``
                  in place of ``labels/`` tell nucleus from background alone; ``types/`` name types in CSV files
monuseg           Aperio ImageScope XML (MoNuSeg, MoNuSAC) with the picture of the same name
hovernet          MATLAB ``.mat`` with ``inst_map`` (HoVer-Net, CoNSeP, CPM, Lizard), with its picture
pannuke           ``images.npy`` and ``masks.npy`` of one or more folds
coco              COCO JSON with polygons or run lengths
qupath            QuPath GeoJSON with the slide of the same name; annotated regions become images
================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsipipe.errors import DatasetError
from wsipipe.labels.annotated import Content
from wsipipe.labels.pictures import IMAGE_SUFFIXES, SLIDE_SUFFIXES


@dataclass(frozen=True)
class Item:
    """One image of a set, not yet read."""

    name: str
    read: Callable[[], Content]


def files_under(path: Path, suffix: str) -> list[Path]:
    """Return the files of *suffix* under a folder, sorted, hidden ones left out; *path* itself when it is one."""
    if path.is_file():
        return [path] if path.name.lower().endswith(suffix) else []
    found = (p for p in path.rglob("*") if p.name.lower().endswith(suffix) and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(path).parts))


def picture_of(label: Path, root: Path, stem: str | None = None) -> Path:
    """Return the picture that belongs to the annotation file *label*: of the same stem, the nearest one.

    It is looked for beside the annotation, then in the folders beside its folder, then anywhere under *root*; of
    several in one folder plain pictures come before slides. Pictures with drawn outlines (``Overlay/``) are left out.

    Raises
    ------
    DatasetError
        When there is none.
    """
    stem = stem or label.stem
    folders = [label.parent]
    if label.parent != root:
        folders += sorted(p for p in label.parent.parent.iterdir() if p.is_dir())
    folders += sorted(p for p in root.rglob("*") if p.is_dir())
    for folder in folders:
        if "overlay" in folder.name.lower():
            continue
        for suffix in (*IMAGE_SUFFIXES, *SLIDE_SUFFIXES):
            for path in (folder / f"{stem}{suffix}", folder / f"{stem}{suffix.upper()}"):
                if path.is_file() and path != label:
                    return path
    raise DatasetError(f"{label}: no picture {stem}.png, .tif or .svs beside it or in the folders around it")


def unique(items: Sequence[Item], where: Path) -> list[Item]:
    """Return *items* in the order of their names; refuse two of one name."""
    ordered = sorted(items, key=lambda item: item.name)
    if twice := [a.name for a, b in zip(ordered, ordered[1:]) if a.name == b.name]:
        raise DatasetError(f"{where}: two images are named {twice[0]}; every stem needs one")
    return ordered
