"""Every knob of wsipipe: its default, unit, range and help text, written once.

Frozen dataclasses, one per stage. The command line, ``--config run.toml`` and the reference documentation are built
from them. Importing this package loads nothing heavy.

A field made by :func:`~wsipipe.settings.knob.knob` carries its metadata. ``result=True`` (the default) marks a setting
that determines the bytes of the result and therefore belongs to the fingerprint; blocks, workers and devices do not.
"""

from wsipipe.settings.cells import (
    EXTRAS as EXTRAS,
)
from wsipipe.settings.cells import (
    MAPS as MAPS,
)
from wsipipe.settings.cells import (
    PANELS as PANELS,
)
from wsipipe.settings.cells import (
    ClassifySettings as ClassifySettings,
)
from wsipipe.settings.cells import (
    FeatureSettings as FeatureSettings,
)
from wsipipe.settings.cells import (
    HotSpotSettings as HotSpotSettings,
)
from wsipipe.settings.cells import (
    MeasureSettings as MeasureSettings,
)
from wsipipe.settings.cells import (
    ScoreSettings as ScoreSettings,
)
from wsipipe.settings.cells import (
    StainSettings as StainSettings,
)
from wsipipe.settings.cells import (
    SubsetSettings as SubsetSettings,
)
from wsipipe.settings.cells import (
    SummariseSettings as SummariseSettings,
)
from wsipipe.settings.cells import (
    TypeSettings as TypeSettings,
)
from wsipipe.settings.cells import (
    VisualizeSettings as VisualizeSettings,
)
from wsipipe.settings.cells import (
    ZarrSettings as ZarrSettings,
)
from wsipipe.settings.drawn import (
    MicroarraySettings as MicroarraySettings,
)
from wsipipe.settings.drawn import (
    PhantomSettings as PhantomSettings,
)
from wsipipe.settings.knob import (
    Checked as Checked,
)
from wsipipe.settings.knob import (
    check as check,
)
from wsipipe.settings.knob import (
    chosen as chosen,
)
from wsipipe.settings.knob import (
    determining as determining,
)
from wsipipe.settings.registry import (
    BACKENDS as BACKENDS,
)
from wsipipe.settings.registry import (
    HEADS as HEADS,
)
from wsipipe.settings.registry import (
    SET_FORMS as SET_FORMS,
)
from wsipipe.settings.registry import (
    Backend as Backend,
)
from wsipipe.settings.registry import (
    HeadKind as HeadKind,
)
from wsipipe.settings.registry import (
    named as named,
)
from wsipipe.settings.slides import (
    ENGINE_NAMES as ENGINE_NAMES,
)
from wsipipe.settings.slides import (
    SHARPEST as SHARPEST,
)
from wsipipe.settings.slides import (
    BatchSettings as BatchSettings,
)
from wsipipe.settings.slides import (
    CellSettings as CellSettings,
)
from wsipipe.settings.slides import (
    ClusterSettings as ClusterSettings,
)
from wsipipe.settings.slides import (
    ExportSettings as ExportSettings,
)
from wsipipe.settings.slides import (
    GridSettings as GridSettings,
)
from wsipipe.settings.slides import (
    RunSettings as RunSettings,
)
from wsipipe.settings.slides import (
    SlideSettings as SlideSettings,
)
from wsipipe.settings.slides import (
    StoreSettings as StoreSettings,
)
from wsipipe.settings.slides import (
    TissueSettings as TissueSettings,
)
from wsipipe.settings.training import (
    BACKBONES as BACKBONES,
)
from wsipipe.settings.training import (
    RANDOM as RANDOM,
)
from wsipipe.settings.training import (
    AugmentSettings as AugmentSettings,
)
from wsipipe.settings.training import (
    CorpusSettings as CorpusSettings,
)
from wsipipe.settings.training import (
    EvaluateSettings as EvaluateSettings,
)
from wsipipe.settings.training import (
    FitSettings as FitSettings,
)
from wsipipe.settings.training import (
    LoopSettings as LoopSettings,
)
from wsipipe.settings.training import (
    PretrainSettings as PretrainSettings,
)
