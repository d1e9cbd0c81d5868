"""Which settings a ``run.toml`` may hold, section by section."""

from __future__ import annotations

from typing import Any

from wsipipe.settings import (
    AugmentSettings,
    BatchSettings,
    CellSettings,
    ClassifySettings,
    ClusterSettings,
    CorpusSettings,
    EvaluateSettings,
    ExportSettings,
    FeatureSettings,
    FitSettings,
    GridSettings,
    HotSpotSettings,
    LoopSettings,
    MeasureSettings,
    PretrainSettings,
    RunSettings,
    ScoreSettings,
    SlideSettings,
    StainSettings,
    StoreSettings,
    SubsetSettings,
    SummariseSettings,
    TissueSettings,
    TypeSettings,
    VisualizeSettings,
    ZarrSettings,
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
    "types": TypeSettings,
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
