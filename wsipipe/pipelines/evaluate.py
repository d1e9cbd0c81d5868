"""The story of `wsipipe evaluate`: annotated images in, honest numbers and pictures out."""

from __future__ import annotations

from wsipipe.pipelines.image import ImageMaps, instances_of, maps_of, maps_of_all
from wsipipe.pipelines.tune import Trial, tune

__all__ = ["ImageMaps", "Trial", "instances_of", "maps_of", "maps_of_all", "tune"]
