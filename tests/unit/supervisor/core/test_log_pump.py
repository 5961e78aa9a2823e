"""The core's output on its way to viewers and files, over a pipe and a real bus."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.bus.log_stream import LogReader
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.core import log_pump
from pgnode.supervisor.core.log_pump import LogPump
from tests.support.polling import eventually, next_turn
from tests.support.valkey import TestValkey

KEYS = Keys("pgnode")

#: What the pump kept for operators.
KEPT: list[str] = []


@pytest_asyncio.fixture
async def redis(valkey: TestValkey) -> AsyncIterator[Redis]:
    client = connect(valkey.url)
    await client.ping()  # connected: a connection that is cancelled while it is made is never closed
    yield client
    await client.aclose()
    await next_turn()  # one that was cancelled in the middle of a call is closed in the next turn


@pytest_asyncio.fixture
async def pump(redis: Redis) -> AsyncIterator[LogPump]:
    made = LogPump(redis, KEYS, keep_lines=50_000, tail_lines=3, retry_seconds=0.05, keep=KEPT.append)
    KEPT.clear()
    running = asyncio.create_task(made.run())
    yield made
    made.unwatch()
    await end_tasks([running])


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    for descriptor in (reading, writing):
        with_closed(descriptor)


def with_closed(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        return


async def lines(valkey: TestValkey) -> list[bytes]:
    """All lines in the stream."""
    reader = LogReader(valkey.url, KEYS)
    try:
        _, found = await reader.tail(100_000)
    finally:
        await reader.close()
    return found


async def test_lines_reach_the_stream_and_the_tail(pump: LogPump, valkey: TestValkey, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    os.write(pipe[1], b"one\ntwo\r\n\nthr")
    os.write(pipe[1], b"ee\nfour\n")
    pump.node_line("of the node")
    await eventually(lambda: list(pump.tail) == ["two", "three", "four"], "the tail has the last lines")

    assert KEPT == ["one", "two", "three", "four"], "the core's alone"

    async def all_there() -> bool:
        return sorted(await lines(valkey)) == [b"four", b"of the node", b"one", b"three", b"two"]

    await eventually(all_there, "all lines are in the stream")


async def test_what_is_left_is_read_at_the_end(pump: LogPump, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    os.write(pipe[1], b"last words\n")
    pump.unwatch()
    assert list(pump.tail) == ["last words"]
    pump.unwatch()


async def test_a_core_that_ends_does_not_keep_the_loop_busy(pump: LogPump, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    os.write(pipe[1], b"bye\n")
    os.close(pipe[1])
    await eventually(lambda: list(pump.tail) == ["bye"], "the line is read")
    await eventually(lambda: not asyncio.get_running_loop().remove_reader(pipe[0]), "nobody waits for the pipe")


async def test_a_pipe_that_cannot_be_read_is_left(pump: LogPump, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    pump.watch(reading)
    # Another file, which cannot be read, in its place.
    unreadable = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)
    os.dup2(unreadable, reading)
    pump._readable()
    assert not asyncio.get_running_loop().remove_reader(reading)
    for descriptor in (reading, writing, unreadable):
        os.close(descriptor)


async def test_a_long_line_is_cut(pump: LogPump, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    os.write(pipe[1], b"x" * (log_pump.LINE_MAX_BYTES + 10))
    os.write(pipe[1], b"\nnext\n")
    await eventually(lambda: list(pump.tail)[-1:] == ["next"], "the line is read")
    assert len(pump.tail[0]) == log_pump.LINE_MAX_BYTES


async def test_files_that_the_config_names_are_written(pump: LogPump, pipe: tuple[int, int], tmp_path: Path) -> None:
    pump.write_files(str(tmp_path / "logs" / "access.log"), str(tmp_path / "error.log"))
    pump.watch(pipe[0])
    access, error = b"2026/01/01 10:00:00 from 1.2.3.4 accepted", b"2026/01/01 10:00:00 [Warning] something"
    os.write(pipe[1], access + b"\n" + error + b"\n")
    await eventually((tmp_path / "error.log").exists, "the file is there")
    assert (tmp_path / "logs" / "access.log").read_bytes() == access + b"\n"
    assert (tmp_path / "error.log").read_bytes() == error + b"\n"

    def is_dropped(count: int) -> bool:
        return sum(pump._not_written.values()) == count

    with structlog.testing.capture_logs() as logged:
        pump.write_files(str(tmp_path / "folder" / "no folder"), None)
        (tmp_path / "folder").touch()
        for dropped in (1, 2, 3):
            os.write(pipe[1], access + b"\n")
            await eventually(functools.partial(is_dropped, dropped), "it is counted, and reading goes on")
        (tmp_path / "folder").unlink()
        os.write(pipe[1], access + b"\n")
        await eventually((tmp_path / "folder" / "no folder").exists, "it is written again")
        await eventually(lambda: not pump._not_written, "that is noted")
    pump.write_files(None, None)
    assert [(entry["log_level"], entry.get("dropped")) for entry in logged] == [("warning", None), ("info", 3)]


async def test_ids_are_hidden(pump: LogPump, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    os.write(pipe[1], b"x: invalid request user id: 6e0a2249-a10a-5672-")
    os.write(pipe[1], b"b647-544f9bb45868\nnext\n")
    await eventually(lambda: list(pump.tail)[-1:] == ["next"], "the lines are read")
    assert pump.tail[0] == "x: invalid request user id: (hidden)"


def _is_last(pump: LogPump, line: str) -> bool:
    return list(pump.tail)[-1:] == [line]


async def test_files_stay_below_their_bound_and_three_full_ones_are_kept(
    redis: Redis, pipe: tuple[int, int], tmp_path: Path
) -> None:
    pump = LogPump(redis, KEYS, keep_lines=10, tail_lines=3, file_max_bytes=100)
    pump.write_files(None, str(tmp_path / "error.log"))
    pump.watch(pipe[0])
    last = b""
    for number in range(50):
        last = b"2026/01/01 10:00:00 [Warning] %d" % number
        os.write(pipe[1], last + b"\n")
        await eventually(functools.partial(_is_last, pump, last.decode()), "it is read")
        await pump.pass_on()
    pump.unwatch()
    found = {name: (tmp_path / name).stat().st_size for name in os.listdir(tmp_path)}
    assert set(found) == {"error.log", "error.log.1", "error.log.2", "error.log.3"}
    assert max(found.values()) <= 100
    assert (tmp_path / "error.log").read_bytes().endswith(last + b"\n")


async def test_lines_wait_while_the_bus_is_away_and_the_oldest_are_dropped(pump: LogPump, valkey: TestValkey) -> None:
    valkey.kill()
    for number in range(log_pump.WAITING_MAX + 5):
        pump.node_line(f"{number}")
    await eventually(lambda: pump.dropped >= 5, "the oldest are dropped")
    await valkey.start()

    async def come() -> bool:
        return len(await lines(valkey)) > log_pump.WAITING_MAX

    await eventually(come, "the others have come", errors=BUS_ERRORS)
    found = await lines(valkey)
    assert b"log lines dropped" in b"\n".join(found)
    assert found[-1] == f"{log_pump.WAITING_MAX + 4}".encode()


async def test_only_lines_that_are_asked_for_are_passed_on(
    pump: LogPump, valkey: TestValkey, pipe: tuple[int, int]
) -> None:
    pump.select(lambda line: line.startswith(b"wanted"))
    pump.watch(pipe[0])
    os.write(pipe[1], b"wanted 1\nother\nwanted 2\n")
    await eventually(lambda: "wanted 2" in pump.tail, "it was read")
    assert "other" in pump.tail, "the reason of a start that fails may be any line"

    async def passed() -> bool:
        return [line for line in await lines(valkey) if line] == [b"wanted 1", b"wanted 2"]

    await eventually(passed, "they are in the stream")


async def test_the_beginning_of_a_line_is_left_to_the_next_supervisor(redis: Redis, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    first = LogPump(redis, KEYS, keep_lines=10, tail_lines=3)
    first.watch(reader)
    os.write(writer, b"whole\nhalf a ")
    await eventually(lambda: list(first.tail) == ["whole"], "the first line")
    first.unwatch()
    assert first.rest == b"half a "
    await first.pass_on()
    second = LogPump(redis, KEYS, keep_lines=10, tail_lines=3, rest=first.rest)
    second.watch(reader)
    os.write(writer, b"line\n")
    await eventually(lambda: list(second.tail) == ["half a line"], "the whole line")
    second.unwatch()
    second.watch(reader)
    assert second.rest == b"", "it was the first core's"
    second.unwatch()


async def test_names_of_hosts_that_a_terminal_obeys_are_escaped(
    pump: LogPump, valkey: TestValkey, pipe: tuple[int, int], tmp_path: Path
) -> None:
    pump.write_files(None, str(tmp_path / "core.log"))
    pump.watch(pipe[0])
    # The mark comes in two parts.
    os.write(pipe[1], b"accepted tcp:a\x1b[2J:443\r\nfine: \xff\xc3\xbc\nhalf \xe2")
    await eventually(lambda: len(pump.tail) == 2, "two lines are there")
    os.write(pipe[1], b"\x80\xaeb\n")
    await eventually(lambda: len(pump.tail) == 3, "the third line is there")
    wanted = [b"accepted tcp:a\\x1b[2J:443", b"fine: \xff\xc3\xbc", b"half \\u202eb"]

    async def streamed() -> bool:
        return await lines(valkey) == wanted

    def written() -> bool:
        return (tmp_path / "core.log").read_bytes().splitlines() == wanted

    await eventually(written, "the file has them", errors=(OSError,))
    await eventually(streamed, "viewers have them")
