"""From a :class:`DatasetSpec` to images in memory."""

from __future__ import annotations

from pathlib import Path

from wsipipe.errors import DatasetError
from wsipipe.labels import coco, folders, hovernet, monuseg, pannuke, qupath
from wsipipe.labels.annotated import Annotated, DatasetSpec, settle
from wsipipe.labels.pictures import LABEL_SUFFIXES
from wsipipe.labels.sources import Item, files_under
from wsipipe.labels.splits import assign, patient
from wsipipe.settings import SET_FORMS


def read_set(spec: DatasetSpec, split: str, root: Path = Path(), working_mpp: float | None = None) -> list[Annotated]:
    """Return the images of *spec* that belong to *split*, in the order of their names.

    Parameters
    ----------
    spec : DatasetSpec
    split : {'train', 'val', 'test'}
    root : Path
        Where relative paths start.
    working_mpp : float, optional
        Resolution in µm/px at which regions of a slide are read where the set names none; default: the slide's own.

    Raises
    ------
    DatasetError
        A file is missing or unreadable, a label has no image, sizes differ, or a patient falls into two splits.
    """
    items = list_set(spec, root, working_mpp)
    assigned = assign(spec, [item.name for item in items], root)
    return [settle(i.name, patient(spec, i.name), i.read(), spec) for i in items if assigned[i.name] == split]


def list_set(spec: DatasetSpec, root: Path = Path(), working_mpp: float | None = None) -> list[Item]:
    """Return all images of *spec*, not yet read, in the order of their names."""
    path = root / spec.path
    form = detect(path) if spec.format == "auto" else spec.format
    if form not in SET_FORMS:
        raise DatasetError(f"{spec.path}: format {form!r} is not known; expected auto or one of {', '.join(SET_FORMS)}")
    if form == "qupath":
        items = qupath.items(path, spec, working_mpp)
    else:
        module = {"folders": folders, "monuseg": monuseg, "hovernet": hovernet, "pannuke": pannuke, "coco": coco}[form]
        items = module.items(path)
    if not items and form != "folders":
        raise DatasetError(f"{path}: holds no annotated image in the form {form!r}; see --format")
    return items


def detect(path: Path) -> str:
    """Return the form of the set at *path*: what its files look like.

    Raises
    ------
    DatasetError
        When there is nothing there that looks like an annotated set.
    """
    if path.is_file():
        return _form_of_file(path)
    if not path.is_dir() or not any(path.iterdir()):
        return "folders"  # whose reader says what is missing
    for maps in (path / "labels", path / "masks"):
        if maps.is_dir() and any(p.suffix.lower() in LABEL_SUFFIXES for p in maps.iterdir()):
            return "folders"
    for suffix, form in ((".mat", "hovernet"), ("masks.npy", "pannuke"), (".xml", "monuseg"), (".geojson", "qupath")):
        if files_under(path, suffix):
            return form
    for file in files_under(path, ".json"):
        if coco.is_coco(file):
            return "coco"
    return "folders"


def _form_of_file(path: Path) -> str:
    form = {".mat": "hovernet", ".npy": "pannuke", ".xml": "monuseg", ".geojson": "qupath"}.get(path.suffix.lower())
    if form is None and path.suffix.lower() == ".json":
        form = "coco" if coco.is_coco(path) else "qupath"
    if form is None:
        raise DatasetError(f"{path}: not an annotated set; expected a folder, or a .json, .geojson, .xml or .mat file")
    return form
