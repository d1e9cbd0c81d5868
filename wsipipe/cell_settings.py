"""Knobs of what is done with cells that have been found: exports, features, measurements, classification.

As :mod:`wsipipe.settings`, of which this is the part after segmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsipipe.errors import SettingsError
from wsipipe.knobs import Checked, knob


@dataclass(frozen=True)
class SubsetSettings(Checked):
    """Which cells are taken."""

    bounds: tuple[int, int, int, int] | None = knob(
        None, "Only cells with their centroid in this box of level-0 pixels.", unit="px"
    )
    classes: str = knob("", "Only cells of these classes, separated by commas.")
    min_probability: float = knob(0.0, "Only cells with at least this probability.", low=0, high=1)

    @property
    def everything(self) -> bool:
        """Whether no cell is left out."""
        return self == SubsetSettings()


@dataclass(frozen=True)
class ZarrSettings(Checked):
    """Pixels beside the cells: label images, pictures of the slide, patches."""

    label_mpp: float | None = knob(
        None, "Resolution of label images and pictures; default: where the cells were found.", unit="um/px",
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


EXTRAS = ("texture", "neighbours", "ring")
"""What :attr:`MeasureSettings.add` may name."""


@dataclass(frozen=True)
class MeasureSettings(Checked):
    """What is measured of every cell."""

    add: str = knob("", "More to measure, separated by commas: texture, neighbours, ring.")
    neighbours_um: float = knob(50.0, "Radius within which neighbours are counted.", unit="um", low=1, high=1000)
    ring_um: float = knob(3.0, "Width of the ring around a nucleus.", unit="um", low=0.5, high=20)
    grey_levels: int = knob(16, "Grey levels of the texture's haematoxylin image.", low=4, high=64)
    measure_mpp: float | None = knob(
        None, "Resolution of the pixels; default: where the cells were found, 0.5 for imported ones.", unit="um/px",
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
        250.0, "Labelled cells nearer to each other than this belong to one region, in one fold.", unit="um", low=1
    )
