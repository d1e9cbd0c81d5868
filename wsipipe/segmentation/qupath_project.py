"""Which slides a QuPath project means: the images in its ``project.qpproj``, wherever it was made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from wsipipe.artifacts.plain import from_json, text_of
from wsipipe.errors import SettingsError, SlideNotFound, in_words

SUFFIX = ".qpproj"
TURNED = {"rotated": "rotated", "cropped": "cropped", "affine": "transformed", "sparse": "put together from parts"}
"""Kinds of images whose pixels lie elsewhere in QuPath than in the file."""


def project_slides(project: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path or URL of each image of a project, once; a name, and what is special, for other scenes of a file.

    Parameters
    ----------
    project : Path
        A ``project.qpproj`` of QuPath 0.2 or newer. Images are named by URIs such as ``file:/C:/slides/a%20b.svs``;
        those that are not there any more are looked for where they would be if the project was moved along with them.

    Raises
    ------
    SlideNotFound
        When the project holds no image.
    SettingsError
        When it cannot be read, or an image of it shows other pixels than its file (rotated, cropped, ...).
    """
    try:
        content = from_json(text_of(project))
        images = content["images"]
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
            raise ValueError("no list of images in it")
    except FileNotFoundError as error:
        raise SlideNotFound(f"no such project: {project}") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SettingsError(f"{project}: cannot be read as a QuPath project ({in_words(error)})") from error
    if not images:
        raise SlideNotFound(f"{project} holds no image; add some in QuPath")
    old, seen = _folder_of(content.get("uri")), []
    for number, image in enumerate(images, 1):
        name = str(image.get("imageName") or number)
        where = f"{project}: image {name!r}"
        uri, arguments = _source(image.get("serverBuilder"), where)
        path, special = _found(path_of(uri), old, project.parent), _scene(arguments)
        if (path, special) not in seen:
            seen.append((path, special))
            stem = PurePosixPath(path.replace("\\", "/")).name.partition(".")[0]
            yield path, f"{stem}-{special['scene']}" if special else "", special


def path_of(uri: str) -> str:
    """Return the path that a ``file:`` URI stands for, on the system that it was made on; other URLs as they are."""
    parts = urlsplit(uri)
    if len(parts.scheme) < 2:  # a path, or the letter of a drive
        return uri
    if parts.scheme != "file":
        return uri
    path = unquote(parts.path, errors="surrogateescape")
    if parts.netloc not in ("", "localhost"):
        return f"//{parts.netloc}{path}"
    return path[1:] if re.match(r"/[A-Za-z]:(/|$)", path) else path


def _source(builder: Any, where: str) -> tuple[str, list[str]]:
    """Return the URI and the arguments of an image's innermost builder."""
    while isinstance(builder, Mapping):
        kind = str(builder.get("builderType", ""))
        if kind in TURNED:
            raise SettingsError(
                f"{where} is {TURNED[kind]} in QuPath, whose coordinates differ from the file's; "
                "add the image as it is, or name the file itself"
            )
        if isinstance(builder.get("uri"), str):
            return builder["uri"], [str(a) for a in builder.get("args") or ()]
        builder = builder.get("builder")
    raise SettingsError(f"{where} names no file (serverBuilder without a uri); name the file itself")


def _scene(arguments: list[str]) -> dict[str, Any]:
    """Return the setting for an image other than the first of its file, as Bio-Formats is told of it."""
    at = arguments.index("--series") if "--series" in arguments else -1
    series = arguments[at + 1] if 0 <= at < len(arguments) - 1 else "0"
    return {"scene": int(series)} if series.isdecimal() and int(series) else {}


def _folder_of(uri: Any) -> str:
    """Return the folder in which the project was when it was saved, "" when it does not say."""
    path = path_of(uri) if isinstance(uri, str) else ""
    return path.rpartition("/")[0]


def _found(path: str, old: str, folder: Path) -> str:
    """Return *path*, or where it lies from the project now if it is not there and was moved along from *old*."""
    if "://" in path or os.path.exists(path) or not old:
        return path
    pure = PureWindowsPath if re.match(r"[A-Za-z]:", old) or old.startswith("//") else PurePosixPath
    there, here = pure(path), pure(old)
    for up, above in enumerate((here, *here.parents)):
        if there.is_relative_to(above):
            moved = os.path.normpath(folder.joinpath(*[".."] * up, *there.relative_to(above).parts))
            return moved if os.path.exists(moved) else path
    return path
