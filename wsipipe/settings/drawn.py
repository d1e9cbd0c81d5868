"""Knobs of slides that are drawn, with their truth."""

from __future__ import annotations

from dataclasses import dataclass

from wsipipe.settings.knob import Checked, knob


@dataclass(frozen=True)
class PhantomSettings(Checked):
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
class MicroarraySettings(Checked):
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
