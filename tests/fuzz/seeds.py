"""The intact inputs that are damaged: a folder for each kind, with all that a command needs beside it."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io
import shapely
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests import tiny
from tests.dicom import write_dicom
from tests.labels import scene, test_coco, test_hovernet, test_monuseg, test_pannuke, test_qupath
from tests.masters import write_master
from wsipipe.cli.main import main
from wsipipe.formats.geojson import write_geojson
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.cmd import CMDConfig
from wsipipe.phantom.slide import PhantomSettings, PhantomTruth, write_phantom
from wsipipe.slide import fingerprint, open_slide
from wsipipe.stain.unmix import HDAB, write_vectors

WIDTH, HEIGHT = 300, 200
DRAWN = PhantomSettings(width=WIDTH, height=HEIGHT, seed=1, mpp=0.5, tissue=0.9)
COUNT = 60
"""Cells of a cells file."""


def pixels() -> NDArray[np.uint8]:
    """Return the drawn slide (200, 300, 3)."""
    return PhantomTruth(DRAWN).picture((0, 0, WIDTH, HEIGHT))


# --- slides -----------------------------------------------------------------------------------------------------------


def _svs(folder: Path) -> None:
    write_phantom(folder / "slide.svs", DRAWN)


def _jpeg(folder: Path) -> None:
    write_phantom(folder / "slide.tiff", dataclasses.replace(DRAWN, vendor="generic"))


def _deflate(folder: Path) -> None:
    write_phantom(folder / "slide.tif", dataclasses.replace(DRAWN, vendor="generic", lossless=True))


def _ome(folder: Path) -> None:
    about = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(
        folder / "slide.ome.tif", pixels(), tile=(128, 128), photometric="rgb", ome=True, compression="zlib",
        metadata=about,
    )  # fmt: skip


def _png(folder: Path) -> None:
    Image.fromarray(pixels()).save(folder / "slide.png")


def _dicom(folder: Path) -> None:
    (folder / "slide.dcm").mkdir()
    write_dicom(folder / "slide.dcm" / "level.dcm", pixels(), 0.5)


# --- what belongs to a slide ------------------------------------------------------------------------------------------


def _store(folder: Path) -> None:
    _jpeg(folder)
    assert main(["tile", str(folder / "slide.tiff"), "-o", str(folder / "slide.zarr"), "--shard", "1024"]) == 0


def _cells(folder: Path) -> None:
    _jpeg(folder)
    path = folder / "slide.tiff"
    with open_slide(path) as slide:
        info = slide.info
    rng = np.random.default_rng(0)
    xy = rng.uniform(20, 180, (COUNT, 2))
    about = {
        "fingerprint": fingerprint(path), "size": list(info.size), "mpp": [0.5, 0.5], "tissue_area_um2": 15_000.0,
        "settings": {"tissue": {"tissue": "none"}, "slide": {"mpp": None, "scene": 0}},
    }  # fmt: skip
    measures = {"area_um2": rng.uniform(20, 90, COUNT), "solidity": rng.uniform(0.5, 1, COUNT)}
    write_master(folder / "cells.parquet", xy, np.arange(COUNT) % 3 - 1, 8.0, measures, **about)
    write_geojson(folder / "cells.parquet", folder / "cells.geojson")
    (folder / "batch").mkdir()
    shutil.copy(folder / "cells.parquet", folder / "batch" / "slide.parquet")
    _regions(folder)
    box = shapely.geometry.mapping(shapely.box(10, 10, 290, 190))
    tissue = {"type": "Feature", "geometry": box, "properties": {"objectType": "annotation"}}
    (folder / "tissue.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [tissue]}))


def _stained(folder: Path) -> None:
    """Write cells that were measured by stain, on a slide stained brown."""
    write_phantom(folder / "slide.tiff", dataclasses.replace(DRAWN, vendor="generic", staining="hdab", positive=0.4))
    rng = np.random.default_rng(0)
    with open_slide(folder / "slide.tiff") as slide:
        about = {"size": list(slide.info.size), "mpp": [0.5, 0.5], "fingerprint": fingerprint(folder / "slide.tiff")}
    write_master(folder / "plain.parquet", rng.uniform(20, 180, (COUNT, 2)), 0, 8.0, **about)
    cells, slide_, out = (str(folder / name) for name in ("plain.parquet", "slide.tiff", "cells.parquet"))
    vectors = str(folder / "stains.json")
    write_vectors(Path(vectors), HDAB)
    assert main(["measure", cells, "--slide", slide_, "-o", out, "--add", "stains", "--stain-vectors", vectors]) == 0
    _regions(folder)


def _regions(folder: Path) -> None:
    """Write annotated regions as QuPath does, one within another, and the sheet of a batch."""
    boxes = {"Tumour": (10, 10, 290, 190), "Core": (60, 60, 150, 150), "Glass": (200, 20, 280, 90)}
    features = [
        {
            "type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(*box)),
            "properties": {"objectType": "annotation", "name": name, "classification": {"name": name}},
        }
        for name, box in boxes.items()
    ]  # fmt: skip
    (folder / "regions.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    (folder / "cohort.csv").write_text("path,patient,arm\nslide.tiff,P1,a\n")


def _tma(folder: Path) -> None:
    """Write a microarray of two by three cores, a sheet that names them and the cores as found."""
    size = ["--rows", "2", "--columns", "3", "--mpp", "5", "--core-um", "600", "--spacing-um", "900", "--seed", "8"]
    slide = str(folder / "slide.tiff")
    assert main(["demo-slide", slide, "--tma", *size]) == 0
    assert main(["tma", slide, "-o", str(folder / "cores.geojson")]) == 0
    (folder / "names.csv").write_text("core,name,patient\nA-1,P7,007\nA-2,P8,008\nB-3,liver,\n")


def _corpus(folder: Path) -> None:
    drawn = dataclasses.replace(DRAWN, width=1100, height=560, vendor="generic")
    write_phantom(folder / "slide.tiff", drawn)
    command = ["build-corpus", str(folder / "slide.tiff"), "-o", str(folder / "corpus.zarr")]
    assert main([*command, "--threads", "1", "--max-background", "1", "--min-focus", "0"]) == 0
    checkpoint.save(
        folder / "backbone.safetensors", tiny.shake(tiny.backbone()), ModelCard("b", CMDConfig(tiny.WIDTHS))
    )


def _classifier(folder: Path) -> None:
    _cells(folder)
    cells, labels, out = (str(folder / name) for name in ("cells.parquet", "cells.geojson", "types.json"))
    assert main(["classify", cells, "--fit", labels, "--save", out]) == 0


def _model(folder: Path) -> None:
    _jpeg(folder)
    types = ("a", "b")
    checkpoint.save(
        folder / "own.safetensors", tiny.segmenter(types=types, seed=4), tiny.card(types=types)
    )  # finds cells


def _settings(folder: Path) -> None:
    _cells(folder)
    (folder / "run.toml").write_text(
        "[slide]\nmpp = 0.5\n\n[tissue]\ntissue = 'none'\nmin-tissue-um2 = 100.0\n\n[grid]\noverlap = 32\n\n"
        "[cells]\nthreshold = 0.5\nexpand-um = 2.0\n\n[run]\nblock = 512\n\n"
        "[export]\ndecimals = 1\n\n[subset]\nmin-probability = 0.6\n\n"
        "[measure]\nadd = 'neighbours,ring'\nring-um = 3.0\n\n[classify]\nl2 = 1.0\nfolds = 3\n\n"
        "[features]\npool = 'both'\n\n[store]\nshard = 1024\n\n[corpus]\npatch = 64\nval = 0.1\n\n"
        "[evaluate]\ntolerance-px = 2.0\n\n[summarise]\nseed = 1\n\n[score]\nmarker = 'ki67'\n\n"
        "[fit]\nhead = 'light'\nbatch = 1\ncrop = 64\nbackbone = 'tiny.safetensors'\n\n[loop]\nsteps = 1\n\n"
        "[augment]\njpeg = 0.0\n\n[[datasets]]\npath = 'set'\nmpp = 0.5\nweight = 1.0\n"
    )
    _png_labels(folder)


def _sheet(folder: Path) -> None:
    _jpeg(folder)
    shutil.copy(folder / "slide.tiff", folder / "other.tiff")
    (folder / "sheet.csv").write_text(
        "path,mpp,name,organ,patient,threshold,bounds\n"
        "slide.tiff,0.5,a,Breast,P1,0.5,0 0 300 200\nother.tiff,,b/c,Liver,P2,,\n"
    )


# --- annotated sets ---------------------------------------------------------------------------------------------------


def _png_labels(folder: Path) -> None:
    scene.save(folder / "set/images/one.png", scene.picture())
    scene.save(folder / "set/labels/one.png", scene.instance_map().astype(np.uint16))
    (folder / "set/types").mkdir()
    rows = "".join(f"{k},{kind}\n" for k, kind in scene.KINDS.items())
    (folder / "set/types/one.csv").write_text(f"id,class\n{rows}")


def _folder(folder: Path) -> None:
    """Write a folder of two slides."""
    (folder / "slides").mkdir()
    _jpeg(folder / "slides")
    (folder / "slides/slide.tiff").rename(folder / "slides/a.tiff")
    write_phantom(folder / "slides/b.tiff", dataclasses.replace(DRAWN, vendor="generic", seed=2))


def _split(folder: Path) -> None:
    _png_labels(folder)
    for kind in ("images", "labels"):
        shutil.copy(folder / "set" / kind / "one.png", folder / "set" / kind / "two.png")
    shutil.copy(folder / "set/types/one.csv", folder / "set/types/two.csv")
    (folder / "split.json").write_text(json.dumps({"train": ["one"], "val": ["two"], "test": []}))


def _npy_labels(folder: Path) -> None:
    scene.save(folder / "set/images/one.png", scene.picture())
    (folder / "set/labels").mkdir()
    np.save(folder / "set/labels/one.npy", scene.instance_map())


def _mat_labels(folder: Path) -> None:
    test_hovernet.write(folder / "set")
    scipy.io.savemat(folder / "set/Labels/test_1.mat", test_hovernet.consep(), do_compression=True)


def _coco(folder: Path) -> None:
    test_coco.write(folder / "set", test_coco.content("polygons"))


def _qupath(folder: Path) -> None:
    scene.save(folder / "set/tile.png", scene.picture())
    test_qupath.write(folder / "set/tile.geojson", test_qupath.WHOLE, *test_qupath.nuclei())


def _monuseg(folder: Path) -> None:
    scene.save(folder / "set/one.tif", scene.picture())
    test_monuseg.write(folder / "set/one.xml", test_monuseg.annotation(1, test_monuseg.scene()))


def _pannuke(folder: Path) -> None:
    test_pannuke.write(folder / "set", folder / "set")


MAKERS: dict[str, Callable[[Path], None]] = {
    "svs": _svs, "ome": _ome, "jpeg": _jpeg, "deflate": _deflate, "dicom": _dicom, "png": _png, "store": _store,
    "cells": _cells, "stained": _stained, "tma": _tma, "corpus": _corpus,
    "classifier": _classifier, "model": _model, "settings": _settings, "split": _split, "sheet": _sheet,
    "folder": _folder,
    "png labels": _png_labels, "npy labels": _npy_labels, "mat labels": _mat_labels, "coco": _coco,
    "qupath": _qupath, "monuseg": _monuseg, "pannuke": _pannuke,
}  # fmt: skip


def make(kind: str, root: Path) -> Path:
    """Return the folder of a kind of input below *root*, made when it is not there; others wait meanwhile."""
    folder = root / kind
    with (root / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir(parents=True)
            MAKERS[kind](folder)
            if not (folder / "tiny.safetensors").exists():
                checkpoint.save(folder / "tiny.safetensors", tiny.segmenter(), tiny.card())
    return folder
