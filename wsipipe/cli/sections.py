"""Which settings a ``run.toml`` may hold, section by section."""

from __future__ import annotations

from typing import Any

from wsipipe.cell_settings import (
    ClassifySettings,
    FeatureSettings,
    HotSpotSettings,
    MeasureSettings,
    ScoreSettings,
    StainSettings,
    SubsetSettings,
    SummariseSettings,
    VisualizeSettings,
    ZarrSettings,
)
from wsipipe.settings import (
    AugmentSettings,
    BatchSettings,
    CellSettings,
    ClusterSettings,
    CorpusSettings,
    EvaluateSettings,
    ExportSettings,
    FitSettings,
    GridSettings,
    LoopSettings,
    PretrainSettings,
    RunSettings,
    SlideSettings,
    StoreSettings,
    TissueSettings,
)

SECTIONS: dict[str, type[Any]] = {
    "slide": SlideSettings,
    "tissue": TissueSettings,
    "grid": GridSettings,
    "cells": CellSettings,
    "run": RunSettings,
    "cluster": ClusterSettings,
    "batch": BatchSettings,
    "store": StoreSettings,
    "export": ExportSettings,
    "subset": SubsetSettings,
    "zarr": ZarrSettings,
    "features": FeatureSettings,
    "measure": MeasureSettings,
    "stain": StainSettings,
    "classify": ClassifySettings,
    "score": ScoreSettings,
    "summarise": SummariseSettings,
    "hot-spots": HotSpotSettings,
    "visualize": VisualizeSettings,
    "evaluate": EvaluateSettings,
    "corpus": CorpusSettings,
    "pretrain": PretrainSettings,
    "fit": FitSettings,
    "loop": LoopSettings,
    "augment": AugmentSettings,
}
"""Section of ``run.toml`` for each settings class."""
