"""QuPath projects as lists of slides: URIs of every system, moved projects, what cannot be read as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from wsipipe.errors import SettingsError, SlideNotFound
from wsipipe.segmentation.qupath_project import path_of
from wsipipe.segmentation.slides import is_batch, list_slides

SCHEMA = {
    "type": "object",
    "required": ["version", "images"],
    "properties": {
        "version": {"type": "string"},
        "uri": {"type": "string", "pattern": "^file:"},
        "lastID": {"type": "integer"},
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["serverBuilder", "entryID", "imageName"],
                "properties": {"serverBuilder": {"$ref": "#/$defs/builder"}, "entryID": {"type": "integer"}},
            },
        },
    },
    "$defs": {
        "builder": {
            "type": "object",
            "required": ["builderType"],
            "properties": {
                "builderType": {
                    "enum": [
                        *("uri", "rotated", "channels", "color", "affine", "sparse", "cropped", "pyramidize"),
                        *("swapRedBlue", "color_deconvolved"),
                    ]
                },
                "uri": {"type": "string"},
                "args": {"type": "array", "items": {"type": "string"}},
                "builder": {"$ref": "#/$defs/builder"},
            },
        }
    },
}
"""What QuPath writes (DefaultProject and ImageServers of its core module), as far as it matters here."""


def image(uri: str, number: int = 1, name: str = "slide", args: list[str] | None = None, **wrapped: Any) -> Any:
    """Return an image of a project as QuPath writes it; *wrapped* is the builder around the file's."""
    provider = "qupath.lib.images.servers.openslide.OpenslideServerBuilder"
    metadata = {"name": name, "width": 46000, "height": 32914, "sizeZ": 1, "sizeT": 1, "isRGB": True}
    inner = {"builderType": "uri", "providerClassName": provider, "uri": uri, "args": args or [], "metadata": metadata}
    builder = {**wrapped, "builder": inner} if wrapped else inner
    return {"serverBuilder": builder, "entryID": number, "randomizedName": "a-b", "imageName": name, "metadata": {}}


def project(folder: Path, *images: Any, uri: str = "") -> Path:
    """Write a project and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "version": "0.5.1", "createTimestamp": 1, "modifyTimestamp": 2,
        "uri": uri or (folder / "project.qpproj").as_uri(), "lastID": len(images), "images": list(images),
    }  # fmt: skip
    jsonschema.validate(content, SCHEMA)
    (folder / "project.qpproj").write_text(json.dumps(content), encoding="utf-8")
    return folder / "project.qpproj"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:/home/me/my%20slides/a.svs", "/home/me/my slides/a.svs"),
        ("file:///home/me/a.svs", "/home/me/a.svs"),
        ("file:/C:/Users/me/my%20slides/%C3%A4.svs", "C:/Users/me/my slides/ä.svs"),
        ("file:////server/share/a%23b.svs", "//server/share/a#b.svs"),
        ("file://server/share/a.svs", "//server/share/a.svs"),
        ("file://localhost/home/a.svs", "/home/a.svs"),
        (r"C:\slides\a.svs", r"C:\slides\a.svs"),
        ("https://server/a.svs", "https://server/a.svs"),
    ],
)
def test_uris(uri: str, path: str) -> None:
    assert path_of(uri) == path


def test_a_project_is_a_list_of_slides(tmp_path: Path) -> None:
    slides = tmp_path / "my slides"
    slides.mkdir()
    for name in ("a.svs", "b.ome.tif"):
        (slides / name).touch()
    images = [image((slides / name).as_uri(), i, name) for i, name in enumerate(("a.svs", "b.ome.tif", "a.svs"), 1)]
    images[1]["serverBuilder"]["args"] = ["--series", "2"]
    images.append(image((slides / "a.svs").as_uri(), 4, builderType="pyramidize"))
    file = project(tmp_path / "p", *images)
    assert is_batch([str(file)])
    found = list_slides([str(file)])
    assert [(e.source, e.name, dict(e.special)) for e in found] == [
        (str(slides / "a.svs"), "a", {}),
        (str(slides / "b.ome.tif"), "b-2", {"scene": 2}),
    ]


@pytest.mark.parametrize("system", ["posix", "windows", "share"])
def test_a_project_that_was_moved_with_its_slides(tmp_path: Path, system: str) -> None:
    """Made on another machine, in study/qupath beside study/slides."""
    top = {"posix": "file:/data/study", "windows": "file:/D:/study", "share": "file:////nas/lab/study"}[system]
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/a b.svs").touch()
    file = project(tmp_path / "qupath", image(f"{top}/slides/a%20b.svs"), uri=f"{top}/qupath/project.qpproj")
    assert [entry.source for entry in list_slides([str(file)])] == [str(tmp_path / "slides/a b.svs")]


def test_a_slide_that_is_gone_keeps_its_name_and_fails_alone(tmp_path: Path) -> None:
    file = project(tmp_path, image("file:/D:/elsewhere/a.svs"), uri="file:/D:/study/project.qpproj")
    assert [entry.source for entry in list_slides([str(file)])] == ["D:/elsewhere/a.svs"]


@pytest.mark.parametrize("kind", ["rotated", "cropped", "affine"])
def test_what_is_turned_is_refused(tmp_path: Path, kind: str) -> None:
    file = project(tmp_path, image("file:/a.svs", name="my slide", builderType=kind))
    with pytest.raises(SettingsError, match=r"image 'my slide' is \w+ in QuPath"):
        list_slides([str(file)])


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("not json", SettingsError, "cannot be read as a QuPath project"),
        ("[]", SettingsError, "cannot be read as a QuPath project"),
        ('{"images": 5}', SettingsError, "no list of images in it"),
        ('{"images": []}', SlideNotFound, "holds no image"),
        ('{"images": [{"imageName": "x"}]}', SettingsError, "names no file"),
    ],
)
def test_bad_projects(tmp_path: Path, content: str, error: type[Exception], words: str) -> None:
    (tmp_path / "project.qpproj").write_text(content)
    with pytest.raises(error, match=words):
        list_slides([str(tmp_path / "project.qpproj")])
    with pytest.raises(SlideNotFound, match="no such project"):
        list_slides([str(tmp_path / "none.qpproj")])
