"""Slides: :func:`open_slide` and what goes with it. The only package that imports slide libraries."""

from wsipipe.settings import BACKENDS as BACKENDS
from wsipipe.slide.memory import ArraySlide
from wsipipe.slide.opening import backend_versions, open_slide
from wsipipe.slide.overview import thumbnail
from wsipipe.slide.protocol import Level, MppSource, Slide, SlideInfo
from wsipipe.slide.resolution import is_plausible, require_mpp
from wsipipe.slide.sampling import Stamp, changed, check_same, fingerprint, stamp

__all__ = [
    "BACKENDS",
    "ArraySlide",
    "Level",
    "MppSource",
    "Slide",
    "SlideInfo",
    "Stamp",
    "backend_versions",
    "changed",
    "check_same",
    "fingerprint",
    "is_plausible",
    "open_slide",
    "require_mpp",
    "stamp",
    "thumbnail",
]
