"""Memory goes back a moment after it was asked for, once for any number of askers."""

from __future__ import annotations

from pgnode.os_support.heap import HeapTrimmer
from pgnode.os_support.malloc import trim_heap
from tests.support.polling import eventually


async def test_many_askers_give_back_once() -> None:
    given: list[bool] = []
    trimmer = HeapTrimmer(lambda: given.append(True), pause_seconds=0.01)
    trimmer.soon()
    trimmer.soon()
    assert "soon" in repr(trimmer)
    await eventually(lambda: len(given) == 1, "given back")
    assert "idle" in repr(trimmer)
    trimmer.soon()
    await eventually(lambda: len(given) == 2, "given back again")


def test_the_library_of_this_system_takes_the_call() -> None:
    assert trim_heap() is None  # type: ignore[func-returns-value]
