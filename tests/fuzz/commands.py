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
from wsipipe.models import cmd
from wsipipe.models.cmd import CMDConfig

ALWAYS = ("--device", "cpu", "--precision", "fp32", "--batch", "1")
NETWORK = ("--model", "tiny.safetensors", *ALWAYS)
SKETCH = (
    *("-o", "out/p.png", "--model", "tiny.safetensors"),
    *("--device", "cpu", "--panel", "128", "--maps", "64", "--times", "300"),
)
BRIEF = ("--steps", "1", "--batch", "1", "--crop", "64", "--final-share", "0", "--warmup", "1", "--device", "cpu")
SCORED = ("--marker", "ki67", "-o", "out/cells.parquet", "--table", "out/t.csv", "--resamples", "100")
SUMMED = ("-o", "out/t.csv", "--resamples", "100")
CORES = ("-o", "out/cores.geojson", "-o", "out/cores.csv")
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
    spared : tuple of str
        Results that must be those of the intact input whatever becomes of the damaged file.
    """

    kind: str
    files: str
    mutators: Sequence[Mutator]
    args: Callable[[str], list[str] | int]
    sealed: bool = False
    whole: bool = True
    named: bool = True
    spared: tuple[str, ...] = ()

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
                return path, mutate.replace(path, rng) or self.kind != "folder"  # nobody misses what is not there
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

    from wsipipe.segmentation.found_before import open_pair
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
            addresses = ["", "info", "tiles/9/0_0.jpg", "tiles/8/0_0.jpg", f"tiles/{'9' * 400}/0_0.jpg"]
            if index:
                addresses += ["cells/9/0_0", "cells/5/0_0?by=area_um2", "cell?x=100&y=100", "density.png"]
                addresses += [f"cell?x={'9' * 400}&y=1", f"cells/9/{'9' * 400}_0"]
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
        "quality": lambda p: ["quality", path(p), "-o", "out/q.csv", "-o", "out/q.geojson", *mpp],
        "visualize": lambda p: ["visualize", path(p), "--at", "128,100", *SKETCH, *mpp],
    }  # fmt: skip
    if kind == "png":
        del commands["view"]
    return {f"{kind} → {name}": Target(kind, files, BYTES, args) for name, args in commands.items()}


def _fit(*of_set: str) -> Callable[[str], list[str] | int]:
    """Return what fits a small head on the maps of the small model."""
    return lambda p: ["fit", *of_set, "-o", "out/run", "--backbone", "tiny.safetensors", "--head", "light", *BRIEF]


def _sets() -> dict[str, Target]:
    """Return what reads annotated sets."""
    forms = {
        "png labels": ("set/*/*", BYTES, False), "npy labels": ("set/labels/*", BYTES, True),
        "mat labels": ("set/Labels/*", BYTES, True), "coco": ("set/annotations/*", JSON, True),
        "qupath": ("set/*.geojson", GEOJSON, True), "monuseg": ("set/*.xml", TEXT, True),
        "pannuke": ("set/*.npy", BYTES, True),
    }  # fmt: skip
    commands: dict[str, Callable[[str], list[str] | int]] = {"evaluate": _evaluate, "fit": _fit("set", "--mpp", "0.5")}
    return {
        f"{form} → {name}": Target(form, files, mutators, args, named=False, whole=whole)
        for form, (files, mutators, whole) in forms.items()
        for name, args in commands.items()
    }


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
    "folder → segment": Target(
        "folder", "slides/a.tiff", BYTES, whole=False, spared=("b.parquet",),
        args=lambda p: ["segment", "slides", "-o", "out/", "--format", "parquet", *ANYWAY, *NETWORK],
    ),
    "sheet → segment": Target(
        "sheet", "sheet.csv", CSV, lambda p: ["segment", p, "-o", "out/", "--format", "parquet", *NETWORK], whole=False
    ),
    "sheet → build-corpus": Target(
        "sheet", "sheet.csv", CSV, whole=False,
        args=lambda p: ["build-corpus", p, "-o", "out/c.zarr", "--patch", "64", "--threads", "1"],
    ),
    **_sets(),
    "model → evaluate": Target(
        "png labels", "tiny.safetensors", MODEL, lambda p: _evaluate(p), sealed=True, named=False
    ),
    "model → fit": Target(
        "png labels", "tiny.safetensors", MODEL, _fit("set", "--mpp", "0.5"), sealed=True, named=False
    ),
    "split → fit": Target("split", "split.json", JSON, lambda p: _fit("set", "--mpp", "0.5", "--split", p)(p)),
    "settings → fit": Target(
        "settings", "run.toml", TOML, lambda p: ["fit", "--config", p, "-o", "out/run", *BRIEF[-2:]], whole=False
    ),
    "settings → evaluate": Target(
        "settings", "run.toml", TOML, lambda p: [*_evaluate(p), "--config", p], whole=False
    ),
    "settings → features": Target(
        "settings", "run.toml", TOML, whole=False,
        args=lambda p: ["features", "slide.tiff", "-o", "out/f.h5", "--config", p, *NETWORK],
    ),
    "settings → summarise": Target(
        "settings", "run.toml", TOML, whole=False,
        args=lambda p: ["summarise", "cells.parquet", "--regions", "regions.geojson", "-o", "out/c.csv", "--config", p],
    ),
    "settings → visualize": Target(
        "settings", "run.toml", TOML, whole=False,
        args=lambda p: ["visualize", "slide.tiff", "--at", "128,100", *SKETCH[:4], "--config", p],
    ),
    "model → visualize": Target(
        "model", "own.safetensors", MODEL, sealed=True,
        args=lambda p: ["visualize", "slide.tiff", "--at", "128,100", *SKETCH, "--model", f"./{p}"],
    ),
    "corpus → visualize": Target(
        "corpus", "corpus.zarr/**/*", STORE, named=False, whole=False,
        args=lambda p: ["visualize", "corpus.zarr", "--index", "0", *SKETCH, "--model", "backbone.safetensors"],
    ),
    "corpus → pretrain": Target("corpus", "corpus.zarr/**/*", STORE, lambda p: _pretrain(p), named=False, whole=False),
    "stained → score": Target(
        "stained", "cells.parquet", CELLS, sealed=True,
        args=lambda p: ["score", p, *SCORED, "--regions", "regions.geojson"],
    ),
    "regions → score": Target(
        "stained", "regions.geojson", GEOJSON, lambda p: ["score", "cells.parquet", *SCORED, "--regions", p]
    ),
    "slide → score": Target(
        "stained", "slide.tiff", BYTES, lambda p: ["score", "cells.parquet", *SCORED, "--slide", p], whole=False
    ),
    "stains → measure": Target(
        "stained", "stains.json", JSON,
        lambda p: ["measure", "plain.parquet", "--slide", "slide.tiff", "-o", "out/c.parquet", "--add", "stains",
                   "--stain-vectors", f"./{p}"],
    ),
    "cells → summarise": Target(
        "cells", "cells.parquet", CELLS, sealed=True, args=lambda p: ["summarise", p, *SUMMED, "--hot-spots", "1"],
    ),
    "results → summarise": Target(
        "cells", "batch/slide.parquet", CELLS, sealed=True, named=False,
        args=lambda p: ["summarise", "batch", *SUMMED, "--sheet", "cohort.csv"],
    ),
    "results → report": Target(
        "cells", "batch/slide.parquet", CELLS, lambda p: _folder_report("batch"), sealed=True, named=False
    ),
    "regions → summarise": Target(
        "cells", "regions.geojson", GEOJSON, lambda p: ["summarise", "cells.parquet", *SUMMED, "--regions", p]
    ),
    "sheet → summarise": Target(
        "cells", "cohort.csv", CSV, lambda p: ["summarise", "batch", *SUMMED, "--sheet", p], whole=False
    ),
    "cells → quality": Target(
        "cells", "cells.parquet", CELLS, sealed=True,
        args=lambda p: ["quality", "slide.tiff", "--cells", p, "-o", "out/q.csv"],
    ),
    "slide → measure": Target(
        "cells", "slide.tiff", BYTES, whole=False,
        args=lambda p: ["measure", "cells.geojson", "--slide", p, "-o", "out/cells.parquet", "--add", "texture,ring"],
    ),
    "slide → report": Target(
        "cells", "slide.tiff", BYTES, whole=False,
        args=lambda p: ["report", "cells.parquet", "--slide", p, "-o", "out/cells.html", "--quality"],
    ),
    "typed → classify": Target(
        "cells", "batch/slide.parquet", CELLS, sealed=True, named=False,
        args=lambda p: ["classify", "cells.parquet", "--fit", p, "-o", "out/c.parquet"],
    ),
    "array → tma": Target("tma", "slide.tiff", BYTES, lambda p: ["tma", p, *CORES]),
    "names → tma": Target("tma", "names.csv", CSV, lambda p: ["tma", "slide.tiff", *CORES, "--names", p], whole=False),
    "cores → tma": Target("tma", "cores.geojson", GEOJSON, lambda p: ["tma", "slide.tiff", *CORES, "--names", p]),
}  # fmt: skip


def _pretrain(p: str) -> list[str] | int:
    """Train the smallest backbone for one step."""
    cmd.SIZES["T"] = lambda condition=0: CMDConfig((4, 4, 4, 8, 8, 16), condition)
    return [
        "pretrain",
        "corpus.zarr",
        "-o",
        "out/run",
        "--steps",
        "1",
        "--batch",
        "1",
        "--split",
        "all",
        "--device",
        "cpu",
    ]


def _folder_report(folder: str) -> int:
    """Report on a folder, and move the pages to where results are looked for."""
    code = main(["report", folder])
    for page in sorted(Path(folder).glob("*.html")):
        page.rename(Path("out") / page.name)
    return code


def _convert(p: str) -> list[str]:
    outputs = [f"out/cells.{end}" for end in ("csv", "geojson", "gpkg", "json", "parquet", "h5")]
    return ["convert", p, *(word for out in outputs for word in ("-o", out))]
