"""No patch shows a part of a test image, and none is accused wrongly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.corpus.conftest import Pixels, recompressed, scaled
from wsipipe.corpus.exclude import Excluded, index_images
from wsipipe.corpus.lookup import Lookup
from wsipipe.corpus.sources import find_sources
from wsipipe.errors import DatasetError


@pytest.fixture(scope="module")
def image(tissue: Pixels) -> Pixels:
    """The test image: the left half of the drawn slide."""
    return np.ascontiguousarray(tissue[:, :768])


def index(folder: Path, **pictures: Pixels) -> Excluded:
    folder.mkdir(exist_ok=True)
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return index_images(find_sources([folder]), say=lambda line: None)


@pytest.fixture(scope="module")
def excluded(image: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Excluded:
    return index(tmp_path_factory.mktemp("tests") / "set", held_out=image)


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": lambda p: p,
    "JPEG 60": lambda p: recompressed(p, 60),
    "twice": lambda p: scaled(p[128:384, 128:384], 2.0),
    "twice, JPEG 50": lambda p: recompressed(scaled(p[128:384, 128:384], 2.0), 50),
    "half": lambda p: scaled(p, 0.5),
    "turned": lambda p: np.ascontiguousarray(np.rot90(p)),
    "mirrored": lambda p: np.ascontiguousarray(p[:, ::-1]),
    "tilted": lambda p: np.asarray(cv2.warpAffine(p, cv2.getRotationMatrix2D((256, 256), 20, 1), (512, 512)), np.uint8),
    "restained": lambda p: np.clip(255 * (p / 255.0) ** [1.3, 0.8, 1.1], 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_crops_are_found_wherever_they_lie(excluded: Excluded, image: Pixels, change: str) -> None:
    rng = np.random.default_rng(len(change))
    missed = 0
    for _ in range(4):
        x, y = rng.integers(0, 768 - 512 + 1), rng.integers(0, 1024 - 512 + 1)
        crop = np.ascontiguousarray(image[y : y + 512, x : x + 512])
        match = excluded.find(CHANGES[change](crop))
        missed += match is None
        assert match is None or (match.image == "set/held_out.png" and match.correlation > 0.5 and match.overlap > 0.5)
    assert missed == 0


@pytest.mark.parametrize("overlap", [160, 300])
def test_a_patch_that_only_touches_a_test_image_is_found(excluded: Excluded, tissue: Pixels, overlap: int) -> None:
    x = 768 - overlap
    match = excluded.find(np.ascontiguousarray(tissue[256:768, x : x + 512]))
    assert match is not None and match.overlap == pytest.approx(overlap / 512, abs=0.05)


def test_neighbouring_and_other_tissue_is_not_accused(excluded: Excluded, tissue: Pixels) -> None:
    for x, y in ((790, 0), (900, 300), (1024, 512), (800, 500)):
        assert excluded.find(np.ascontiguousarray(tissue[y : y + 512, x : x + 512])) is None
    assert excluded.find(np.full((512, 512, 3), 240, np.uint8)) is None
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    assert excluded.find(noise) is None


def test_small_test_images_inside_a_patch_are_found(tissue: Pixels, tmp_path: Path) -> None:
    inside = index(tmp_path / "small", a=np.ascontiguousarray(tissue[400:624, 300:524]))
    match = inside.find(np.ascontiguousarray(tissue[256:768, 200:712]))
    assert match is not None and match.overlap == pytest.approx((224 / 512) ** 2, abs=0.02)


def test_large_images_are_cut_into_windows(tissue: Pixels, tmp_path: Path) -> None:
    wide = np.concatenate([tissue, tissue[::-1, ::-1]], axis=1)
    found = index(tmp_path / "large", wide=np.ascontiguousarray(wide))
    assert len(found.windows) > 4
    assert found.find(np.ascontiguousarray(wide[300:812, 2100:2612])) is not None


def test_label_maps_are_left_out_and_damage_is_an_error(image: Pixels, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "labels.png")
    said: list[str] = []
    with pytest.raises(DatasetError, match="none of 1 files is a colour image"):
        index_images(find_sources([tmp_path]), said.append)
    Image.fromarray(image).save(tmp_path / "image.png")
    assert index_images(find_sources([tmp_path]), said.append).names == (f"{tmp_path.name}/image.png",)
    assert said and "1 files without colour" in said[-1]
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DatasetError, match=r"--exclude: .*broken\.png"):
        index_images(find_sources([tmp_path]), said.append)


def test_lookup_agrees_with_looking_at_everything() -> None:
    rng = np.random.default_rng(3)
    stored = [rng.integers(0, 256, (200, 32), np.uint8) for _ in range(3)]
    asked = stored[1][:50].copy()
    asked[:, 3] ^= rng.integers(0, 256, 50, np.uint8)  # about four of 256 bits
    pairs = Lookup(stored).nearest(asked)
    assert pairs[:, 0].tolist() == [1] * 50 and pairs[:, 1].tolist() == list(range(50))
    assert (Lookup(stored).nearest(rng.integers(0, 256, (50, 32), np.uint8)) == -1).all()
    assert (Lookup([]).nearest(asked) == -1).all()


def test_real_images(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "kumar-train16/images").glob("*.png"))
    test, other = files[0], files[5]
    excluded = index_images(find_sources([test, *sorted((shared_data / "tnbc/images").glob("1*.png"))[:4]]))
    pixels = np.asarray(Image.open(test).convert("RGB"))
    for crop in (pixels[311:823, 137:649], scaled(pixels[500:756, 33:289], 2.0), scaled(pixels, 0.5)):
        match = excluded.find(recompressed(crop, 70))
        assert match is not None and match.image == test.name
    negatives = [np.asarray(Image.open(other).convert("RGB"))[:512, :512]]
    glas = sorted((shared_data / "unlabelled/glas").glob("*.jpg"))[::40]
    negatives += [np.asarray(Image.open(path).convert("RGB"))[:, :512] for path in glas]
    assert all(excluded.find(np.ascontiguousarray(negative)) is None for negative in negatives)
