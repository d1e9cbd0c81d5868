"""Who gives up when workers die again and again."""

from __future__ import annotations

import itertools
import threading

import pytest

from wsipipe.schedule.watch import LOSSES, Watch


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsipipe.schedule.watch.PAUSE", 0.001)


def test_workers_that_die_without_end() -> None:
    count, ended = itertools.count(), threading.Event()
    with Watch(lambda: {f"worker {next(count)}", "steady"}, ended.set) as watch:
        assert ended.wait(60)
    assert watch.reason == f"workers died {2 * LOSSES + 1} times and no block was done"


def test_what_is_done_starts_the_count_again() -> None:
    count, many = itertools.count(), threading.Event()

    def workers() -> set[str]:
        watch.heard()
        many.set() if next(count) > 10 * LOSSES else None
        return {str(next(count))}

    watch = Watch(workers, lambda: pytest.fail("gave up"))
    with watch:
        assert many.wait(60)
    assert not watch.reason


def test_no_worker_at_all() -> None:
    ended = threading.Event()
    with Watch(set, ended.set, patience=0.01) as watch:
        assert ended.wait(60)
    assert "no worker process" in watch.reason


def test_a_scheduler_that_does_not_answer_is_no_death() -> None:
    answers, many = itertools.count(), threading.Event()

    def workers() -> set[str]:
        if next(answers) > 50:
            many.set()
        if next(answers) % 3:
            raise OSError
        return {"a"}

    with Watch(workers, lambda: pytest.fail("gave up")) as watch:
        assert many.wait(60)
    assert not watch.reason
