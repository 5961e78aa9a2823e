"""Large messages are worked on in a thread, small ones right here."""

from __future__ import annotations

import threading

import pytest

from pgnode.api.service.off_loop import THREAD_BYTES, off_loop


@pytest.mark.parametrize(("size", "here"), [(THREAD_BYTES, True), (THREAD_BYTES + 1, False)])
async def test_where_work_is_done(size: int, *, here: bool) -> None:
    def work(argument: str) -> tuple[str, int]:
        return argument * 2, threading.get_ident()

    doubled, thread = await off_loop(work, "a", size)
    assert doubled == "aa"
    assert (thread == threading.get_ident()) is here
