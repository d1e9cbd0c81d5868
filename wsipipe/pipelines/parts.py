"""The story of `wsipipe doctor` begins here: what of wsipipe's packages and parts is missing. Loads none of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from typing import NamedTuple

from wsipipe.errors import install_line

DISTRIBUTION = "wsipipe-pathology"


class Part(NamedTuple):
    """An optional part: what it is for, and the modules by which one knows that it is there."""

    purpose: str
    modules: tuple[str, ...]


PARTS = {
    "view": Part("viewer, and the page to start from (wsipipe view, wsipipe app)", ("starlette", "uvicorn")),
    "dicom": Part("DICOM slides that OpenSlide refuses, DICOMweb servers", ("wsidicom",)),
    "czi": Part("Zeiss CZI with several focal planes, and single scenes of a file", ("pylibCZIrw",)),
    "remote": Part("slides in buckets and on web servers (s3://, gs://, https://)", ("aiohttp", "s3fs", "gcsfs")),
    "xlsx": Part("tables as .xlsx (wsipipe summarise)", ("openpyxl",)),
    "texture": Part("texture of cells (wsipipe measure --add texture)", ("mahotas",)),
    "openvino": Part("another engine on a CPU (--engine openvino)", ("openvino",)),
    "stardist": Part("StarDist (--model stardist:FOLDER)", ("stardist", "tensorflow")),
    "cellpose": Part("Cellpose (--model cellpose:FILE)", ("cellpose",)),
    "onnx": Part("networks as ONNX (--model onnx:FILE)", ("onnxruntime",)),
    "pfm": Part("foundation models as encoders (wsipipe pretrain)", ("timm",)),
    "tensorboard": Part("curves of a training", ("tensorboard",)),
    "cucim": Part("slides through cuCIM (--backend cucim)", ("cucim",)),
    "spatialdata": Part("reading .zarr results in Python", ("spatialdata",)),
}
"""The optional parts that a user may want, in the order of how many do."""


def parts() -> Iterator[tuple[str, bool, str]]:
    """Yield name of each optional part, whether it is there, and what it is for (with what installs it, if not)."""
    for name, part in PARTS.items():
        there = all(importlib.util.find_spec(module) is not None for module in part.modules)
        yield name, there, part.purpose if there else f"{part.purpose}: {install_line(name)}"


def missing() -> list[str]:
    """Return the packages that wsipipe cannot do without and that are not installed; empty when nothing is known."""
    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    needed = [line for line in lines if ";" not in line]
    names = [found[0] for line in needed if (found := re.match(r"[\w.-]+", line))]
    return [name for name in names if not _installed(name)]


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
