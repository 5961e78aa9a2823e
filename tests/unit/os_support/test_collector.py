"""The collector of cycles spares what is loaded, and still finds cycles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from pgnode.os_support.collector import THRESHOLDS, collect_seldom, spare_what_is_loaded


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class _Node:
    def __init__(self) -> None:
        self.itself = self


def test_imports_are_walked_seldom() -> None:
    collect_seldom()
    assert gc.get_threshold() == THRESHOLDS
    assert gc.isenabled()


def test_what_is_loaded_is_not_walked_again() -> None:
    spare_what_is_loaded()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == THRESHOLDS


def test_a_cycle_that_is_made_later_is_found() -> None:
    spare_what_is_loaded()
    gone = weakref.ref(_Node())
    gc.collect()
    assert gone() is None
