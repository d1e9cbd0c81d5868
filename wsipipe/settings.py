"""Every knob of wsipipe: its default, unit, range and help text, written once.

Frozen dataclasses, one per stage. The command line, ``--config run.toml`` and the reference documentation are built
from them. Importing this module loads nothing heavy.

A field made by :func:`~wsipipe.knobs.knob` carries its metadata. ``result=True`` (the default) marks a setting that
determines the bytes of the result and therefore belongs to the fingerprint; blocks, workers and devices do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsipipe.knobs import Checked as _Checked
from wsipipe.knobs import determining as determining
from wsipipe.knobs import knob as knob
from wsipipe.recipes import AugmentSettings as AugmentSettings
from wsipipe.recipes import FitSettings as FitSettings
from wsipipe.recipes import LoopSettings as LoopSettings


@dataclass(frozen=True)
class SlideSettings(_Checked):
    """How a slide file is opened."""

    backend: str = knob(
        "auto",
        "Reader to use; auto tries each in turn.",
        choices=("auto", "openslide", "tiffslide", "cucim", "dicom", "picture"),
        result=False,
    )
    mpp: float | None = knob(None, "Resolution of level 0, in place of what the file says.", unit="µm/px", low=1e-6)
    strict_mpp: bool = knob(False, "Refuse a resolution that is only inferred from the objective power.", result=False)
    force_mpp: bool = knob(False, "Accept a resolution outside 0.05-5 µm/px.", result=False)
    scene: int = knob(0, "Scene of a multi-scene file.", low=0)


@dataclass(frozen=True)
class TissueSettings(_Checked):
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
class GridSettings(_Checked):
    """The global grid of overlapping tiles that the network sees."""

    target_mpp: float | None = knob(
        None, "Working resolution; default: what the model was trained at.", unit="µm/px", low=0.05, high=5
    )
    overlap: int = knob(32, "Overlap of neighbouring 256 px tiles.", unit="px", low=0, high=128)
    allow_upsample: bool = knob(False, "Upsample slides more than 2x coarser than the working resolution.")
    stain: str = knob(
        "auto",
        "Colours the network sees: the slide's own, or those of its training images; auto: as the model asks, and "
        "normalised where the slide's are far from them.",
        choices=("auto", "as-is", "normalised"),
    )


@dataclass(frozen=True)
class CellSettings(_Checked):
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
class ExportSettings(_Checked):
    """How cells are written as GeoJSON."""

    decimals: int = knob(2, "Decimals of exported coordinates.", low=0, high=6)
    points: bool = knob(False, "Export the centroid of each cell in place of its outline.")
    split: int = knob(0, "Objects per GeoJSON file (0: all in one).", low=0)
    unreadable: bool = knob(False, "Add the areas that could not be read, as annotations.")


@dataclass(frozen=True)
class StoreSettings(_Checked):
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
class RunSettings(_Checked):
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
class ClusterSettings(_Checked):
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
class BatchSettings(_Checked):
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


@dataclass(frozen=True)
class PhantomSettings(_Checked):
    """A drawn slide whose nuclei are known."""

    width: int = knob(4096, "Width of level 0.", unit="px", low=64, high=1_000_000)
    height: int = knob(3072, "Height of level 0.", unit="px", low=64, high=1_000_000)
    seed: int = knob(0, "The same seed draws the same slide.", low=0)
    tissue: float = knob(0.5, "Share of the slide that is tissue.", low=0, high=1)
    staining: str = knob("he", "H&E, or haematoxylin and DAB of a nuclear marker.", choices=("he", "hdab"))
    positive: float = knob(0.2, "Share of the nuclei that are brown, with --staining hdab.", low=0, high=1)
    nuclei_per_mm2: float = knob(3000.0, "Nuclei in tissue (crowded ones give way).", unit="/mm²", low=1, high=15_000)
    mpp: float | None = knob(0.25, "Resolution (0: drawn at 0.25, not stated).", unit="µm/px", low=0)
    vendor: str = knob(
        "aperio", "How the file states its resolution: as Aperio does, or by TIFF tags.", choices=("aperio", "generic")
    )
    bounds: tuple[int, int, int, int] | None = knob(
        None, "Scanned area x0,y0,x1,y1 of a larger canvas, whose rest is transparent (a Leica file).", unit="px"
    )
    lossless: bool = knob(False, "Deflate in place of JPEG.")
    quality: int = knob(87, "JPEG quality.", low=1, high=100)
    level_factor: int = knob(4, "Downsample from one level to the next.", low=2, high=4)
    corrupt_tiles: int = knob(0, "Tiles of level 0 whose data are cut short.", low=0)

    @property
    def drawn_mpp(self) -> float:
        """Resolution of the drawing in µm/px."""
        return self.mpp or 0.25


@dataclass(frozen=True)
class MicroarraySettings(_Checked):
    """A drawn tissue microarray (with --tma). The size of the slide follows from it."""

    rows: int = knob(5, "Rows of cores.", low=1, high=40)
    columns: int = knob(7, "Columns of cores.", low=1, high=60)
    core_um: float = knob(600.0, "Diameter of a core.", unit="µm", low=100, high=4000)
    spacing_um: float = knob(900.0, "From the middle of a core to the next.", unit="µm", low=120, high=8000)
    rotation: float = knob(0.0, "The array is turned by this.", unit="degrees", low=-40, high=40)
    bend_um: float = knob(0.0, "Rows sag, and columns lean, by this much.", unit="µm", low=-2000, high=2000)
    jitter_um: float = knob(20.0, "Cores lie off their places by up to this.", unit="µm", low=0, high=1000)
    missing: float = knob(0.0, "Share of the cores that are not there.", low=0, high=0.9)
    fragmented: float = knob(0.0, "Share of the cores that are in pieces, some of which are lost.", low=0, high=1)


@dataclass(frozen=True)
class CorpusSettings(_Checked):
    """Which patches of the slides make the corpus. A patch that a filter refuses is counted, and never kept."""

    mpp: float = knob(0.5, "Resolution of the patches (0: each image's own).", unit="µm/px", low=0, high=5)
    patch: int = knob(512, "Side of a patch.", unit="px", low=32, high=4096)
    cap: int = knob(0, "Most patches per slide, drawn at random (0: all).", low=0)
    max_overlap: float = knob(0.5, "Largest overlap of a patch at the far edge with its neighbour.", low=0, high=0.95)
    max_zoom: float = knob(1.0, "An image too small for a patch is taken this much finer at most.", low=1, high=8)
    allow_upsample: bool = knob(False, "Take images more than 2x coarser than --mpp.")
    max_background: float = knob(0.5, "Largest share of glass in a patch.", low=0, high=1)
    min_focus: float = knob(8.0, "Least sharpness: 99th percentile of the Laplacian.", unit="grey levels", low=0)
    max_pen: float = knob(0.02, "Largest share of pen ink.", low=0, high=1)
    max_folds: float = knob(0.1, "Largest share of folded tissue.", low=0, high=1)
    max_bad_tiles: float = knob(
        0.05, "Leave a slide out when more than this share of its tissue cannot be read.", low=0, high=1
    )
    duplicates: int = knob(8, "Bits of 64 in which near-duplicates' hashes may differ (-1: keep all).", low=-1, high=24)
    val: float = knob(0.1, "Share of the patients in the validation split.", low=0, high=1)
    test: float = knob(0.0, "Share of the patients in the test split.", low=0, high=1)
    seed: int = knob(0, "Seed of the splits, the cap's draw and the contact sheet.", low=0)
    codec: str = knob("webp", "Compression of the patches, all lossless.", choices=("webp", "zstd", "none"))
    shard: int = knob(128, "Patches per file.", low=1, high=4096)
    threads: int = knob(0, "Threads that read (0: one per core).", low=0, high=1024, result=False)


@dataclass(frozen=True)
class PretrainSettings(_Checked):
    """How a backbone is pretrained by masked diffusion. The defaults are the paper's, where it states them."""

    name: str = knob("my-backbone", "Name of the backbone in its card.")
    licence: str = knob("unknown", "Licence of the weights, as the slides demand.")
    size: str = knob("T", "Size of the backbone (the paper's are B and L).", choices=("T", "S", "B", "L"))
    encoder: str = knob(
        "", "Frozen foundation model that conditions the backbone: hf-hub:OWNER/MODEL, or a folder of weights; none."
    )
    split: str = knob("train", "Part of the corpus to train on.", choices=("train", "all"))
    steps: int = knob(50_000, "Optimisation steps.", low=1)
    batch: int = knob(64, "Samples per step, over all processes.", low=1)
    accumulate: int = knob(1, "Forward passes per step and process, for less memory.", low=1, result=False)
    lr: float = knob(3e-5, "Learning rate.", low=1e-8, high=1)
    schedule: str = knob("constant", "Course of the learning rate after warm-up.", choices=("constant", "cosine"))
    warmup: int = knob(0, "Steps of linear warm-up.", low=0)
    weight_decay: float = knob(0.0, "AdamW's weight decay.", low=0, high=1)
    clip: float = knob(0.0, "Largest gradient norm (0: not limited).", low=0)
    ema: float = knob(0.9999, "Limit of the moving average's decay, min(ema, (1 + s) / (10 + s)).", low=0, high=1)
    crop_share: float = knob(0.8, "Share of random crops; the other samples show the whole patch.", low=0, high=1)
    l1: float = knob(1.0, "Weight of the absolute error.", low=0)
    ssim: float = knob(0.0, "Weight of (1 - SSIM) / 2.", low=0)
    seed: int = knob(0, "Seed of weights, order, crops, timesteps and masks.", low=0)
    precision: str = knob(
        "auto", "Arithmetic; auto: bf16 autocast on a GPU, fp32 on a CPU.", choices=("auto", "fp32", "bf16")
    )
    device: str = knob("auto", "auto, cpu, cuda, cuda:1, mps.", result=False)
    compile: str = knob(
        "auto",
        "torch.compile of the blocks; auto: on a GPU, with a C compiler at hand.",
        choices=("auto", "on", "off"),
        result=False,
    )
    checkpoint_activations: bool = knob(
        False, "Recompute the blocks' activations in the backward pass: less memory, more time.", result=False
    )
    workers: int | None = knob(
        None, "Processes that read patches (0: a thread); default: 0 on a CPU, all cores on a GPU.", low=0, result=False
    )
    checkpoint_every: int = knob(500, "Steps between checkpoints.", low=1, result=False)
    picture_every: int = knob(1000, "Steps between pictures of reconstructions.", low=1, result=False)


@dataclass(frozen=True)
class EvaluateSettings(_Checked):
    """How a model is scored."""

    tolerance_px: float = knob(2.0, "Boundary pixels this near agree.", unit="px of the image", low=0, high=50)
    resamples: int = knob(1000, "Bootstrap resamples of the images, for the 95 % intervals.", low=1, high=1_000_000)
    seed: int = knob(0, "Seed of the resamples.", low=0)
    pictures: int = knob(3, "Pictures of that many best and that many worst images.", low=0, high=1000)
