"""From a path to an open slide: which reader, and why the others refused."""

from __future__ import annotations

import dataclasses
import os
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from wsipipe.errors import (
    MissingDependency,
    SettingsError,
    SlideNotFound,
    UnreadableSlide,
    UnsupportedSlide,
    in_words,
)
from wsipipe.settings import BACKENDS, SHARPEST, Backend, SlideSettings, named
from wsipipe.slide.dicomweb import is_dicomweb
from wsipipe.slide.planes import CHOOSER, Chooser
from wsipipe.slide.protocol import Slide
from wsipipe.slide.reader import Reader
from wsipipe.slide.remote import is_url as is_url
from wsipipe.slide.remote import remote_needs
from wsipipe.slide.sampling import Stamp, refuse_special

STARTS = {"dicom": (128, b"DICM"), "czi": (0, b"ZISRAWFILE")}
"""Where in a file, and how, it says that it is one for a reader which is not asked otherwise."""


def open_slide(path: str | os.PathLike[str], settings: SlideSettings | None = None, **changes: Any) -> Slide:
    """Open a slide or picture.

    Parameters
    ----------
    path : path or URL
        A file, a folder of DICOM instances, a URL that fsspec knows (``s3://...``, read by TiffSlide), or a series on
        a DICOMweb server (``dicomweb://.../studies/UID/series/UID``).
    settings : SlideSettings, optional
    **changes
        Single settings in place of those, as in ``open_slide(path, backend="tiffslide", mpp=0.25)``.

    Returns
    -------
    Slide
        To be closed, best by ``with``. A resolution that is missing or absurd does not stop it from opening:
        :func:`~wsipipe.slide.resolution.require_mpp` judges that.

    Raises
    ------
    SlideNotFound
        When there is no such file.
    UnreadableSlide
        When no backend opens it; says why each refused.
    UnsupportedSlide
        When it opens, but holds a z-stack, fluorescence or anything else that is not 8-bit RGB.
    MissingDependency
        When the backend asked for is not installed.
    SettingsError
        When the scene or focal plane asked for does not exist.
    """
    settings = dataclasses.replace(settings or SlideSettings(), **changes)
    return _open_sharpest(path, settings) if settings.plane == SHARPEST else _open(path, settings)


def _open_sharpest(path: str | os.PathLike[str], settings: SlideSettings) -> Slide:
    """Return the slide at the sharpest of its focal planes; a slide that is no stack as it is."""
    first = _open(path, dataclasses.replace(settings, plane="0"))
    if not first.info.planes:
        return first
    first.close()
    plane, told = _sharpest(first.info.path, settings, first.stamp)
    slide = _open(path, dataclasses.replace(settings, plane=str(plane)))
    slide.tell(told)
    return slide


@lru_cache(64)
def _sharpest(path: str, settings: SlideSettings, _stamp: Stamp) -> tuple[int, str]:
    """Return number and words of the sharpest plane; remembered, as a run opens its slide more than once."""
    choose: Chooser = named(CHOOSER)
    return choose(lambda n: _open(path, dataclasses.replace(settings, plane=str(n))))


def _open(path: str | os.PathLike[str], settings: SlideSettings) -> Reader[Any]:
    location = os.fspath(path) if is_url(os.fspath(path)) else os.path.abspath(path)
    refusals = []
    for name in _candidates(location, settings.backend):
        outcome = _attempt(name, location, settings)
        if isinstance(outcome, Reader):
            return outcome
        refusals.append(f"{name}: {outcome}")
    far = "; from afar only TIFF files (SVS, OME-TIFF, ...) and DICOMweb are read: download it first"
    raise UnreadableSlide(f"cannot open {location}: {'; '.join(refusals)}{far if is_url(location) else ''}")


def backend_versions() -> dict[str, str | None]:
    """Return the installed version of the library behind each reader, None where it is not installed."""
    return {name: _version(backend) for name, backend in BACKENDS.items()}


def load_reader(name: str) -> type[Reader[Any]]:
    """Import the reader called *name*.

    Raises
    ------
    MissingDependency
        When its library is not installed, or does not load on this machine.
    """
    backend = BACKENDS[name]
    try:
        reader: type[Reader[Any]] = named(backend.reader)
    except (ImportError, OSError) as error:
        if _version(backend) is None and backend.extra:
            raise MissingDependency.of(backend.packages[0], backend.extra, f"the {name} reader") from error
        raise MissingDependency(f"the {name} reader does not load here: {in_words(error)}") from error
    return reader


def _candidates(path: str, backend: str) -> tuple[str, ...]:
    """Return the readers worth asking; raise for what none could open."""
    names = tuple(name for name, each in BACKENDS.items() if each.auto) if backend == "auto" else (backend,)
    if is_url(path):
        far = "dicom" if is_dicomweb(path) else "tiffslide"
        return (far,) if backend == "auto" else names
    local = Path(path)
    try:
        is_folder, size = local.is_dir(), local.stat().st_size
    except FileNotFoundError as error:
        raise SlideNotFound(f"no such slide: {path}") from error
    except OSError as error:
        raise UnreadableSlide(f"cannot open {path}: {error.strerror}") from error
    if not os.access(path, os.R_OK):
        raise UnreadableSlide(f"cannot open {path}: no permission to read it")
    refuse_special(local)
    if is_folder:
        _check_folder(local, names)
        return ("dicom",)
    if size == 0:
        raise UnreadableSlide(f"{path} is empty (0 bytes); expected a slide file: was the copy cut short?")
    return names


def _check_folder(folder: Path, names: tuple[str, ...]) -> None:
    if not any(p.suffix.lower() == ".dcm" for p in folder.iterdir()):
        raise UnreadableSlide(f"{folder} is a folder without DICOM files (*.dcm); expected a slide file")
    if "dicom" not in names:
        raise UnreadableSlide(f"{folder} is a folder, which the {names[0]} reader does not open; dicom does")


def _attempt(name: str, path: str, settings: SlideSettings) -> Reader[Any] | str:
    """Return the open slide, or why this reader refuses it. What no reader could cure is raised."""
    if name in STARTS and not _starts_as(path, name):
        return f"not a {name.upper()} file"
    try:
        reader = load_reader(name)
    except MissingDependency as error:
        if settings.backend != "auto":
            raise
        return in_words(error)
    try:
        return reader(path, settings)
    except (UnsupportedSlide, SettingsError, SlideNotFound, MissingDependency):
        raise
    except ImportError as error:
        if not is_url(path):
            raise
        raise remote_needs(path) from error
    except UnreadableSlide as error:
        if is_url(path):  # it cannot be reached, whatever reads it
            raise
        return in_words(error).replace(path, os.path.basename(path))
    except reader.failures as error:
        return in_words(error).replace(path, os.path.basename(path))


def _starts_as(path: str, name: str) -> bool:
    """Whether a file begins as those that the reader called *name* opens; of folders and URLs only it can tell."""
    if is_url(path) or os.path.isdir(path):
        return True
    at, magic = STARTS[name]
    with open(path, "rb") as file:
        return file.read(at + len(magic))[at:] == magic


def _version(backend: Backend) -> str | None:
    for package in backend.packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None
