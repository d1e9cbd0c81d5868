"""What excluding test images costs, and what it finds: CPU time a patch, crops found, patches accused wrongly.

    python -m tests.benchmarks.bench_exclude --tests IMAGES... --others IMAGES... [--patches N]

Of the *tests*, crops at random places are looked for, as they are and changed; the *others*, which show other tissue,
must not be accused.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.corpus.conftest import recompressed, scaled
from wsipipe.corpus.exclude import Excluded, index_images
from wsipipe.corpus.sources import find_sources

CHANGES: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "as it is": (512, lambda p: p),
    "JPEG 60": (512, lambda p: recompressed(p, 60)),
    "turned and mirrored": (512, lambda p: np.ascontiguousarray(np.rot90(p)[:, ::-1])),
    "half": (1024, lambda p: scaled(p, 0.5)),
    "double, JPEG 50": (256, lambda p: recompressed(scaled(p, 2.0), 50)),
    "a quarter of the patch": (256, lambda p: np.pad(p, ((0, 512 - len(p)), (0, 512 - len(p)), (0, 0)), mode="edge")),
}


def pixels_of(path: str) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def crops(images: list[str], side: int, count: int) -> list[tuple[str, Any]]:
    """Return square crops at random places of images in turn, with the name of the image."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        path = images[number % len(images)]
        whole = pixels_of(path)
        s = min(side, *whole.shape[:2])
        y, x = (int(rng.integers(0, n - s + 1)) for n in whole.shape[:2])
        found.append((Path(path).name, np.ascontiguousarray(whole[y : y + s, x : x + s])))
    return found


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--others", nargs="+", required=True)
    parser.add_argument("--patches", type=int, default=50)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    tests, others = ([s.path for g in names for s in find_sources([g])] for names in (given.tests, given.others))
    start = time.process_time()
    excluded: Excluded = index_images([s for g in given.tests for s in find_sources([g])], say=print)
    print(f"{len(tests)} images indexed in {time.process_time() - start:.1f} s of CPU time\n")
    excluded.find(pixels_of(tests[0])[:512, :512].copy())
    print("| crop | found | wrong image | correlation | CPU ms a patch |\n|---|---|---|---|---|")
    for name, (side, change) in CHANGES.items():
        given_crops = [(source, change(crop)) for source, crop in crops(tests, side, given.patches)]
        start = time.process_time()
        matches = [(source, excluded.find(crop)) for source, crop in given_crops]
        cost = 1000 * (time.process_time() - start) / len(matches)
        hits = [(source, match) for source, match in matches if match]
        wrong = sum(not match.image.endswith(source) for source, match in hits)
        least = min((match.correlation for _, match in hits), default=0)
        print(f"| {name} | {len(hits)} of {len(matches)} | {wrong} | {least:.2f} at least | {cost:.0f} |", flush=True)
    start, accused = time.process_time(), 0
    negatives = crops(others, 512, 4 * given.patches)
    for _, crop in negatives:
        accused += excluded.find(crop) is not None
    cost = 1000 * (time.process_time() - start) / len(negatives)
    print(f"| other tissue | {accused} of {len(negatives)} | | | {cost:.0f} |")


if __name__ == "__main__":
    main()
