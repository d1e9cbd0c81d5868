"""Near-duplicates are found; neighbours are none."""

from __future__ import annotations

import numpy as np
import pytest

from tests.corpus.conftest import Pixels, dense, recompressed, scaled
from wsipipe.corpus.duplicates import SeenPatches, correlation, hashes, orientations


def seen(patches: list[Pixels], bits: int = 8) -> SeenPatches:
    found = SeenPatches(bits, patches.__getitem__, [])
    for patch in patches:
        found.add(int(hashes(patch)[0]))
    return found


@pytest.fixture(scope="module")
def fields(tissue: Pixels) -> list[Pixels]:
    return [np.ascontiguousarray(tissue[y : y + 128, x : x + 128]) for x, y in dense(tissue, 128)[:40]]


def test_every_field_is_its_own_in_any_orientation_and_quality(fields: list[Pixels]) -> None:
    known = seen(fields)
    for number, field in enumerate(fields[:10]):
        assert known.find(hashes(field), field) == number
        worse = recompressed(field, 60)
        assert known.find(hashes(worse), worse) == number
        soft = scaled(scaled(field, 0.5), 2.0)
        assert known.find(hashes(soft), soft) == number
        for view in orientations(field)[1:]:
            turned = np.ascontiguousarray(view).astype(np.uint8)
            assert known.find(hashes(turned), turned) == number


def test_different_fields_are_no_duplicates(fields: list[Pixels], tissue: Pixels) -> None:
    known = seen(fields[:20], bits=24)
    assert all(known.find(hashes(field), field) is None for field in fields[20:])
    x, y = dense(tissue, 128)[0]
    shifted = np.ascontiguousarray(tissue[max(0, y - 64) :][:128, max(0, x - 64) :][:, :128])
    assert known.find(hashes(shifted), shifted) is None


def test_knob_and_growth(fields: list[Pixels]) -> None:
    assert seen(fields, bits=-1).find(hashes(fields[0]), fields[0]) is None
    assert seen([]).find(hashes(fields[0]), fields[0]) is None
    many = SeenPatches(0, lambda number: fields[0], list(range(1, 3000)))
    for _ in range(5000):
        many.add(2**40)
    many.add(int(hashes(fields[0])[0]))
    assert many.find(hashes(fields[0]), fields[0]) == 2999 + 5000


def test_hashes_of_orientations_are_those_of_turned_pictures(fields: list[Pixels]) -> None:
    own = hashes(fields[0])
    turned = hashes(np.ascontiguousarray(np.rot90(fields[0])))
    assert bin(int(own[1]) ^ int(turned[0])).count("1") <= 2


def test_correlation() -> None:
    a = np.arange(16.0)
    assert correlation(a, 3 * a + 1) == pytest.approx(1)
    assert correlation(a, -a) == pytest.approx(-1)
    assert correlation(a, np.ones(16)) == 0
