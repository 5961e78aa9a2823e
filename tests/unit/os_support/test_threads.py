"""Threads that go behind the main thread."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from pgnode.os_support.threads import OFTEN_SECONDS, USUAL_SECONDS, put_behind, take_turns


def test_threads_of_a_name_go_behind_and_no_others() -> None:
    go_on = threading.Event()
    threads = [threading.Thread(target=go_on.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    numbers = [thread.native_id or 0 for thread in threads]
    main = os.getpriority(os.PRIO_PROCESS, os.getpid())
    try:
        for number in numbers[:2]:
            Path(f"/proc/self/task/{number}/comm").write_text("put behind", encoding="utf-8")
        assert put_behind("put behind", 5) == 2
        behind = min(main + 5, 19)
        assert [os.getpriority(os.PRIO_PROCESS, number) for number in numbers] == [behind, behind, main]
        assert put_behind("put behind", 5) == 0, "they are behind already"
        assert os.getpriority(os.PRIO_PROCESS, os.getpid()) == main
        assert put_behind("put behind", 50) == 2, "there is a least"
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
    assert put_behind("put behind", 5) == 0, "they have ended"


def test_turns_come_often_where_that_is_wanted() -> None:
    try:
        take_turns(often=True)
        assert sys.getswitchinterval() == pytest.approx(OFTEN_SECONDS)
    finally:
        take_turns(often=False)
    assert sys.getswitchinterval() == pytest.approx(USUAL_SECONDS)
