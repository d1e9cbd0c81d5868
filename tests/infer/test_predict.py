"""Maps of a tile depend on the tile alone: not on the batch, its place there, or the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests import tiny
from wsipipe.errors import ModelError, SettingsError
from wsipipe.infer.embed import Embedder
from wsipipe.infer.predict import Predictor, load_predictor
from wsipipe.models import checkpoint, device, zoo
from wsipipe.models.checkpoint import ModelCard, read_card
from wsipipe.models.cmd import CMDConfig
from wsipipe.models.device import SmallerBatch, choose_device, choose_dtype
from wsipipe.models.folded import FoldedSegmenter
from wsipipe.models.heads import kinds
from wsipipe.models.threads import set_threads

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    checkpoint.save(path, tiny.segmenter(types=("a", "b")), tiny.card(types=("a", "b")))
    return path


@pytest.fixture(scope="module")
def predictor(path: Path) -> Predictor:
    return Predictor(path, "cpu", "fp32", 2)


@pytest.fixture(scope="module")
def tiles() -> NDArray[np.uint8]:
    """Return five tiles, of which one is white and one is black."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 32, 32, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    coarse[1], coarse[3] = 255, 0
    return coarse


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Recorder(nn.Module):
    """Notes the shapes that the network sees; out of memory above *limit* tiles."""

    def __init__(self, network: nn.Module, limit: int = 10**6) -> None:
        super().__init__()
        self.network, self.limit, self.shapes = network, limit, list[tuple[int, ...]]()

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(x)  # type: ignore[no-any-return]


def test_names_shape_and_type(predictor: Predictor, tiles: NDArray[np.uint8]) -> None:
    assert predictor.names == ("foreground", "marker", "type:a", "type:b")
    maps = predictor.maps(tiles[:1])
    assert maps.shape == (1, 4, 256, 256) and maps.dtype == np.uint8 and maps.std() > 1


def test_maps_are_those_of_the_network(predictor: Predictor, tiles: NDArray[np.uint8]) -> None:
    network = tiny.segmenter(types=("a", "b"))
    with torch.no_grad():
        x = torch.from_numpy(tiles[:2]).permute(0, 3, 1, 2) / 127.5 - 1
        exact = network.head.maps(network(x)).numpy() * 255
    assert np.abs(predictor.maps(tiles[:2]) - exact).max() < 0.51


def test_the_batch_shape_is_fixed_whatever_the_number_of_tiles(
    predictor: Predictor, tiles: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(predictor.network)
    monkeypatch.setattr(predictor, "forward", recorder)
    assert predictor.maps(tiles[:0]).shape == (0, 4, 256, 256) and not recorder.shapes
    for n, passes in ((1, 1), (2, 1), (3, 2), (5, 3)):
        recorder.shapes.clear()
        assert len(predictor.maps(tiles[:n])) == n
        assert recorder.shapes == [(2, 3, 256, 256)] * passes


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_tile_has_the_same_maps_alone_and_anywhere_in_a_batch(
    path: Path, precision: str, tiles: NDArray[np.uint8]
) -> None:
    predictor = Predictor(path, "cpu", precision, 3)
    together = predictor.maps(tiles)
    assert np.array_equal(predictor.maps(tiles[::-1])[::-1], together)
    for k in range(len(tiles)):
        assert np.array_equal(predictor.maps(tiles[k : k + 1])[0], together[k])


def maps_with_threads(predictor: Predictor, tiles: NDArray[np.uint8], threads: int) -> NDArray[np.uint8]:
    set_threads(threads)
    return predictor.maps(tiles)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_number_of_threads_changes_no_byte(
    path: Path, precision: str, tiles: NDArray[np.uint8], threads: None
) -> None:
    predictor = Predictor(path, "cpu", precision, 2)
    assert np.array_equal(*(maps_with_threads(predictor, tiles[:2], n) for n in (1, 2)))


@pytest.mark.skipif("cmd-t" not in zoo.shipped(), reason="no shipped model")
def test_the_number_of_threads_changes_no_byte_of_the_shipped_model(tiles: NDArray[np.uint8], threads: None) -> None:
    predictor = Predictor(zoo.resolve("cmd-t"), "cpu", "fp32", 2)
    one = maps_with_threads(predictor, tiles[:2], 1)
    assert one.std() > 1
    for n in (2, 3):
        assert np.array_equal(maps_with_threads(predictor, tiles[:2], n), one)


def test_the_network_holds_no_1x1_convolution(path: Path) -> None:
    """On a CPU their sums depend on the number of threads."""
    for kind in kinds():
        folded = FoldedSegmenter(tiny.segmenter(kind))
        assert not [m for m in folded.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]


def test_the_recipe_says_what_the_bytes_depend_on(predictor: Predictor) -> None:
    recipe = predictor.recipe
    assert (recipe.device, recipe.dtype, recipe.batch) == ("cpu", "float32", 2)
    assert torch.__version__.startswith(recipe.version)


def test_out_of_memory_leads_to_a_smaller_batch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    plain = Predictor.__init__

    def limited(self: Predictor, path: Path, *asked: object) -> None:
        plain(self, path, *asked)  # type: ignore[arg-type]
        self.forward = Recorder(self.network, limit=2)
        made.append(self.batch)

    monkeypatch.setattr(Predictor, "__init__", limited)
    assert load_predictor(path, "cpu", "fp32", 8).batch == 2 and made == [8, 4, 2]
    with pytest.raises(SmallerBatch, match="out of device memory with 8 tiles") as error:
        Predictor(path, "cpu", "fp32", 8).probe()
    assert error.value.batch == 4


def test_no_memory_for_one_tile_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(path, "cpu", "fp32", 1)
    monkeypatch.setattr(predictor, "forward", Recorder(predictor.network, limit=0))
    with pytest.raises(ModelError, match="not enough memory on cpu for a single tile"):
        predictor.probe()


def test_maps_that_are_no_numbers_are_refused(path: Path, tiles: NDArray[np.uint8], tmp_path: Path) -> None:
    """Finite weights may be so large that their sums are not; the maps would be 0, as of an empty slide."""
    network = tiny.segmenter(types=("a", "b"))
    with torch.no_grad():
        network.backbone.stem.weight.mul_(1e38)
    checkpoint.save(tmp_path / "large.safetensors", network, tiny.card(types=("a", "b")))
    predictor, embedder = (kind(tmp_path / "large.safetensors", device="cpu") for kind in (Predictor, Embedder))
    for forward in (predictor.maps, embedder.features):
        with pytest.raises(ModelError, match="the network of tiny gives no numbers"):
            forward(tiles[:1])


def test_a_backbone_alone_predicts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    checkpoint.save(path, tiny.backbone(), ModelCard("b", CMDConfig(tiny.WIDTHS)))
    with pytest.raises(ModelError, match="without a head"):
        Predictor(path, "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta!"])
def test_an_unusable_device_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(SettingsError, match=f"--device {name} cannot be used") as error:
        choose_device(name)
    assert "\n" not in str(error.value)


def test_device_and_precision(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    assert choose_dtype("fp32", CPU) == torch.float32
    monkeypatch.setattr(device, "native_bf16", lambda chosen: True)
    assert choose_dtype("auto", CPU) == choose_dtype("bf16", CPU) == torch.bfloat16 and not caplog.records
    monkeypatch.setattr(device, "native_bf16", lambda chosen: False)
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("bf16", CPU) == torch.bfloat16 and "emulated" in caplog.text


def test_a_card_is_read_without_the_weights(path: Path) -> None:
    assert read_card(path) == tiny.card(types=("a", "b"))


@pytest.mark.gpu
def test_gpu_gives_nearly_the_maps_of_the_cpu(path: Path, predictor: Predictor, tiles: NDArray[np.uint8]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    gpu = Predictor(path, "cuda", "fp32", 2).maps(tiles).astype(int)
    assert np.abs(gpu - predictor.maps(tiles)).max() <= 2
