"""The core's output on its way, over a pipe and a real bus."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.bus.keys import Keys
from pgnode.bus.log_batches import Watch
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.supervisor.core import log_pump
from pgnode.supervisor.core.log_blocks import LINE_MAX_BYTES
from pgnode.supervisor.core.log_pump import LogPump
from pgnode.supervisor.core.log_sender import Counted, LogSender
from pgnode.supervisor.core.log_writer import LogWriter
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.xray.config.log_section import LogSection
from tests.support.polling import eventually, pause
from tests.support.valkey import TestValkey

KEYS = Keys("pgnode")

#: What the pump kept for operators.
KEPT: list[bytes] = []


class Parts:
    """A pump, and where its lines go."""

    def __init__(self, valkey: TestValkey, rest: bytes = b"") -> None:
        self.ring = LogRing(1000)
        self.redis = PipelinedRedis(valkey.url)
        sender = LogSender(PipelinedRedis(valkey.url), KEYS, self.ring, Counted("one"))
        self.pump = LogPump(self.ring, sender, LogWriter(0), tail_lines=3, rest=rest, keep=KEPT.append)

    async def streamed(self) -> list[bytes]:
        """What viewers have been sent."""
        await self.pump.pass_on()
        found = await self.redis.execute("XRANGE", KEYS.log, "-", "+")
        fields = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in found]
        return [line for one in fields if one[b"lines"] for line in one[b"lines"].split(b"\n")]

    def close(self) -> None:
        self.pump.unwatch()
        self.pump.close()
        self.redis.drop()


@pytest_asyncio.fixture
async def parts(valkey: TestValkey) -> AsyncIterator[Parts]:
    KEPT.clear()
    made = Parts(valkey)
    yield made
    made.close()


@pytest.fixture
def pump(parts: Parts) -> LogPump:
    return parts.pump


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


async def test_lines_reach_viewers_memory_and_the_tail(parts: Parts, pipe: tuple[int, int]) -> None:
    pump = parts.pump
    pump.sender.watch("a", Watch(1, on=True))
    pump.watch(pipe[0])
    os.write(pipe[1], b"one\ntwo\r\n\nthr")
    await eventually(lambda: pump.rest == b"thr", "the first read")
    os.write(pipe[1], b"ee\nfour\n")
    pump.node_line("of the node")
    await eventually(lambda: pump.tail == ["two", "three", "four"], "the tail has the last lines")
    assert b"\n".join(KEPT) == b"one\ntwo\nthree\nfour", "the core's alone"
    wanted = [b"one", b"two", b"of the node", b"three", b"four"]
    assert parts.ring.last(9) == await parts.streamed() == wanted
    assert [block.raw for block in parts.ring.oldest_first() if not block.of_core] == [b"of the node"]
    assert repr(pump).startswith(f"LogPump({pipe[0]}, LogRing(5 lines")
    pump.clear_tail()
    assert pump.tail == []


async def test_what_is_left_is_read_at_the_end(pump: LogPump, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    os.write(pipe[1], b"last words\n")
    pump.unwatch()
    assert pump.tail == ["last words"]
    pump.unwatch()


async def test_a_core_that_ends_does_not_keep_the_loop_busy(pump: LogPump, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    os.write(pipe[1], b"bye\n")
    os.close(pipe[1])
    await eventually(lambda: pump.tail == ["bye"], "the line is read")
    await eventually(lambda: pump._looking is None, "it was looked once more")
    assert not asyncio.get_running_loop().remove_reader(pipe[0]), "nobody waits for the pipe"


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


async def test_what_comes_in_a_pause_wakes_nobody(pump: LogPump, pipe: tuple[int, int]) -> None:
    assert fcntl.fcntl(pipe[0], fcntl.F_GETPIPE_SZ) < log_pump.PIPE_BYTES
    pump.watch(pipe[0])
    assert fcntl.fcntl(pipe[0], fcntl.F_GETPIPE_SZ) >= log_pump.PIPE_BYTES, "it holds what comes in a pause"
    for number in range(3):
        os.write(pipe[1], b"first %d\n" % number)
        await eventually(lambda: pump._looking is not None, "a pause begins with the first line")
        assert not asyncio.get_running_loop().remove_reader(pipe[0]), "nobody is woken in it"
        os.write(pipe[1], b"second\n")
        await eventually(lambda: pump.tail[-1:] == ["second"], "it is read after the pause")
        await eventually(lambda: pump._looking is None, "nothing came in the next one")


async def test_much_is_read_at_once(parts: Parts, pipe: tuple[int, int]) -> None:
    pump = parts.pump
    pump.watch(pipe[0])
    os.set_blocking(pipe[1], False)
    lines = b"".join(b"%06d\n" % number for number in range(100_000))
    written = os.write(pipe[1], lines)
    assert written > log_pump.READ_BYTES * 2
    pump.unwatch()
    whole, _, rest = lines[:written].rpartition(b"\n")
    assert (parts.ring.next_number - 1, pump.rest) == (whole.count(b"\n") + 1, rest)


async def test_a_long_line_is_cut(pump: LogPump, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    os.write(pipe[1], b"x" * (LINE_MAX_BYTES + 10))
    os.write(pipe[1], b"\nnext\n")
    await eventually(lambda: pump.tail[-1:] == ["next"], "the line is read")
    assert len(pump.tail[0]) == LINE_MAX_BYTES


async def test_ids_are_hidden(pump: LogPump, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    os.write(pipe[1], b"x: invalid request user id: 6e0a2249-a10a-5672-")
    await eventually(lambda: pump.rest, "half of it is read")
    os.write(pipe[1], b"b647-544f9bb45868\nnext\n")
    await eventually(lambda: pump.tail[-1:] == ["next"], "the lines are read")
    assert pump.tail[0] == "x: invalid request user id: (hidden)"


async def test_only_lines_that_are_asked_for_are_passed_on(parts: Parts, pipe: tuple[int, int]) -> None:
    pump = parts.pump
    pump.sender.watch("a", Watch(1, on=True))
    pump.select(LogSection.of({"loglevel": "error"}).sieve)
    pump.watch(pipe[0])
    os.write(pipe[1], b"2026/01/01 10:00:00 [Error] 1\n2026/01/01 10:00:00 [Info] other\n")
    await eventually(lambda: len(pump.tail) == 2, "the reason of a start that fails may be any line")
    assert await parts.streamed() == parts.ring.last(9) == KEPT == [b"2026/01/01 10:00:00 [Error] 1"]
    pump.select(None)
    os.write(pipe[1], b"2026/01/01 10:00:00 [Info] now\n")
    await eventually(lambda: len(parts.ring) == 2, "all is asked for")


async def test_the_beginning_of_a_line_is_left_to_the_next_supervisor(
    valkey: TestValkey, parts: Parts, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    first = parts.pump
    first.watch(reader)
    os.write(writer, b"whole\nhalf a ")
    await eventually(lambda: first.tail == ["whole"], "the first line")
    first.unwatch()
    assert first.rest == b"half a "
    others = Parts(valkey, first.rest)
    second = others.pump
    second.watch(reader)
    os.write(writer, b"line\n")
    await eventually(lambda: second.tail == ["half a line"], "the whole line")
    second.unwatch()
    second.watch(reader)
    assert second.rest == b"", "it was the first core's"
    others.close()


async def test_names_of_hosts_that_a_terminal_obeys_are_escaped(
    parts: Parts, pipe: tuple[int, int], tmp_path: Path
) -> None:
    pump = parts.pump
    pump.write_files(None, str(tmp_path / "core.log"))
    pump.sender.watch("a", Watch(1, on=True))
    pump.watch(pipe[0])
    # The mark comes in two parts.
    os.write(pipe[1], b"accepted tcp:a\x1b[2J:443\r\nfine: \xff\xc3\xbc\nhalf \xe2")
    await eventually(lambda: len(pump.tail) == 2, "two lines are there")
    os.write(pipe[1], b"\x80\xaeb\n")
    await eventually(lambda: len(pump.tail) == 3, "the third line is there")
    wanted = [b"accepted tcp:a\\x1b[2J:443", b"fine: \xff\xc3\xbc", b"half \\u202eb"]
    assert await parts.streamed() == wanted
    assert (tmp_path / "core.log").read_bytes().splitlines() == wanted


async def test_the_tail_keeps_the_last_lines_however_they_come(pump: LogPump, pipe: tuple[int, int]) -> None:
    pump.watch(pipe[0])
    for text in (b"1\n", b"2\n3\n", b"4\n", b"5\n6\n7\n8\n"):
        os.write(pipe[1], text)
        await pause()
    await eventually(lambda: pump.tail == ["6", "7", "8"], "all is read")
