"""Score a model on pictures made worse: stain, JPEG, blur, a wrong resolution. Prints a Markdown table.

python robustness.py MODEL FOLDER-OF-RESULTS NAME=SET... -- the options of `wsipipe evaluate` after NAME=SET, in quotes:

    python robustness.py cmd-t robust \\
        "tnbc=tnbc --mpp 0.25 --patient '(\\d+)_' --split tnbc/split.json --part val --stain as-is"

Each picture is worsened at its own resolution, then scored by `wsipipe evaluate` as any other.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.train.augment import jpeg, restained

Picture = NDArray[np.uint8]
MEASURES = ("DQ", "PQ", "AJI")


def stained(strength: float, stain: int) -> Callable[[Picture], Picture]:
    """Return what multiplies one stain (0 haematoxylin, 1 eosin) of a picture by *strength*."""
    factors = np.ones(3)
    factors[stain] = strength
    return lambda image: restained(image, factors)


def blurred(sigma: float) -> Callable[[Picture], Picture]:
    """Return what blurs a picture by *sigma* px."""
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def compressed(quality: int) -> Callable[[Picture], Picture]:
    """Return what compresses a picture as JPEG."""
    return lambda image: jpeg(image, quality)


CHANGES: dict[str, Callable[[Picture], Picture] | float] = {
    "as they are": 1.0,
    "haematoxylin × 0.7": stained(0.7, 0),
    "haematoxylin × 1.3": stained(1.3, 0),
    "eosin × 0.7": stained(0.7, 1),
    "eosin × 1.3": stained(1.3, 1),
    "JPEG quality 90": compressed(90),
    "JPEG quality 50": compressed(50),
    "JPEG quality 30": compressed(30),
    "blur, σ 0.5 µm": blurred(2.0),
    "blur, σ 1 µm": blurred(4.0),
    "stated mpp 20 % too small": 0.8,
    "stated mpp 20 % too large": 1.2,
}
"""What is done to the pictures; a number multiplies the stated resolution instead."""


def worsened(source: Path, target: Path, change: Callable[[Picture], Picture]) -> None:
    """Write the set *source* (images/ and labels/) to *target* with every image changed."""
    shutil.copytree(source / "labels", target / "labels", dirs_exist_ok=True)
    (target / "images").mkdir(exist_ok=True)
    for path in sorted((source / "images").iterdir()):
        image = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8)
        cv2.imwrite(str(target / "images" / f"{path.stem}.png"), change(image)[..., ::-1])


def scored(model: str, folder: Path, words: list[str]) -> tuple[float, ...]:
    """Return the pooled scores of *model* on the set that *words* describe."""
    subprocess.run(["wsipipe", "evaluate", *words, "--model", model, "-o", str(folder)], check=True, stdout=sys.stderr)
    pooled = json.loads((folder / "scores.json").read_text())["pooled"]
    return tuple(pooled[m]["value"] for m in MEASURES)


def main(model: str, out: Path, sets: dict[str, list[str]]) -> None:
    """Print the table."""
    print("| | " + " | ".join(sets) + " |\n|---|" + "---|" * len(sets))
    for k, (label, change) in enumerate(CHANGES.items()):
        cells = []
        for name, (source, *options) in sets.items():
            folder, words = out / f"{name}-{k}", [source, *options]
            if callable(change):
                worsened(Path(source), folder / "set", change)
                words[0] = str(folder / "set")
            else:
                at = words.index("--mpp") + 1
                words[at] = f"{float(words[at]) * change:g}"
            cells.append(" / ".join(f"{v:.3f}".lstrip("0") for v in scored(model, folder, words)))
            shutil.rmtree(folder / "set", ignore_errors=True)
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    named = (text.split("=", 1) for text in sys.argv[3:])
    main(sys.argv[1], Path(sys.argv[2]), {name: shlex.split(text) for name, text in named})
