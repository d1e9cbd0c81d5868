"""Where the tissue of a slide is, and whether it looks as expected."""

from wsipipe.tissue.regions import Tissue, find_tissue, viewer_origin

__all__ = ["Tissue", "find_tissue", "viewer_origin"]
