"""The story of ``wsipipe visualize``: places of tissue in, one picture of what the network makes of them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from wsipipe.artifacts import check_writable
from wsipipe.corpus import is_corpus
from wsipipe.corpus.pictures import regions_of_corpus
from wsipipe.errors import ModelError, SettingsError
from wsipipe.figure.panels import Looked, clusters, nucleus, reconstructions, similarity
from wsipipe.figure.places import Places, regions_of_slide
from wsipipe.figure.regions import STEP, Region, joined
from wsipipe.figure.sheet import write_sheet
from wsipipe.infer.dense import DenseBackbone
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.threads import set_threads
from wsipipe.models.zoo import DEFAULT, resolve
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import network_threads
from wsipipe.settings import PANELS, VisualizeSettings
from wsipipe.stain import colours_of, normalise
from wsipipe.units import Pair

MOST = 24
"""Regions in one picture at most."""


@dataclass(frozen=True)
class VisualizeJob:
    """Of what places, by which model, and where to.

    Attributes
    ----------
    points : tuple of (float, float)
        What the others are compared with, in base pixels of each region's source; none: the darkest nucleus.
    """

    places: Places
    output: Path
    model: str = DEFAULT
    encoder: str = ""
    points: tuple[Pair, ...] = ()
    settings: VisualizeSettings = field(default_factory=VisualizeSettings)


@dataclass(frozen=True)
class Visualized:
    """What is in the picture, and its width and height."""

    regions: int
    panels: tuple[str, ...]
    size: tuple[int, int]


@claims(lambda job: (job.output,))
def run_visualize(job: VisualizeJob, progress: Progress) -> Visualized:
    """Write the picture.

    Raises
    ------
    SettingsError
        When a place or point lies outside, or the model needs an encoder.
    ModelError
        When reconstructions are asked for and the model cannot give any.
    SlideError, StoreError, OutputError
    """
    if job.output.suffix.lower() != ".png":
        raise SettingsError(f"--output {job.output}: expected a name that ends in .png")
    check_writable(job.output)
    set_threads(network_threads())
    backbone = DenseBackbone(resolve(job.model), job.settings.device, job.encoder)
    panels = _panels(job, backbone, progress)
    found = regions(job.places, backbone.card.mpp, progress)
    points = _points(job, found)
    progress.start("regions", len(found))
    looked = []
    for region, point in zip(found, points):
        seen = as_network_sees(region, backbone.card, job.places.grid.stain)
        dense = backbone.maps(*seen.tiles(STEP), job.settings.timestep)
        looked.append(Looked(region, point, joined(dense, region.side)))
        progress.advance("regions")
    draw = {"clusters": clusters, "similarity": similarity, "reconstruction": reconstructions}
    sections = [draw[panel](looked, backbone, job.settings) for panel in panels]
    title = f"{backbone.card.name}: dense features of the decoder at t = {job.settings.timestep}"
    size = write_sheet(job.output, title, sections, job.settings.panel)
    return Visualized(len(found), panels, size)


def regions(places: Places, mpp: float, progress: Progress) -> list[Region]:
    """Return the regions to look at, at *mpp* µm/px where no other resolution is asked for.

    Raises
    ------
    SettingsError
        When a place lies outside its slide or corpus, or belongs to no one source.
    SlideError, StoreError
    """
    if (places.at or places.indices) and len(places.sources) > 1:
        option = "--at" if places.at else "--index"
        raise SettingsError(f"{option} names a place in one source, and there are {len(places.sources)}; give one")
    found: list[Region] = []
    for source in places.sources:
        found += (
            regions_of_corpus(source, places)
            if is_corpus(source)
            else regions_of_slide(source, places, mpp, progress.say)
        )
    if len(found) > MOST:
        raise SettingsError(f"{len(found)} regions are too many for one picture; expected {MOST} at most")
    return found


def as_network_sees(region: Region, card: ModelCard, stain: str) -> Region:
    """Return *region* in the colours that the model's card asks for, as when a slide is segmented."""
    colours = colours_of([region.pixels]) if card.colours else None
    return replace(region, window=normalise(region.window, card.change_for(stain, colours)))


def _panels(job: VisualizeJob, backbone: DenseBackbone, progress: Progress) -> tuple[str, ...]:
    """Return the panels to draw; say why one that was not asked for by name is left out."""
    wanted, card = job.settings.shown_panels, backbone.card
    pretrained = "expected a backbone.safetensors as `wsipipe pretrain` writes it"
    if "reconstruction" in wanted and not backbone.reconstructs:
        raise ModelError(f"{job.model} has never learnt to reconstruct: its output layer is zero; {pretrained}")
    if "reconstruction" in wanted and card.kind == "segmenter":
        progress.say(f"warning: {job.model} is a segmenter: where it was trained on, it has unlearnt to reconstruct")
    if wanted:
        return wanted
    if card.kind == "backbone" and backbone.reconstructs:
        return PANELS
    why = "a segmenter" if card.kind == "segmenter" else "a backbone that was never pretrained"
    progress.say(f"reconstructions are left out: {job.model} is {why}; {pretrained}")
    return PANELS[:2]


def _points(job: VisualizeJob, found: Sequence[Region]) -> list[Pair]:
    """Return the point of each region that others are compared with, as shares of its side."""
    if not job.points:
        return [nucleus(region) for region in found]
    if len(job.points) != len(found):
        raise SettingsError(f"--point is given {len(job.points)} times for {len(found)} regions; expected one for each")
    placed = [region.place(point) for region, point in zip(found, job.points)]
    for region, (x, y), shares in zip(found, job.points, placed):
        if not all(0 <= share < 1 for share in shares):
            (x0, y0), (sx, sy) = region.corner_base, region.scale
            inside = f"{x0:.0f},{y0:.0f} to {x0 + region.side * sx:.0f},{y0 + region.side * sy:.0f}"
            raise SettingsError(f"--point {x:g},{y:g} lies outside the region {region.name}, which goes from {inside}")
    return placed
