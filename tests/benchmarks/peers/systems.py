"""The systems that are measured: what each needs installed, and which program runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OWN = Path(__file__).parent / "own"
"""Programs that run inside the environments; they import nothing of wsipipe, which imports nothing of theirs."""


@dataclass(frozen=True)
class System:
    """Another way to find nuclei.

    Attributes
    ----------
    name : str
    packages : tuple of str
        What pip installs into its environment.
    mpp : float
        Resolution that its published model for H&E was trained at, in µm/px; the picture is resampled to it.
    megapixels : float
        Of the picture as it sees it; a larger one is cropped, lest a large network take hours.
    """

    name: str
    packages: tuple[str, ...]
    mpp: float
    megapixels: float = 1000.0

    @property
    def program(self) -> Path:
        """The file that runs it."""
        return OWN / f"{self.name}.py"


SYSTEMS = (
    System("classical", ("scikit-image==0.26.0",), 0.5),
    System("stardist", ("stardist==0.9.2", "tensorflow-cpu==2.21.0", "tf-keras"), 0.25),
    System("instanseg", ("instanseg-torch==0.1.2", "torch==2.13.0"), 0.5),
    System("cellpose", ("cellpose==4.2.1.1", "torch==2.13.0"), 0.25, megapixels=0.6),
)
