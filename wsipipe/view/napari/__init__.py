"""Slides and cells in napari, and what is drawn there back into files; napari finds this by ``napari.yaml``."""
