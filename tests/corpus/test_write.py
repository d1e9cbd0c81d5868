"""The store: what goes in comes out, whole shards survive a crash, and what is no corpus is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.corpus.conftest import Pixels
from wsipipe.corpus import Corpus, is_corpus, open_corpus
from wsipipe.corpus.codec import array_options
from wsipipe.corpus.read import ATTRIBUTE
from wsipipe.corpus.table import Origin, Patch, patch_columns
from wsipipe.corpus.write import CorpusWriter, publish_corpus, stands
from wsipipe.errors import OutputError, SettingsError, StoreError
from wsipipe.runs.work import JOURNAL

SIDE, SHARD = 32, 4
ORIGINS = [Origin("a.svs", "A", "skin", "train"), Origin("b.svs", "B", "bone", "val")]


def patches(count: int) -> list[tuple[Patch, Pixels]]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return [(Patch(i // 6, i, 2 * i, 0.5, 2**63 + i, f"{i:032x}"), pixels[i]) for i in range(count)]


def fill(work: Path, given: list[tuple[Patch, Pixels]], codec: str = "webp", identity: str = "i") -> CorpusWriter:
    """Write what is not there yet of *given*."""
    work.mkdir(exist_ok=True)
    writer = CorpusWriter(work, identity, SIDE, SHARD, codec)
    for number, (patch, pixels) in enumerate(given[len(writer) :], len(writer)):
        if writer.append(patch, pixels):
            writer.commit((0, number + 1), {0: {"kept": number}})
    return writer


def complete(writer: CorpusWriter, target: Path) -> Corpus:
    writer.commit((2, 0), {})
    about = {"identity": "i", "settings": {"patch": SIDE, "seed": 0}}
    writer.finish(about, {"table": patch_columns(writer.state.patches, ORIGINS)})
    publish_corpus(writer.work, target)
    return open_corpus(target)


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("codec", ["webp", "zstd", "none"])
def test_what_goes_in_comes_out(tmp_path: Path, codec: str) -> None:
    given = patches(10)
    corpus = complete(fill(tmp_path / "w", given, codec), tmp_path / "c.zarr")
    assert len(corpus) == 10 and corpus.patch == SIDE
    for i, (patch, pixels) in enumerate(given):
        assert np.array_equal(corpus.read(i), pixels)
        row = {name: corpus.table[name][i].as_py() for name in ("slide", "x_base", "y_base", "mpp", "hash")}
        assert row == {"slide": ORIGINS[i // 6].slide, "x_base": i, "y_base": 2 * i, "mpp": 0.5, "hash": patch.hash}
    assert corpus.indices("train").tolist() == [0, 1, 2, 3, 4, 5] and corpus.indices("val").tolist() == [6, 7, 8, 9]
    assert corpus.indices("test").tolist() == [] and corpus.indices("all").tolist() == list(range(10))
    assert corpus.indices("all").dtype == np.int64
    assert len([p for p in (tmp_path / "c.zarr/patches/c").rglob("*") if p.is_file()]) == 3  # a file per shard
    again = pickle.loads(pickle.dumps(corpus))
    assert np.array_equal(again.read(9), given[9][1]) and again.fingerprint == corpus.fingerprint


def test_zarr_alone_reads_it(tmp_path: Path) -> None:
    given = patches(3)
    complete(fill(tmp_path / "w", given, "zstd"), tmp_path / "c.zarr")
    group = zarr.open_group(tmp_path / "c.zarr", mode="r")
    assert np.array_equal(np.asarray(group["patches"])[1], given[1][1])
    assert sorted(group.group_keys()) == ["features", "table"]


def test_unknown_numbers_and_splits(tmp_path: Path) -> None:
    corpus = complete(fill(tmp_path / "w", patches(2)), tmp_path / "c.zarr")
    with pytest.raises(IndexError, match="no patch 2; expected 0 to 1"):
        corpus.read(2)
    with pytest.raises(IndexError):
        corpus.read(-1)
    with pytest.raises(SettingsError, match="split is 'valid'"):
        corpus.indices("valid")


def test_a_crash_loses_no_more_than_the_shard_in_flight(tmp_path: Path) -> None:
    given = patches(11)
    whole = content(complete(fill(tmp_path / "w", given), tmp_path / "whole.zarr").path)
    for crash in (3, 4, 7, 8, 11):
        work = tmp_path / f"w{crash}"
        fill(work, given[:crash])
        shard = work / f"patches/c/{crash // SHARD}/0/0/0"
        shard.parent.mkdir(parents=True, exist_ok=True)
        shard.write_bytes(b"half a shard")  # what a kill may leave behind
        with (work / JOURNAL).open("ab") as journal:
            journal.write(b'{"first": 99, "patc')
        writer = CorpusWriter(work, "i", SIDE, SHARD, "webp")
        assert len(writer) == crash // SHARD * SHARD
        assert writer.state.position == (0, len(writer)) and set(writer.state.notes) <= {0}
        assert content(complete(fill(work, given), tmp_path / f"c{crash}.zarr").path) == whole


def test_another_identity_starts_afresh(tmp_path: Path) -> None:
    fill(tmp_path / "w", patches(8))
    assert len(CorpusWriter(tmp_path / "w", "i", SIDE, SHARD, "webp")) == 8
    assert len(CorpusWriter(tmp_path / "w", "other", SIDE, SHARD, "webp")) == 0
    assert not list((tmp_path / "w/patches/c").rglob("0")) if (tmp_path / "w/patches/c").exists() else True


def test_the_fingerprint_tells_pixels_order_and_settings(tmp_path: Path) -> None:
    def fingerprint(given: list[tuple[Patch, Pixels]], name: str) -> str:
        return complete(fill(tmp_path / f"w{name}", given), tmp_path / f"{name}.zarr").fingerprint

    given = patches(5)
    same, swapped = fingerprint(given, "a"), fingerprint([given[1], given[0], *given[2:]], "b")
    assert same == fingerprint(given, "c") != swapped


def test_features_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    corpus = complete(fill(tmp_path / "w", patches(5)), tmp_path / "c.zarr")
    before, features = corpus.fingerprint, np.arange(15, dtype=np.float32).reshape(5, 3)
    assert corpus.features("hf-hub:a/b") is None
    corpus.add_features("hf-hub:a/b", features)
    corpus.add_features("hf-hub:a-b", features + 1)  # another name, though the folders' letters are alike
    kept = open_corpus(corpus.path).features("hf-hub:a/b")
    assert kept is not None and kept.dtype == np.float32 and np.array_equal(kept, features)
    corpus.add_features("hf-hub:a/b", features * 2)
    again = corpus.features("hf-hub:a/b")
    assert again is not None and np.array_equal(again, features * 2)
    assert open_corpus(corpus.path).fingerprint == before
    for wrong in (features[:4], features.astype(np.float64), features[0]):
        with pytest.raises(SettingsError, match=r"expected float32 \(5, width\)"):
            corpus.add_features("x", wrong)
    assert not list((corpus.path / "features").glob(".*"))


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a corpus"):
        open_corpus(tmp_path)
    assert not is_corpus(tmp_path / "nowhere")
    fill(tmp_path / "w", patches(4))
    assert is_corpus(tmp_path / "w")
    with pytest.raises(StoreError, match="unfinished"):
        open_corpus(tmp_path / "w")
    corpus = complete(fill(tmp_path / "w", patches(4)), tmp_path / "c.zarr")
    assert stands(corpus.path, "i") and not stands(corpus.path, "j") and not stands(tmp_path / "none", "i")
    (tmp_path / "thing").mkdir()
    with pytest.raises(OutputError, match="something that is not a corpus"):
        stands(tmp_path / "thing", "i")
    about = json.loads((corpus.path / "zarr.json").read_text())
    about["attributes"][ATTRIBUTE]["schema"] = 99
    shutil.copytree(corpus.path, tmp_path / "new.zarr")
    (tmp_path / "new.zarr/zarr.json").write_text(json.dumps(about))
    with pytest.raises(StoreError, match="schema 99 is not known"):
        open_corpus(tmp_path / "new.zarr")


def test_a_tile_store_is_no_corpus_and_the_other_way_round(tmp_path: Path) -> None:
    from wsipipe.store import is_store

    corpus = complete(fill(tmp_path / "w", patches(2)), tmp_path / "c.zarr")
    assert not is_store(corpus.path)


def test_webp_chunks_are_webp_files(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a", shape=(1, 16, 16, 3), chunks=(1, 16, 16, 3), dtype="u1", **array_options("webp")
    )
    array[:] = 7
    assert (tmp_path / "a/c/0/0/0/0").read_bytes()[8:12] == b"WEBP"
    assert zarr.open_array(tmp_path / "a", mode="r")[:].tolist() == np.full((1, 16, 16, 3), 7).tolist()


def test_lost_pixels_are_refused_not_read_as_black(tmp_path: Path) -> None:
    corpus = complete(fill(tmp_path / "w", patches(10)), tmp_path / "c.zarr")
    for file in (corpus.path / "patches" / "c").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(StoreError, match="the pixels of patch 3 are gone"):
        corpus.read(3)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("table/slide/c/0", lambda raw: raw[: len(raw) // 2]),
        ("table/mpp/c/0", lambda raw: raw[:3]),
        ("table/zarr.json", lambda raw: raw.replace(b'"split"', b'"spilt"')),
        ("table/hash/zarr.json", lambda raw: raw[:40]),
        ("patches/zarr.json", lambda raw: raw.replace(b"uint8", b"int16")),
        ("patches/zarr.json", lambda raw: raw.replace(b"32", b"64")),
        ("patches/c/0/0/0/0", lambda raw: raw[: len(raw) // 3]),
        ("patches/c/0/0/0/0", lambda raw: raw[:20] + bytes(60) + raw[80:]),
        ("zarr.json", lambda raw: raw.replace(b'"patch"', b'"patsch"')),
        ("zarr.json", lambda raw: raw.replace(b'"complete"', b'"komplett"')),
    ],
)
def test_a_damaged_corpus_is_told_in_one_line(file: str, change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    complete(fill(tmp_path / "w", patches(10)), tmp_path / "c.zarr")
    path = tmp_path / "c.zarr" / file
    raw = path.read_bytes()
    path.write_bytes(change(raw))
    assert path.read_bytes() != raw
    with pytest.raises(StoreError, match=r"damaged|unfinished") as refusal:
        corpus = open_corpus(tmp_path / "c.zarr")
        corpus.indices("train")
        for index in range(len(corpus)):
            corpus.read(index)
    assert "\n" not in str(refusal.value)
