"""A cell and what is around it, as a picture."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.analysis.classify import Classifier
from wsipipe.analysis.classify.candidates import Candidates
from wsipipe.analysis.classify.reading import matrix
from wsipipe.figure.overlay import View, draw_outlines, draw_scale_bar, look
from wsipipe.formats.colours import NO_CLASS, Rgb
from wsipipe.formats.parquet import batches, metadata
from wsipipe.slide import Slide

OPEN = 4
"""Slides that are open at a time."""
SIDE = 720
"""Longest side of a picture."""
LEAST_UM, MOST_UM = 20.0, 1000.0
CASING: Rgb = (34, 29, 44)
TARGET: Rgb = (255, 228, 92)


class CloseUps:
    """Pictures of candidates. Safe to share between threads; one is made at a time.

    Parameters
    ----------
    candidates : Candidates
    open_slide : callable
        Opens the slide of that number.
    """

    def __init__(self, candidates: Candidates, open_slide: Callable[[int], Slide]) -> None:
        self._candidates, self._open = candidates, open_slide
        self._slides: OrderedDict[int, Slide] = OrderedDict()
        self._turn = threading.Lock()

    def jpeg(self, cell: int, um: float, classifier: Classifier | None, colours: dict[str, Rgb], bare: bool) -> bytes:
        """Return the square of *um* microns about a candidate as JPEG.

        Its outline is yellow, others have the colour of the class that they are found to be of; *bare* is without any.
        """
        row = self._candidates.table(cell)
        number = int(self._candidates.slide[cell])
        master = self._candidates.masters[number]
        mpp = np.array(metadata(master)["mpp"])
        x, y = float(row["x"][0].as_py()), float(row["y"][0].as_py())
        half = np.clip(um, LEAST_UM, MOST_UM) / 2 / mpp
        box = (round(x - half[0]), round(y - half[1]), round(x + half[0]), round(y + half[1]))
        with self._turn:
            view = look(self._slide(number), box, SIDE)
        if not bare:
            self._draw(view, cell, classifier, colours)
        draw_scale_bar(view)
        _, data = cv2.imencode(".jpg", cv2.cvtColor(view.rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
        return bytes(data)

    def _draw(self, view: View, cell: int, classifier: Classifier | None, colours: dict[str, Rgb]) -> None:
        own = self._candidates.ids[cell]
        columns = ["cell_id", "geometry", "class", *(classifier.columns if classifier else ())]
        target: NDArray[np.object_] = np.zeros(0, np.object_)
        for batch in batches(
            self._candidates.masters[self._candidates.slide[cell]], list(dict.fromkeys(columns)), view.box
        ):
            shapes = shapely.from_wkb(batch["geometry"].to_numpy(False))
            ids = np.array(batch["cell_id"].to_pylist(), object)
            if classifier is None:
                kinds = np.array(batch["class"].to_pylist(), object)
            else:
                found = classifier.probabilities(matrix(batch, classifier.columns)).argmax(axis=1)
                kinds = np.array(classifier.classes, object)[found]
            for kind in dict.fromkeys(kinds.tolist()):
                draw_outlines(view, shapes[(kinds == kind) & (ids != own)], colours.get(kind, NO_CLASS))
            target = np.concatenate([target, shapes[ids == own]])
        for colour, width in ((CASING, 5), (TARGET, 2)):
            draw_outlines(view, target, colour, width)

    def _slide(self, number: int) -> Slide:
        """Return an open slide; the one that was longest not looked at is closed for it."""
        if number not in self._slides:
            if len(self._slides) >= OPEN:
                self._slides.popitem(last=False)[1].close()
            self._slides[number] = self._open(number)
        self._slides.move_to_end(number)
        return self._slides[number]

    def close(self) -> None:
        """Close the slides."""
        with self._turn:
            for slide in self._slides.values():
                slide.close()
            self._slides.clear()
