"""What is damaged: for each command and kind of input, the file, and how the command reads it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pyarrow as pa

from tests.fuzz import mutate
from tests.fuzz.mutate import BYTES, CELLS, CSV, GEOJSON, JSON, MODEL, STORE, TEXT, TOML, Mutator
from wsipipe.cli.main import main
from wsipipe.errors import FAILURES, WsipipeError

ALWAYS = ("--device", "cpu", "--precision", "fp32", "--batch", "1")
NETWORK = ("--model", "tiny.safetensors", *ALWAYS)
ANYWAY = ("--max-bad-tiles", "1")
"""Go on whatever cannot be read: a slide of two tiles has lost half with the first."""
SOME = 0.06
"""Share of inputs that get another name, or are replaced by what is no file."""


@dataclass(frozen=True)
class Target:
    """A command and a kind of input.

    Attributes
    ----------
    kind : str
        See :data:`tests.fuzz.seeds.MAKERS`.
    files : str
        Pattern of the files that may be damaged; one at a time.
    args : callable
        From the path of the input to the command line, or to an exit code.
    sealed : bool
        Whether the format has digests, so that no damage may go unnoticed.
    whole : bool
        Whether a reader can tell that the end is missing.
    named : bool
        Whether the file may have any name.
    """

    kind: str
    files: str
    mutators: Sequence[Mutator]
    args: Callable[[str], list[str] | int]
    sealed: bool = False
    whole: bool = True
    named: bool = True

    def damage(self, work: Path, seed: int) -> tuple[Path, bool] | None:
        """Damage a file in *work* as *seed* says.

        Returns
        -------
        path, strict
            Where the input is now, and whether other results than the intact input's are a fault; None when nothing
            was changed.
        """
        rng = random.Random(f"{self.kind} {self.files} {seed}")
        path = rng.choice(sorted(p for p in work.glob(self.files) if p.is_file()))
        if self.named and rng.random() < SOME:
            if rng.random() < 0.5:
                mutate.replace(path, rng)
                return path, True
            return mutate.rename(path, rng), False
        raw, used = path.read_bytes(), []
        changed = raw
        for _ in range(rng.choice((1, 1, 1, 2))):
            mutator = rng.choice(self.mutators)
            try:
                changed = mutator(changed, rng) or b" "
            except (*FAILURES, pa.ArrowException):
                break  # damaged beyond what this mutator reads
            used.append(mutator)
        if changed == raw:
            return None
        path.write_bytes(changed)
        edited = any(mutator in mutate.EDITS for mutator in used)
        return path, not edited and (self.sealed or (self.whole and used == [mutate.cut]))


def run(args: list[str] | int) -> int:
    """Run a command line in this process."""
    return args if isinstance(args, int) else main(args)


def look(path: str) -> int:
    """Ask the viewer's server for everything, in this process."""
    from starlette.testclient import TestClient

    from wsipipe.pipelines.shown import open_pair
    from wsipipe.settings import SlideSettings
    from wsipipe.view.answers import Shown
    from wsipipe.view.index import CellIndex
    from wsipipe.view.server import application

    cells = Path(path) if path.endswith(".parquet") else None
    try:
        slide, warnings = open_pair("slide.tiff" if cells else path, cells, SlideSettings())
        for warning in warnings:
            click.echo(f"warning: {warning}")
        with slide:
            index = CellIndex(cells) if cells else None
            client = TestClient(application(Shown(slide, "s", index), "t"), base_url="http://127.0.0.1:8000/t/")
            addresses = ["", "info", "tiles/9/0_0.jpg", "tiles/8/0_0.jpg"]
            if index:
                addresses += ["cells/9/0_0", "cells/5/0_0?by=area_um2", "cell?x=100&y=100", "density.png"]
                addresses += [f"spread/{name}" for name in ("area_um2", "solidity")]
            for number, address in enumerate(addresses):
                (Path("out") / str(number)).write_bytes(client.get(address).content)
    except WsipipeError as error:
        click.echo(f"wsipipe: error: {error}")
        return error.exit_code
    return 0


def _segment(*more: str) -> Callable[[str], list[str] | int]:
    return lambda p: ["segment", p, *more, "-o", "out/cells.parquet", "--block", "512", *ANYWAY, *NETWORK]


def _slide(kind: str, files: str) -> dict[str, Target]:
    """Return what reads slides."""
    path = (lambda p: "slide.dcm") if kind == "dicom" else (lambda p: p)
    mpp = ["--mpp", "0.5"] if kind == "png" else []
    corpus = ["--image-mpp", "0.5"] if kind == "png" else []
    commands: dict[str, Callable[[str], list[str] | int]] = {
        "info": lambda p: ["info", path(p), *mpp],
        "segment": lambda p: _segment(*mpp)(path(p)),
        "tile": lambda p: ["tile", path(p), "-o", "out/s.zarr", "--shard", "1024", "--workers", "1", *ANYWAY, *mpp],
        "features": lambda p: ["features", path(p), "-o", "out/f.h5", *ANYWAY, *NETWORK, *mpp],
        "build-corpus": lambda p: [
            "build-corpus", path(p), "-o", "out/c.zarr", "--patch", "64", "--threads", "1", "--max-background", "1",
            *corpus,
        ],
        "view": lambda p: look(path(p)),
    }  # fmt: skip
    if kind == "png":
        del commands["view"]
    return {f"{kind} → {name}": Target(kind, files, BYTES, args) for name, args in commands.items()}


def _evaluate(p: str) -> list[str]:
    return ["evaluate", "set", "--mpp", "0.5", "-o", "out", "--resamples", "2", "--pictures", "0", *NETWORK]


TARGETS: dict[str, Target] = {
    **_slide("svs", "slide.svs"), **_slide("ome", "slide.ome.tif"), **_slide("jpeg", "slide.tiff"),
    **_slide("deflate", "slide.tif"), **_slide("dicom", "slide.dcm/*"), **_slide("png", "slide.png"),
    "store → segment": Target(
        "store", "slide.zarr/**/*", STORE, lambda p: _segment()("slide.zarr"), sealed=True, named=False
    ),
    "store → features": Target(
        "store", "slide.zarr/**/*", STORE, lambda p: ["features", "slide.zarr", "-o", "out/f.h5", *NETWORK],
        sealed=True, named=False,
    ),
    "cells → convert": Target("cells", "cells.parquet", CELLS, lambda p: _convert(p), sealed=True),
    "cells → measure": Target(
        "cells", "cells.parquet", CELLS, sealed=True,
        args=lambda p: ["measure", p, "--slide", "slide.tiff", "-o", "out/cells.parquet", "--add", "neighbours,ring"],
    ),
    "cells → classify": Target(
        "cells", "cells.parquet", CELLS, sealed=True,
        args=lambda p: ["classify", p, "--fit", "cells.geojson", "-o", "out/cells.parquet"],
    ),
    "cells → report": Target(
        "cells", "cells.parquet", CELLS, sealed=True,
        args=lambda p: ["report", p, "--slide", "slide.tiff", "-o", "out/cells.html"],
    ),
    "cells → view": Target("cells", "cells.parquet", CELLS, look, sealed=True, named=False),
    "geojson → measure": Target(
        "cells", "cells.geojson", GEOJSON,
        lambda p: ["measure", p, "--slide", "slide.tiff", "-o", "out/cells.parquet"],
    ),
    "labels → classify": Target(
        "cells", "cells.geojson", GEOJSON, lambda p: ["classify", "cells.parquet", "--fit", p, "-o", "out/c.parquet"]
    ),
    "tissue → segment": Target(
        "cells", "tissue.geojson", GEOJSON, lambda p: _segment("--tissue", p)("slide.tiff")
    ),
    "classifier → classify": Target(
        "classifier", "types.json", JSON,
        lambda p: ["classify", "cells.parquet", "--model", p, "-o", "out/c.parquet"],
    ),
    "model → segment": Target(
        "model", "own.safetensors", MODEL, sealed=True,
        args=lambda p: ["segment", "slide.tiff", "-o", "out/cells.parquet", "--model", f"./{p}", *ALWAYS],
    ),
    "model → features": Target(
        "model", "own.safetensors", MODEL, sealed=True,
        args=lambda p: ["features", "slide.tiff", "-o", "out/f.h5", "--model", f"./{p}", *ALWAYS],
    ),
    "model → models show": Target("model", "own.safetensors", MODEL, lambda p: ["models", "show", f"./{p}"]),
    "model → models export": Target(
        "model", "own.safetensors", MODEL, sealed=True,
        args=lambda p: ["models", "export", f"./{p}", "-o", "out/m.safetensors"],
    ),
    "settings → convert": Target(
        "settings", "run.toml", TOML, whole=False,
        args=lambda p: ["convert", "cells.parquet", "-o", "out/c.csv", "--config", p],
    ),
    "settings → segment": Target(
        "settings", "run.toml", TOML, whole=False, args=lambda p: _segment("--config", p)("slide.tiff")
    ),
    "settings → measure": Target(
        "settings", "run.toml", TOML, whole=False,
        args=lambda p: ["measure", "cells.parquet", "--slide", "slide.tiff", "-o", "out/c.parquet", "--config", p],
    ),
    "sheet → segment": Target(
        "sheet", "sheet.csv", CSV, lambda p: ["segment", p, "-o", "out/", "--format", "parquet", *NETWORK], whole=False
    ),
    "sheet → build-corpus": Target(
        "sheet", "sheet.csv", CSV, whole=False,
        args=lambda p: ["build-corpus", p, "-o", "out/c.zarr", "--patch", "64", "--threads", "1"],
    ),
    "png labels → evaluate": Target("png labels", "set/*/*", BYTES, _evaluate, named=False, whole=False),
    "npy labels → evaluate": Target("npy labels", "set/labels/*", BYTES, _evaluate, named=False),
    "mat labels → evaluate": Target("mat labels", "set/Labels/*", BYTES, _evaluate, named=False),
    "coco → evaluate": Target("coco", "set/annotations/*", JSON, _evaluate, named=False),
    "qupath → evaluate": Target("qupath", "set/*.geojson", GEOJSON, _evaluate, named=False),
    "monuseg → evaluate": Target("monuseg", "set/*.xml", TEXT, _evaluate, named=False),
    "pannuke → evaluate": Target("pannuke", "set/*.npy", BYTES, _evaluate, named=False),
}  # fmt: skip


def _convert(p: str) -> list[str]:
    outputs = [f"out/cells.{end}" for end in ("csv", "geojson", "gpkg", "json", "parquet", "h5")]
    return ["convert", p, *(word for out in outputs for word in ("-o", out))]
