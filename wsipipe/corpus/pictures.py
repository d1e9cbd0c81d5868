"""What there is to see of a corpus: some patches, a contact sheet of them, and a chart of its organs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from wsipipe.artifacts import atomic_path
from wsipipe.corpus.read import Corpus, open_corpus
from wsipipe.corpus.splits import rank
from wsipipe.errors import SettingsError
from wsipipe.figure.lettering import width as width_of
from wsipipe.figure.lettering import write
from wsipipe.figure.places import Places
from wsipipe.figure.regions import Region, cut

SHOWN = 4
"""Patches that are shown where none are named."""
TILE, LABEL, GAP = 176, 30, 8
COLUMNS, ROWS = 8, 6
INK, FAINT = (40, 40, 40), (120, 120, 120)
PATCHES, PATIENTS = (176, 64, 128), (72, 104, 168)
BAR, LINE, WIDTH = 420, 24, 1000


def regions_of_corpus(source: str, places: Places) -> list[Region]:
    """Return patches of the corpus at *source* by number, or some that are spread evenly over it.

    Raises
    ------
    SettingsError
        When a number or the size is too large.
    StoreError
    """
    if places.at:
        raise SettingsError(f"{source} is a corpus, whose patches have numbers; give --index 0 in place of --at")
    corpus = open_corpus(source)
    count = len(corpus)
    spread = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).astype(int)).tolist()
    for index in places.indices:
        if not 0 <= index < count:
            raise SettingsError(f"--index {index}: {source} holds the patches 0 to {count - 1}")
    if corpus.patch < places.size:
        raise SettingsError(f"the patches of {source} are {corpus.patch} px; --size {places.size} is more")
    found = []
    for index in places.indices or spread:
        mpp, middle = float(corpus.table["mpp"][index].as_py()), corpus.patch // 2
        window, corner = cut(corpus.read(index), (middle, middle), places.size), float(middle - places.size // 2)
        slide = Path(corpus.table["slide"][index].as_py()).stem
        found.append(Region(f"patch {index}: {slide}", window, (corner, corner), (1.0, 1.0), (mpp, mpp)))
    return found


def draw_contact_sheet(corpus: Corpus, path: Path) -> None:
    """Write a PNG of up to 48 patches, drawn by the corpus's seed, each with its slide, organ, resolution and split.

    Raises
    ------
    OutputError
    """
    shown = _draw(corpus)
    rows = max(1, math.ceil(len(shown) / COLUMNS))
    columns = min(COLUMNS, max(1, len(shown)))
    size = GAP + columns * (TILE + GAP), GAP + 24 + rows * (TILE + LABEL + GAP)
    sheet = Image.new("RGB", (max(size[0], 640), size[1]), "white")
    pen = ImageDraw.Draw(sheet)
    title = f"{len(shown)} of {len(corpus):,} patches of {corpus.patch} px, drawn at random (seed {_seed(corpus)})"
    write(pen, (GAP, GAP), title, INK, 14)
    table = corpus.table
    for place, index in enumerate(shown):
        row = {name: table[name][index].as_py() for name in ("slide", "organ", "mpp", "split")}
        x = GAP + place % COLUMNS * (TILE + GAP)
        y = GAP + 24 + place // COLUMNS * (TILE + LABEL + GAP)
        small = cv2.resize(corpus.read(index), (TILE, TILE), interpolation=cv2.INTER_AREA)
        sheet.paste(Image.fromarray(np.asarray(small, np.uint8)), (x, y))
        write(pen, (x, y + TILE + 2), _fitted(Path(row["slide"]).stem, TILE), INK, 11)
        under = f"{row['organ']}, {row['mpp']:.3g} µm/px, {row['split']}"
        write(pen, (x, y + TILE + 15), _fitted(under, TILE), FAINT, 11)
    _save(sheet, path)


def draw_organs(organs: Mapping[str, Mapping[str, int]], path: Path) -> None:
    """Write a PNG chart of patches and patients by organ, most patches first.

    Raises
    ------
    OutputError
    """
    order = sorted(organs, key=lambda name: (-organs[name]["patches"], name))
    picture = Image.new("RGB", (WIDTH, 60 + (LINE * 2 + 10) * max(1, len(order))), "white")
    pen = ImageDraw.Draw(picture)
    total = {key: sum(organs[name][key] for name in order) for key in ("patches", "patients")}
    write(pen, (16, 12), f"{total['patches']:,} patches", PATCHES, 18)
    write(pen, (230, 12), f"{total['patients']:,} patients", PATIENTS, 18)
    for place, name in enumerate(order):
        y = 52 + place * (LINE * 2 + 10)
        write(pen, (16, y + LINE // 2), _fitted(name, 200, 16), INK, 16)
        for line, (key, colour) in enumerate((("patches", PATCHES), ("patients", PATIENTS))):
            count, most = organs[name][key], max(organs[other][key] for other in order)
            length, top = max(2, round(BAR * count / max(1, most))), y + line * LINE
            pen.rectangle((230, top, 230 + length, top + LINE - 4), fill=colour)
            share = f"{count:,}  ({count / max(1, total[key]):.0%})"
            write(pen, (240 + length, top), share, INK, 15)
    _save(picture, path)


def _draw(corpus: Corpus) -> list[int]:
    """Return the numbers of the patches to show, ascending."""
    seed = int(rank(_seed(corpus), "sheet")[:16], 16)
    chosen = np.random.default_rng(seed).permutation(len(corpus))[: COLUMNS * ROWS]
    return [int(number) for number in np.sort(chosen)]


def _seed(corpus: Corpus) -> int:
    return int(corpus.about["settings"]["seed"])


def _fitted(text: str, width: int, size: int = 11) -> str:
    """Return *text*, its middle left out where it is wider than *width* pixels."""
    short, keep = text, len(text)
    if keep > width:  # letters are wider than a pixel: measuring a long text again and again would take for ever
        keep, short = width, text[: (width + 1) // 2] + "…" + text[len(text) - width // 2 :]
    while keep > 4 and width_of(short, size) > width:
        keep -= 1
        short = text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]
    return short


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG", optimize=False)
