"""Options that say where an annotated set lies and how to read it, and the sets of a TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wsipipe.cli.types import MppType
from wsipipe.errors import SettingsError
from wsipipe.settings import SET_FORMS

if TYPE_CHECKING:
    from wsipipe.cli.options import Config
    from wsipipe.labels import DatasetSpec

Function = TypeVar("Function", bound=Callable[..., Any])

FORMS = """
    \b
    Forms of a set, told by its files (or by --format):
      folders    images/ and labels/ of the same names; instance maps as PNG, TIFF or NPY;
                 masks/ in place of labels/ tell nucleus from background alone;
                 types/NAME.csv (id,class) name cell types
      monuseg    Aperio ImageScope .xml (MoNuSeg, MoNuSAC) with the picture of the same name
      hovernet   .mat with inst_map and types (HoVer-Net, CoNSeP, CPM, Lizard)
      pannuke    images.npy and masks.npy, one or more folds
      coco       COCO .json, polygons or run lengths
      qupath     QuPath .geojson with its slide: annotated regions become images
"""

_OPTIONS = (
    click.option(
        "--format", "form", type=click.Choice(["auto", *SET_FORMS]), default="auto", show_default=True,
        help="Form of the set.",
    ),
    click.option(
        "--mpp", "mpp", type=MppType(), default="auto", show_default=True,
        help="Resolution of the images; `auto`: what the set states, else 0.25; `nuclei`: by the size of the nuclei.",
    ),
    click.option(
        "--patient", default=r"(.+)", show_default=True, metavar="REGEX",
        help="Its first group, matched at the start of a file name, is the patient.",
    ),
    click.option(
        "--split", default="", metavar="JSON", help='{"train": [...], "val": [...], "test": [...]}: patients or files.'
    ),
    click.option(
        "--classes", default="", metavar="NAMES",
        help="Cell types: names of the numbers 1,2,... or OLD=NEW, with commas; `ignore` takes a type out.",
    ),
)  # fmt: skip


def dataset_options(function: Function) -> Function:
    """Add the options of an annotated set to a command; :func:`spec_of` takes their values."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def spec_of(path: str, options: dict[str, Any], **changes: Any) -> DatasetSpec:
    """Return the set at *path* as the options of :func:`dataset_options` describe it; they are taken out."""
    from wsipipe.labels import DatasetSpec

    names = tuple(name.strip() for name in options["classes"].split(",")) if options["classes"] else ()
    plain = {name: options[name] for name in ("mpp", "patient", "split")}
    return DatasetSpec(path, format=options["form"], classes=names, **{**plain, **changes})


def specs_in(config: Config) -> list[DatasetSpec]:
    """Return the ``[[datasets]]`` of a TOML file; their split files may lie beside it.

    Raises
    ------
    SettingsError
        A key is not known.
    """
    from wsipipe.labels import DatasetSpec

    known, specs = {f.name: f.default for f in dataclasses.fields(DatasetSpec)}, list[DatasetSpec]()
    for table in config.datasets:
        if unknown := set(table) - set(known) or ({"path"} - set(table)):
            expected = ", ".join(sorted(known))
            raise SettingsError(f"{config.path} [[datasets]]: unknown key {min(unknown)!r}; expected {expected}")
        for key, value in table.items():
            if key != "mpp" and not _is_like(value, known[key]):
                raise SettingsError(f"{config.path} [[datasets]] {key} is {value!r}; expected {_EXPECTED[key]}")
        beside = Path(config.path).parent / str(table.get("split", ""))
        found = {"split": str(beside.resolve())} if beside.is_file() else {}
        classes = {"classes": tuple(table["classes"])} if "classes" in table else {}
        specs.append(DatasetSpec(**{**table, **found, **classes}))
    return specs


_EXPECTED = dict.fromkeys(("path", "patient", "split", "default_split", "format"), "text in quotes") | {
    "weight": "a number above 0 and below 1e9", "classes": "names in quotes, as ['tumour', 'other']",
    "merged": "true or false", "partial": "true or false",
}  # fmt: skip
"""Of what kind the keys of ``[[datasets]]`` are; the reader of a set checks ``mpp``."""


def _is_like(value: Any, default: Any) -> bool:
    """Whether *value*, of a TOML file, is of the kind of *default*."""
    if isinstance(default, tuple):
        return isinstance(value, list) and all(isinstance(name, str) for name in value)
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e9
    return isinstance(value, bool if isinstance(default, bool) else str)
