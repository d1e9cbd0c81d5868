"""Every knob of wsipipe: its default, unit, range and help text, written once.

Frozen dataclasses, one per stage. The command line, ``--config run.toml`` and the reference documentation are built
from them. Importing this module loads nothing heavy.

A field made by :func:`knob` carries its metadata. ``result=True`` (the default) marks a setting that determines the
bytes of the result and therefore belongs to the fingerprint; blocks, workers and devices do not.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from wsipipe.errors import SettingsError


def knob(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    result: bool = True,
) -> Any:
    """Return a dataclass field with its default, help, unit and inclusive range in the metadata."""
    metadata = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices, "result": result}
    return dataclasses.field(default=default, metadata=metadata)


def check(settings: Any) -> None:
    """Raise :class:`~wsipipe.errors.SettingsError` when a field of *settings* is outside its range."""
    for field in dataclasses.fields(settings):
        value, meta = getattr(settings, field.name), field.metadata
        low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
        if value is None:
            continue
        if choices and value not in choices:
            raise SettingsError(f"{field.name} is {value!r}; expected one of {', '.join(choices)}")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            expected = f"at most {high}" if low is None else f"at least {low}" if high is None else f"{low} to {high}"
            raise SettingsError(f"{field.name} is {value}; expected {expected} {meta.get('unit', '')}".rstrip())


def determining(settings: Any) -> dict[str, Any]:
    """Return the fields of *settings* that determine the result, for fingerprints and file metadata."""
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.metadata.get("result", True)}


class _Checked:
    """Mixin: a settings object checks its ranges when it is made."""

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class SlideSettings(_Checked):
    """How a slide file is opened."""

    backend: str = knob(
        "auto",
        "Reader to use; auto tries each in turn.",
        choices=("auto", "openslide", "tiffslide", "cucim", "dicom", "picture"),
        result=False,
    )
    mpp: float | None = knob(None, "Resolution of level 0, in place of what the file says.", unit="um/px", low=1e-6)
    strict_mpp: bool = knob(False, "Refuse a resolution that is only inferred from the objective power.", result=False)
    force_mpp: bool = knob(False, "Accept a resolution outside 0.05-5 um/px.", result=False)
    scene: int = knob(0, "Scene of a multi-scene file.", low=0)


@dataclass(frozen=True)
class TissueSettings(_Checked):
    """How tissue is told from glass. Areas are in um²."""

    tissue: str = knob("auto", "auto, none (every pixel), or a GeoJSON file of polygons in level-0 pixels.")
    tissue_mpp: float = knob(8.0, "Resolution at which tissue is looked for.", unit="um/px", low=1, high=64)
    min_tissue_um2: float = knob(20_000.0, "Tissue pieces smaller than this are dust.", unit="um2", low=0)
    min_hole_um2: float = knob(5_000.0, "Holes smaller than this are filled.", unit="um2", low=0)
    margin_um: float = knob(16.0, "Tissue is grown by this much.", unit="um", low=0, high=1000)


@dataclass(frozen=True)
class GridSettings(_Checked):
    """The global grid of overlapping tiles that the network sees."""

    target_mpp: float | None = knob(
        None, "Working resolution; default: what the model was trained at.", unit="um/px", low=0.05, high=5
    )
    overlap: int = knob(64, "Overlap of neighbouring 256 px tiles.", unit="px", low=0, high=128)
    allow_upsample: bool = knob(False, "Upsample slides more than 2x coarser than the working resolution.")


@dataclass(frozen=True)
class CellSettings(_Checked):
    """How probability maps become cells."""

    threshold: float | None = knob(
        None, "Foreground probability of a nucleus pixel; default: the model's.", low=0.01, high=0.99
    )
    marker_threshold: float | None = knob(
        None, "Probability of a nucleus core pixel; default: the model's.", low=0.01, high=0.99
    )
    min_area_um2: float | None = knob(None, "Smaller cells are dropped; default: the model's.", unit="um2", low=0)
    min_probability: float = knob(0.0, "Cells with a lower mean probability are dropped.", low=0, high=1)
    expand_um: float = knob(
        0.0, "Grow nuclei by this much into cells (objects become cells with a nucleus).", unit="um", low=0, high=50
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
        unit="um",
        low=0,
        high=2000,
        result=False,
    )


@dataclass(frozen=True)
class RunSettings(_Checked):
    """How the work is cut up and where it runs. Only device, precision and batch can change the result."""

    block: int = knob(3072, "Side of a block of work (working grid).", unit="px", low=256, high=65536, result=False)
    workers: int = knob(1, "Worker processes; above 1 they are scheduled by Dask.", low=1, high=1024, result=False)
    device: str = knob("auto", "auto, cpu, cuda, cuda:1, mps.", result=False)
    precision: str = knob(
        "auto", "Arithmetic of the network; auto: bf16 where it is native, else fp32.", choices=("auto", "fp32", "bf16")
    )
    batch: int = knob(0, "Tiles per forward pass (0: chosen for the device).", low=0, high=4096, result=False)
    max_bad_tiles: float = knob(
        0.05, "Fail the slide when more than this share of the analysed pixels cannot be read.", low=0, high=1
    )


@dataclass(frozen=True)
class PhantomSettings(_Checked):
    """A drawn slide whose nuclei are known."""

    width: int = knob(4096, "Width of level 0.", unit="px", low=64, high=1_000_000)
    height: int = knob(3072, "Height of level 0.", unit="px", low=64, high=1_000_000)
    seed: int = knob(0, "The same seed draws the same slide.", low=0)
    tissue: float = knob(0.5, "Share of the slide that is tissue.", low=0, high=1)
    nuclei_per_mm2: float = knob(3000.0, "Nuclei in tissue (crowded ones give way).", unit="/mm2", low=1, high=15_000)
    mpp: float | None = knob(0.25, "Resolution (0: drawn at 0.25, not stated).", unit="um/px", low=0)
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
        """Resolution of the drawing in um/px."""
        return self.mpp or 0.25


@dataclass(frozen=True)
class AugmentSettings(_Checked):
    """How far augmentation goes."""

    scale_low: float = knob(0.75, "Smallest magnification of a sample.", low=0.2, high=1)
    scale_high: float = knob(1.35, "Largest magnification of a sample.", low=1, high=5)
    stain: float = knob(0.20, "Spread of the stain's strength (HED space).", low=0, high=1)
    brightness: float = knob(0.12, "Spread of brightness and contrast.", low=0, high=1)
    blur: float = knob(1.2, "Largest Gaussian blur.", unit="px", low=0, high=10)
    jpeg: float = knob(0.3, "Share of samples that are JPEG-compressed.", low=0, high=1)


@dataclass(frozen=True)
class LoopSettings(_Checked):
    """How weights are optimised."""

    steps: int = knob(1500, "Optimisation steps.", low=1)
    lr: float = knob(1e-3, "Peak learning rate.", low=1e-8, high=1)
    weight_decay: float = knob(0.01, "AdamW's weight decay.", low=0, high=1)
    warmup: int = knob(50, "Steps of linear warm-up.", low=0)
    ema: float = knob(0.999, "Limit of the moving average's decay, min(ema, (1 + s) / (10 + s)).", low=0, high=1)
    clip: float = knob(1.0, "Largest gradient norm.", low=0)
    checkpoint_every: int = knob(100, "Steps between checkpoints.", low=1, result=False)


@dataclass(frozen=True)
class FitSettings(_Checked):
    """What is fitted, on what samples."""

    name: str = knob("my-model", "Name of the model in its card and in results.")
    licence: str = knob("unknown", "Licence of the weights, as the training data demand.")
    head: str = knob("cisca", "Head.", choices=("linear", "light", "sota", "cisca"))
    backbone: str = knob("T", "Backbone: T, S, B or L from random weights, or a checkpoint file.")
    unfreeze: bool = knob(False, "Train the backbone too (always so from random weights).")
    working_mpp: float = knob(0.5, "Resolution the model works at.", unit="um/px", low=0.05, high=5)
    batch: int = knob(8, "Crops per step.", low=1)
    crop: int = knob(160, "Side of the training crops.", unit="px", low=64, high=512)
    final_share: float = knob(0.15, "Share of the steps, at the end, on 256 px crops.", low=0, high=1)
    seed: int = knob(0, "Seed of weights, order and augmentation.")
    loop: LoopSettings = dataclasses.field(default_factory=LoopSettings)
    augment: AugmentSettings = dataclasses.field(default_factory=AugmentSettings)


@dataclass(frozen=True)
class EvaluateSettings(_Checked):
    """How a model is scored."""

    tolerance_px: float = knob(2.0, "Boundary pixels this near agree.", unit="px of the image", low=0, high=50)
    resamples: int = knob(1000, "Bootstrap resamples of the images, for the 95 % intervals.", low=1, high=1_000_000)
    seed: int = knob(0, "Seed of the resamples.", low=0)
    pictures: int = knob(3, "Pictures of that many best and that many worst images.", low=0, high=1000)
