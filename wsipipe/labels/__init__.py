"""Annotated sets: images with an instance map each, their resolution, and splits that no patient crosses."""

from wsipipe.labels.annotated import DEFAULT_MPP, UNKNOWN, Annotated, DatasetSpec, assumption, type_names
from wsipipe.labels.nuclear_size import nuclear_mpp
from wsipipe.labels.pictures import IMAGE_SUFFIXES, LABEL_SUFFIXES, read_image, read_labels
from wsipipe.labels.reading import detect, list_set, read_set
from wsipipe.labels.splits import SPLITS, assign, few, patient, read_split

__all__ = [
    "DEFAULT_MPP",
    "IMAGE_SUFFIXES",
    "LABEL_SUFFIXES",
    "SPLITS",
    "UNKNOWN",
    "Annotated",
    "DatasetSpec",
    "assign",
    "assumption",
    "detect",
    "few",
    "list_set",
    "nuclear_mpp",
    "patient",
    "read_image",
    "read_labels",
    "read_set",
    "read_split",
    "type_names",
]
