"""Knobs of a slide's way to cells: opening, tissue, grid, cells, exports, stores, workers, batches."""

from __future__ import annotations

from dataclasses import dataclass

from wsipipe.errors import SettingsError
from wsipipe.settings.knob import Checked, knob
from wsipipe.settings.registry import BACKENDS

SHARPEST = "sharpest"


@dataclass(frozen=True)
class SlideSettings(Checked):
    """How a slide file is opened."""

    backend: str = knob(
        "auto",
        "Reader to use; auto tries each in turn.",
        choices=("auto", *BACKENDS),
        result=False,
    )
    mpp: float | None = knob(None, "Resolution of level 0, in place of what the file says.", unit="µm/px", low=1e-6)
    strict_mpp: bool = knob(False, "Refuse a resolution that is only inferred from the objective power.", result=False)
    force_mpp: bool = knob(False, "Accept a resolution outside 0.05-5 µm/px.", result=False)
    scene: int = knob(0, "Scene of a multi-scene file.", low=0)
    plane: str | None = knob(None, "Focal plane of a stack: its number, from 0, or sharpest.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plane is not None and self.plane != SHARPEST and not (self.plane.isascii() and self.plane.isdecimal()):
            raise SettingsError(f"plane is {self.plane!r}; expected a number, 0 or more, or {SHARPEST}")


@dataclass(frozen=True)
class TissueSettings(Checked):
    """How tissue is told from glass. Areas are in µm²."""

    tissue: str = knob("auto", "auto, none (every pixel), or a GeoJSON file of polygons in level-0 pixels.")
    tissue_mpp: float = knob(8.0, "Resolution at which tissue is looked for.", unit="µm/px", low=1, high=64)
    min_tissue_um2: float = knob(20_000.0, "Tissue pieces smaller than this are dust.", unit="µm²", low=0)
    min_hole_um2: float = knob(5_000.0, "Holes smaller than this are filled.", unit="µm²", low=0)
    margin_um: float = knob(16.0, "Tissue is grown by this much.", unit="µm", low=0, high=1000)
    exclude_quality: str = knob(
        "",
        "Leave faults out of the tissue: all, or some of out-of-focus, pen, fold, bubble, dust; see `wsipipe quality`.",
    )


@dataclass(frozen=True)
class GridSettings(Checked):
    """The global grid of overlapping tiles that the network sees."""

    target_mpp: float | None = knob(
        None, "Working resolution; default: what the model was trained at.", unit="µm/px", low=0.05, high=5
    )
    overlap: int = knob(16, "Overlap of neighbouring 256 px tiles.", unit="px", low=0, high=128)
    allow_upsample: bool = knob(False, "Upsample slides more than 2x coarser than the working resolution.")
    stain: str = knob(
        "auto",
        "Colours the network sees: the slide's own, or those of its training images; auto: as the model asks, and "
        "normalised where the slide's are far from them.",
        choices=("auto", "as-is", "normalised"),
    )


@dataclass(frozen=True)
class CellSettings(Checked):
    """How probability maps become cells."""

    threshold: float | None = knob(
        None, "Foreground probability of a nucleus pixel; default: the model's.", low=0.01, high=0.99
    )
    marker_threshold: float | None = knob(
        None, "Probability of a nucleus core pixel; default: the model's.", low=0.01, high=0.99
    )
    min_area_um2: float | None = knob(None, "Smaller cells are dropped; default: the model's.", unit="µm²", low=0)
    min_probability: float | None = knob(
        None, "Cells with a lower mean probability are dropped; default: the model's.", low=0, high=1
    )
    min_type_probability: float | None = knob(
        None, "Cells whose likeliest type is less probable have no class; default: the model's.", low=0, high=1
    )
    clump_threshold: float | None = knob(
        None,
        "Core probability that parts small nuclei whose cores run together; 0: never; default: the model's.",
        low=0, high=0.99,
    )  # fmt: skip
    drop_oversize: bool = knob(False, "Drop cells cut out of objects larger than any cell: blur, keratin, folds.")
    expand_um: float = knob(
        0.0, "Grow nuclei by this much into cells (objects become cells with a nucleus).", unit="µm", low=0, high=50
    )


@dataclass(frozen=True)
class ExportSettings(Checked):
    """How cells are written as GeoJSON."""

    decimals: int = knob(2, "Decimals of exported coordinates.", low=0, high=6)
    points: bool = knob(False, "Export the centroid of each cell in place of its outline.")
    split: int = knob(0, "Objects per GeoJSON file (0: all in one).", low=0)
    unreadable: bool = knob(False, "Add the areas that could not be read, as annotations.")


@dataclass(frozen=True)
class StoreSettings(Checked):
    """How the tile store keeps pixels. Every codec is lossless: none changes a byte of the result."""

    codec: str = knob("zstd", "Compression of the pixels.", choices=("zstd", "none"), result=False)
    shard: int = knob(
        4096, "Side of a shard, one file each; a multiple of 512.", unit="px", low=512, high=16384, result=False
    )
    reach_um: float = knob(
        192.0,
        "Tiles within this distance of the tissue are stored: what cells at its edge depend on.",
        unit="µm",
        low=0,
        high=2000,
        result=False,
    )


ENGINE_NAMES = "torch", "compile", "openvino"


@dataclass(frozen=True)
class RunSettings(Checked):
    """How the work is cut up and where it runs. Only device, precision, engine and batch can change the result."""

    block: int = knob(3072, "Side of a block of work (working grid).", unit="px", low=256, high=65536, result=False)
    workers: int = knob(1, "Worker processes; above 1 they are scheduled by Dask.", low=1, high=1024, result=False)
    device: str = knob("auto", "auto, cpu, cuda, cuda:1, mps.", result=False)
    precision: str = knob(
        "auto", "Arithmetic of the network; auto: bf16 where it is native, else fp32.", choices=("auto", "fp32", "bf16")
    )
    batch: int = knob(0, "Tiles per forward pass (0: chosen for the device).", low=0, high=4096, result=False)
    engine: str = knob(
        "torch",
        "What computes the network; another one gives slightly other cells. openvino: on a CPU, in fp32.",
        choices=ENGINE_NAMES,
        result=False,
    )
    readers: int = knob(
        0, "Threads that read and decode for each forwarding process (0: 1, for a GPU 4).", low=0, high=64, result=False
    )
    max_bad_tiles: float = knob(
        0.05, "Fail the slide when more than this share of the analysed pixels cannot be read.", low=0, high=1
    )


@dataclass(frozen=True)
class ClusterSettings(Checked):
    """Where processes run. Bytes do not depend on it, as long as all devices are of one kind."""

    devices: str = knob(
        "",
        "One forwarding process on each, as in cuda:0,cuda:1 or cpu,cpu; cells are made by --workers processes beside.",
        result=False,
    )
    scheduler: str = knob(
        "",
        "Address of a running Dask scheduler (tcp://host:8786); its workers must see slides and outputs.",
        result=False,
    )


@dataclass(frozen=True)
class BatchSettings(Checked):
    """Several slides."""

    format: str = knob(
        "parquet,geojson.gz", "Results of each slide: parquet, geojson, csv, ...; png adds an overlay.", result=False
    )
    recursive: bool = knob(True, "Look into the folders of a folder.", result=False)
    root: str = knob(
        "", "Results are named after the slides' paths below this folder; default: their common one.", result=False
    )
    retry_failed: bool = knob(False, "Try slides again that have failed before.", result=False)
    wait: bool = knob(
        False, "At the end, wait for slides that other processes work on, and take over what they leave.", result=False
    )
    stage: str = knob("", "Copy the next slides to this folder on a fast local disk ahead of time.", result=False)
    stage_gb: float = knob(50.0, "At most this much is staged at a time.", unit="GB", low=1e-6, result=False)
    lease_seconds: float = knob(
        120.0,
        "A process on another host that shows no sign of life for this long is given up.",
        unit="s",
        low=1,
        result=False,
    )
