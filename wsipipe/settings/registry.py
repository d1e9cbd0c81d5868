"""What can be chosen by name, and where each name leads: a further reader or head is a file, and a line here.

Names lead to modules by text, so that the command line offers them without loading any.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple


class Backend(NamedTuple):
    """A reader of slides.

    Attributes
    ----------
    reader : str
        ``module:class``, a :class:`wsipipe.slide.reader.Reader`.
    packages : tuple of str
        Those that may bring its library.
    extra : str
        What installs it, "" where wsipipe itself does.
    auto : bool
        Whether it is tried, in turn, where no reader is named.
    """

    reader: str
    packages: tuple[str, ...]
    extra: str = ""
    auto: bool = True


BACKENDS = {
    "openslide": Backend("wsipipe.slide.openslide:OpenSlideReader", ("openslide-python",)),
    "tiffslide": Backend("wsipipe.slide.tiffslide:TiffSlideReader", ("tiffslide",)),
    "cucim": Backend("wsipipe.slide.cucim:CucimReader", ("cucim-cu12", "cucim-cu13", "cucim"), "cucim", auto=False),
    "dicom": Backend("wsipipe.slide.dicom:DicomReader", ("wsidicom",), "dicom"),
    "czi": Backend("wsipipe.slide.czi:CziReader", ("pylibCZIrw",), "czi"),
    "picture": Backend("wsipipe.slide.picture:PictureReader", ("pillow",)),
}
"""The readers by name. cuCIM opens nothing that the others do not, and is taken by name."""


class HeadKind(NamedTuple):
    """A head on the backbone's maps.

    Attributes
    ----------
    network : str
        ``module:class``, made of the widths of the maps and the number of outputs.
    instances : bool
        Whether it learns to tell touching nuclei apart; then its outputs are those of the cisca head.
    scaled : bool
        Whether it is told how much larger than the finest map the picture is.
    """

    network: str
    instances: bool = False
    scaled: bool = False


HEADS = {
    "linear": HeadKind("wsipipe.models.heads:Linear"),
    "light": HeadKind("wsipipe.models.heads:Light"),
    "sota": HeadKind("wsipipe.models.heads:Sota"),
    "decoder": HeadKind("wsipipe.models.heads:Decoder", scaled=True),
    "deep": HeadKind("wsipipe.models.supervised:Deep"),
    "uper": HeadKind("wsipipe.models.supervised:Uper"),
    "cisca": HeadKind("wsipipe.models.heads:Light", instances=True),
}
"""The heads by name."""


SET_FORMS = ("folders", "monuseg", "hovernet", "pannuke", "coco", "qupath")
"""The forms of annotated sets; :mod:`wsipipe.labels.sources` says what each is."""


def named(where: str) -> Any:
    """Return what ``module:name`` leads to.

    Raises
    ------
    ImportError
        Or what else the module raises while it is loaded.
    """
    module, name = where.split(":")
    return getattr(import_module(module), name)
