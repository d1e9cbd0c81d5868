"""Knobs of what is done with cells that have been found, and of features: exports, measurements, types, pictures.

As :mod:`wsipipe.settings`, of which this is the part after segmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsipipe.errors import SettingsError
from wsipipe.settings.knob import Checked, knob


@dataclass(frozen=True)
class SubsetSettings(Checked):
    """Which cells are taken."""

    bounds: tuple[int, int, int, int] | None = knob(
        None, "Only cells with their centroid in this box of level-0 pixels.", unit="px"
    )
    classes: str = knob("", "Only cells of these classes, separated by commas.")
    min_probability: float = knob(0.0, "Only cells with at least this probability.", low=0, high=1)
    drop_oversize: bool = knob(False, "No cells that were cut out of objects larger than any cell.")
    where: str = knob("", 'Only cells that meet conditions such as "area_um2>=20, probability>=0.8, oversize=no".')

    @property
    def everything(self) -> bool:
        """Whether no cell is left out."""
        return self == SubsetSettings()


@dataclass(frozen=True)
class ZarrSettings(Checked):
    """Pixels beside the cells: label images, pictures of the slide, patches."""

    label_mpp: float | None = knob(
        None, "Resolution of label images and pictures; default: where the cells were found.", unit="µm/px",
        low=0.05, high=64,
    )  # fmt: skip
    nuclei: bool = knob(False, "Label images of expanded cells show the nuclei.")
    shard: int = knob(4096, "Side of a shard, one file each; a multiple of 512.", unit="px", low=512, high=16384)
    patch: int = knob(64, "Side of the patch around each cell in .h5 (working grid).", unit="px", low=8, high=4096)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard % 512:
            raise SettingsError(f"shard is {self.shard}; expected a multiple of 512 px")


@dataclass(frozen=True)
class FeatureSettings(Checked):
    """Which features of the network are kept for a tile."""

    pool: str = knob(
        "decoder",
        "Mean over the tile of the decoder's maps that heads use, of the bottleneck, or of both.",
        choices=("decoder", "bottleneck", "both"),
    )
    overlap: int = knob(0, "Overlap of neighbouring 256 px tiles.", unit="px", low=0, high=128)
    min_tissue: float = knob(0.25, "Least share of tissue in a tile.", low=0, high=1)
    encoder: str = knob(
        "",
        "Foundation model whose features are wanted, or, with --model, that a backbone was pretrained with: a name "
        "of `wsipipe models encoders`, NAME=FOLDER, hf-hub:OWNER/MODEL, or a folder of weights.",
        result=False,  # its weights count, not their place
    )


@dataclass(frozen=True)
class StainSettings(Checked):
    """How stains are told apart."""

    stain_vectors: str = knob(
        "auto",
        "he, hdab, estimate (from the slide itself), or a file of QuPath's stain vectors; auto: H&E or H-DAB, by the "
        "slide's colours.",
    )


EXTRAS = ("texture", "neighbours", "ring", "stains", "quality")
"""What :attr:`MeasureSettings.add` may name."""


@dataclass(frozen=True)
class MeasureSettings(Checked):
    """What is measured of every cell."""

    add: str = knob("", "More to measure, separated by commas: texture, neighbours, ring, stains, quality.")
    neighbours_um: float = knob(50.0, "Radius within which neighbours are counted.", unit="µm", low=1, high=1000)
    ring_um: float = knob(3.0, "Width of the ring around a nucleus.", unit="µm", low=0.5, high=20)
    grey_levels: int = knob(16, "Grey levels of the texture's haematoxylin image.", low=4, high=64)
    measure_mpp: float | None = knob(
        None, "Resolution of the pixels; default: where the cells were found, 0.5 for imported ones.", unit="µm/px",
        low=0.05, high=5,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.added:
            if name not in EXTRAS:
                raise SettingsError(f"--add: no measurement {name!r}; expected some of {', '.join(EXTRAS)}")

    @property
    def added(self) -> tuple[str, ...]:
        """What is measured beside the standard."""
        return tuple(name.strip() for name in self.add.split(",") if name.strip())


@dataclass(frozen=True)
class ClassifySettings(Checked):
    """How a classifier of cells is fitted."""

    columns: str = knob("", "Measurements to use, separated by commas; default: all that are comparable.")
    l2: float = knob(1.0, "Strength of the penalty on weights (ridge).", low=0, high=1e6)
    folds: int = knob(5, "Folds of the cross-validation, over slides or over parts of one.", low=2, high=50)
    region_um: float = knob(
        250.0, "Labelled cells nearer to each other than this belong to one region, in one fold.", unit="µm", low=1
    )
    ask: int = knob(40, "Cells to ask for, of all slides together, with --questions.", low=1, high=5000, result=False)


@dataclass(frozen=True)
class TypeSettings(Checked):
    """Types of cells by a classifier."""

    types: str = knob(
        "", "Give cells the types of this classifier (`wsipipe classify --save`), in place of the model's own."
    )


@dataclass(frozen=True)
class ScoreSettings(Checked):
    """How stained cells are told from others."""

    marker: str = knob("ki67", "ki67, er, pr, p53, or another name (with --compartment).")
    compartment: str = knob(
        "auto", "Where the marker lies; auto: as the marker says.", choices=("auto", "nucleus", "cytoplasm", "cell")
    )
    intensity_thresholds: str = knob(
        "auto",
        "Optical densities: one (negative, positive), or three (0, 1+, 2+, 3+) as in 0.2,0.4,0.6; suggested: by the "
        "cells' own histogram; auto: 0.2 for ki67, else 0.2,0.4,0.6.",
    )
    statistic: str = knob("mean", "What of the compartment's pixels is compared.", choices=("mean", "max"))
    stain: str = knob("dab", "Stain of the marker, as columns name it.")

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds that are given as numbers; none where they are auto or suggested."""
        if self.intensity_thresholds in ("auto", "suggested"):
            return ()
        try:
            found = tuple(float(word) for word in self.intensity_thresholds.split(","))
        except ValueError:
            found = ()
        if len(found) not in (1, 3) or not all(0 < a < b for a, b in zip(found, (*found[1:], 10.0))):
            raise SettingsError(
                f"intensity_thresholds is {self.intensity_thresholds!r}; expected one number or three that rise, in "
                "optical densities, as in 0.2 or 0.2,0.4,0.6; or suggested"
            )
        return found

    def __post_init__(self) -> None:
        super().__post_init__()
        self.thresholds  # noqa: B018


@dataclass(frozen=True)
class HotSpotSettings(Checked):
    """Squares with the most cells, as regions of their own."""

    hot_spots: int = knob(
        0, "Number of hot spots to find: disjoint squares, the best anywhere on the slide.", low=0, high=100
    )
    hot_spot_area: float = knob(
        0.0, "Area of each (0: the smallest that holds 500 cells).", unit="mm²", low=0, high=400
    )
    by: str = knob(
        "density",
        "The best have the most cells, or the highest share of positive ones (among squares with 500 scored cells).",
        choices=("density", "positive"),
    )


@dataclass(frozen=True)
class SummariseSettings(Checked):
    """How the numbers of regions are told."""

    resamples: int = knob(
        1000, "Bootstrap resamples of the 0.25 mm² fields, for the 95 % intervals.", low=100, high=100_000
    )
    seed: int = knob(0, "Seed of the resamples.", low=0)


PANELS = ("clusters", "similarity", "reconstruction")
"""What :attr:`VisualizeSettings.panels` may name."""
MAPS = ("16", "32", "64", "128", "256", "all")
"""What :attr:`VisualizeSettings.maps` may name: maps by their side in a tile of 256 px, or all as one."""


@dataclass(frozen=True)
class VisualizeSettings(Checked):
    """What is drawn of a network's features."""

    panels: str = knob(
        "auto",
        "clusters, similarity, reconstruction, separated by commas; auto: all that the model has.",
    )
    clusters: int = knob(4, "K of K-means.", low=2, high=8)
    joint: bool = knob(False, "Cluster all regions together, in place of each by itself: for regions of one stain.")
    maps: str = knob(
        "32,64,128,256,all", "Maps to show: by their side in a tile of 256 px (16 to 256), or all taken as one."
    )
    times: str = knob(
        "100,300,500,700,900", "Timesteps of reconstructions; t hides about t thousandths of the picture."
    )
    timestep: int = knob(50, "Timestep that features are taken at.", low=1, high=1000)
    size: int = knob(
        256, "Side of a region at the working resolution; a multiple of 256.", unit="px", low=256, high=1024
    )
    panel: int = knob(256, "Side of a picture in the PNG.", unit="px", low=128, high=1024)
    seed: int = knob(0, "Seed of K-means.", low=0)
    device: str = knob("auto", "auto, cpu, cuda, cuda:1, mps.", result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 256:
            raise SettingsError(f"size is {self.size}; expected 256, 512, 768 or 1024 px")
        _each("panels", self.panels, (*PANELS, "auto"))
        _each("maps", self.maps, MAPS)
        self.shown_times  # noqa: B018

    @property
    def shown_maps(self) -> tuple[str, ...]:
        """Names of the maps, in the order asked for."""
        return _each("maps", self.maps, MAPS)

    @property
    def shown_panels(self) -> tuple[str, ...]:
        """Names of the panels asked for; empty: all that the model has."""
        named = _each("panels", self.panels, (*PANELS, "auto"))
        return () if "auto" in named else named

    @property
    def shown_times(self) -> tuple[int, ...]:
        """Timesteps of the reconstructions."""
        words = [word.strip() for word in self.times.split(",") if word.strip()]
        if not words or not all(word.isdecimal() and 1 <= int(word) <= 1000 for word in words):
            raise SettingsError(f"times are {self.times!r}; expected whole numbers from 1 to 1000, as in 100,500,900")
        return tuple(int(word) for word in words)


def _each(name: str, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words of a list separated by commas, each once, of those *known*."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for word in words or ("",):
        if word not in known:
            raise SettingsError(f"{name}: no {word!r}; expected some of {', '.join(known)}")
    return words
