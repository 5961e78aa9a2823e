"""A child's output, line by line, and handed over in the middle of one."""

from __future__ import annotations

import asyncio
import os

from pgnode.supervisor.processes.output_reader import LINE_MAX_BYTES, OutputReader
from tests.support.polling import eventually


async def test_lines_come_as_they_are_written() -> None:
    reader, writer = os.pipe()
    lines: list[bytes] = []
    output = OutputReader(reader, lines.append)
    assert str(reader) in repr(output)
    os.write(writer, b"one\ntw")
    await eventually(lambda: lines == [b"one"], "the first line")
    os.write(writer, b"o\nrest")
    os.close(writer)
    await output.ended.wait()
    assert lines == [b"one", b"two", b"rest"]
    assert "ended" in repr(output)
    assert output.release() == (-1, b"")


async def test_the_next_one_goes_on_in_the_middle_of_a_line() -> None:
    reader, writer = os.pipe()
    lines: list[bytes] = []
    first = OutputReader(reader, lines.append)
    os.write(writer, b"one\nhalf a ")
    await eventually(lambda: lines == [b"one"], "the first line")
    descriptor, rest = first.release()
    assert (descriptor, rest) == (reader, b"half a ")
    os.write(writer, b"line\n")
    second = OutputReader(descriptor, lines.append, rest)
    await eventually(lambda: lines == [b"one", b"half a line"], "the whole line")
    os.close(writer)
    await second.ended.wait()


async def test_a_line_that_is_too_long_is_left_out() -> None:
    reader, writer = os.pipe()
    lines: list[bytes] = []
    output = OutputReader(reader, lines.append)

    def write() -> None:
        os.set_blocking(writer, True)
        for data in (b"x" * (LINE_MAX_BYTES + 2), b"y\n", b"end\n"):
            left = memoryview(data)
            while left:
                left = left[os.write(writer, left) :]
        os.close(writer)

    await asyncio.gather(asyncio.to_thread(write), output.ended.wait())
    assert lines == [b"end"]
