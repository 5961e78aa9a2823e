"""Memory goes back a moment after it was asked for, once for any number of askers."""

from __future__ import annotations

from unittest import mock

from pgnode.os_support.malloc import trim_heap
from pgnode.supervisor.host import heap as memory
from tests.support.polling import eventually


async def test_many_askers_give_back_once() -> None:
    with mock.patch.object(memory, "trim_heap") as given, mock.patch.object(memory, "PAUSE_SECONDS", 0.01):
        giving = memory.HeapTrimmer()
        giving.soon()
        giving.soon()
        await eventually(lambda: given.call_count == 1, "given back")
        giving.soon()
        await eventually(lambda: given.call_count == 2, "given back again")


def test_the_library_of_this_system_takes_the_call() -> None:
    assert trim_heap() is None  # type: ignore[func-returns-value]
