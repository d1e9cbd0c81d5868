"""MATLAB label files of HoVer-Net and its relatives: CoNSeP, CPM, Kumar, Lizard.

Keys: ``inst_map`` (H, W), and for types either ``inst_type`` (n, 1), in the order of the instances, or ``id`` with
``class`` (Lizard), or ``type_map`` (H, W). ``inst_centroid`` and boxes are not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError

from wsipipe.errors import FAILURES, DatasetError, in_words
from wsipipe.labels.annotated import Content
from wsipipe.labels.pictures import check_labels, check_size, read_picture
from wsipipe.labels.sources import Item, files_under, picture_of, unique

_FAILURES: tuple[type[Exception], ...] = (MatReadError, *FAILURES)


def items(path: Path) -> list[Item]:
    """Return an image for every ``.mat`` file under *path*."""
    found = files_under(path, ".mat")
    root = path if path.is_dir() else path.parent
    return unique([Item(label.stem, partial(_read, label, root)) for label in found], path)


def _read(label: Path, root: Path) -> Content:
    image, mpp = read_picture(picture_of(label, root))
    content = load(label)
    if "inst_map" not in content:
        keys = ", ".join(sorted(k for k in content if not k.startswith("__"))) or "nothing"
        raise DatasetError(f"{label}: holds {keys}; expected inst_map, the instance map of a HoVer-Net label file")
    labels = check_labels(np.asarray(content["inst_map"]), str(label)).astype(np.int64)
    check_size(image, labels, str(label))
    return Content(image, labels, types_of(labels, content, str(label)), mpp)


def load(path: Path) -> Mapping[str, Any]:
    """Return the content of a MATLAB file (up to version 7)."""
    try:
        content: Mapping[str, Any] = scipy.io.loadmat(path)
        return content
    except NotImplementedError as error:
        raise DatasetError(f"{path}: a MATLAB 7.3 file; expected version 7 or older (save it with -v7)") from error
    except _FAILURES as error:
        raise DatasetError(
            f"{path}: not a readable MATLAB file ({in_words(error)}); expected a HoVer-Net label file"
        ) from error


def types_of(labels: NDArray[np.int64], content: Mapping[str, Any], where: str) -> dict[int, str]:
    """Return the type number of each instance, as digits; nothing when the file has no types.

    Raises
    ------
    DatasetError
        When there are not as many types as instances.
    """
    numbers = np.unique(labels[labels > 0])
    if "class" in content and "id" in content:
        stated = dict(zip(_whole(content["id"]), _whole(content["class"])))
        return {int(n): str(stated[int(n)]) for n in numbers if stated.get(int(n), 0) > 0}
    if "inst_type" in content:
        types = _whole(content["inst_type"])
        if len(numbers) == len(types):
            owners = numbers.tolist()
        elif numbers.max(initial=0) <= len(types):
            owners = list(range(1, len(types) + 1))
        else:
            raise DatasetError(f"{where}: {len(types)} types in inst_type for {len(numbers)} instances in inst_map")
        return {int(n): str(kind) for n, kind in zip(owners, types) if kind > 0}
    if "type_map" in content:
        return _majority(labels, np.asarray(content["type_map"]), where)
    return {}


def _whole(values: Any) -> list[int]:
    return [int(v) for v in np.asarray(values).ravel()]


def _majority(labels: NDArray[np.int64], type_map: NDArray[Any], where: str) -> dict[int, str]:
    """Return for each instance the type that most of its pixels have."""
    if type_map.shape != labels.shape:
        raise DatasetError(f"{where}: type_map is {type_map.shape} and inst_map {labels.shape}; expected one size")
    inside = (labels > 0) & (type_map > 0)
    width = int(type_map.max(initial=0)) + 1
    keys, counts = np.unique(labels[inside] * width + type_map[inside].astype(np.int64), return_counts=True)
    order = np.argsort(counts, kind="stable")  # the last one stays
    return {int(key) // width: str(int(key) % width) for key in keys[order]}
