"""Endings of the names of slides and pictures, in lower case: the only list of them."""

TIFF = (".tif", ".tiff")
"""Slides or pictures: the file says which."""
SLIDES = (
    *(".svs", ".tif", ".tiff", ".btf", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu", ".czi", ".dcm"),
    ".qptiff",
)
"""What a reader of slides opens."""
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
"""What is a picture for certain."""
