"""What is said when open files run out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pgnode.os_support.aio import end_tasks
from pgnode.os_support.open_files import RESERVE, OpenFilesWatch, open_files
from tests.support.polling import eventually


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def next_number() -> int:
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    return number


async def test_that_files_run_out_is_said_once_and_again_after_a_while_below() -> None:
    limit = next_number() + RESERVE + 20
    watch = OpenFilesWatch(limit)
    with capture_logs() as logged, contextlib.ExitStack() as stack:
        watch.check()
        assert logged == []
        for _ in range(25):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        task = asyncio.create_task(watch.run(0.001))
        await eventually(lambda: logged, "it is said")
        await end_tasks([task])
        assert repr(watch) == f"OpenFilesWatch({limit}, reached)"
        assert [(entry["log_level"], entry["limit"]) for entry in logged] == [("warning", limit)]
    with capture_logs() as logged:
        # Far below, as after most connections were closed.
        relaxed = OpenFilesWatch(1_000_000)
        relaxed._told = True
        relaxed.check()
        assert repr(relaxed) == "OpenFilesWatch(1000000)"
    assert logged == []


def test_no_number_at_all_counts_as_well(limits: tuple[int, int]) -> None:
    watch = OpenFilesWatch()
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_number(), limits[1]))
    with capture_logs() as logged:
        watch.check()
        watch.check()
    assert len(logged) == 1


def test_open_files_are_counted(tmp_path: Path) -> None:
    before = open_files()
    with (tmp_path / "one").open("w"), (tmp_path / "two").open("w"):
        assert open_files() == before + 2
    assert open_files(tmp_path / "none") == 0


def test_how_often_the_limit_was_reached_is_counted() -> None:
    watch = OpenFilesWatch(0)
    with capture_logs():
        watch.check()
        watch.check()
    assert watch.reached == 1
