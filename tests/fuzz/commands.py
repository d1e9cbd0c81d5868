"""What is fuzzed: a kind of input, an intact one, its damage, the command that reads it, and what it gives."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz.mutate import BYTES, JSON, TEXT, Mutator
from tests.masters import write_master
from wsipipe.formats.geojson import write_geojson
from wsipipe.slide.phantom import PhantomSettings, write_phantom


@dataclass(frozen=True)
class Target:
    """A command and a kind of input.

    Attributes
    ----------
    file : str
        The intact input's name in the folder of seeds.
    args : callable
        From the damaged input, the folder of seeds and a folder for outputs to the command line.
    """

    file: str
    mutators: Sequence[Mutator]
    args: Callable[[Path, Path, Path], list[str]]

    def damaged(self, seeds: Path, seed: int) -> bytes:
        """Return the input of a *seed*."""
        rng = random.Random(seed)
        raw = (seeds / self.file).read_bytes()
        for _ in range(rng.choice((1, 1, 2))):
            try:
                raw = rng.choice(self.mutators)(raw, rng) or b" "
            except (ValueError, UnicodeError, RecursionError):  # damaged beyond what this mutator reads
                break
        return raw


def _convert(end: str) -> Callable[[Path, Path, Path], list[str]]:
    return lambda path, seeds, out: ["convert", str(path), "-o", str(out / f"out{end}")]


def _config(path: Path, seeds: Path, out: Path) -> list[str]:
    return ["convert", str(seeds / "cells.parquet"), "-o", str(out / "out.csv"), "--config", str(path)]


def _labels(path: Path, seeds: Path, out: Path) -> list[str]:
    return ["classify", str(seeds / "cells.parquet"), "--fit", str(path), "-o", str(out / "out.parquet")]


def _info(path: Path, seeds: Path, out: Path) -> list[str]:
    return ["info", str(path)]


TARGETS = {
    "cells → convert .csv": Target("cells.parquet", BYTES, _convert(".csv")),
    "cells → convert .geojson": Target("cells.parquet", BYTES, _convert(".geojson")),
    "cells → convert .gpkg": Target("cells.parquet", BYTES, _convert(".gpkg")),
    "cells → report": Target("cells.parquet", BYTES, lambda p, s, o: ["report", str(p), "-o", str(o / "out.html")]),
    "labels → classify": Target("labels.geojson", JSON, _labels),
    "settings → convert": Target("settings.toml", TEXT, _config),
    "slide → info": Target("slide.tiff", BYTES, _info),
}


def make_seeds(folder: Path) -> Path:
    """Write the intact inputs."""
    xy = np.random.default_rng(0).uniform(20, 780, (60, 2))
    write_master(folder / "cells.parquet", xy, np.arange(60) % 3 - 1)
    write_geojson(folder / "cells.parquet", folder / "labels.geojson")
    (folder / "settings.toml").write_text("[export]\ndecimals = 1\n\n[subset]\nmin-probability = 0.6\n")
    write_phantom(folder / "slide.tiff", PhantomSettings(width=300, height=260, seed=1, mpp=0.5))
    json.loads((folder / "labels.geojson").read_text())
    return folder
