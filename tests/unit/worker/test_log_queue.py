"""What waits for one viewer of the log."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from pgnode.worker.log_queue import PIECE_BYTES, LogQueue, pieces_of


async def all_of(queue: LogQueue) -> list[str]:
    """What waits now."""
    found: list[str] = []
    async for entry in queue.lines(0.001):
        if entry is None:
            break
        found += entry[1].decode().split("\n")
    return found


@given(st.lists(st.integers(1, 6), max_size=20), st.integers(6, 30))
def test_the_last_lines_wait_and_it_is_told_how_many_are_missing(counts: list[int], most: int) -> None:
    queue, number = LogQueue(most), 0
    for count in counts:
        queue.put("1-0", pieces_of("\n".join(map(str, range(number, number + count))).encode()))
        number += count
    found = asyncio.run(all_of(queue))
    dropped = int(found[0][1:].split()[0]) if found and found[0].startswith("[") else 0
    assert [line for line in found if not line.startswith("[")] == [str(line) for line in range(dropped, number)]
    assert number - dropped <= most


async def test_bytes_are_bounded_too() -> None:
    queue = LogQueue(1000, 10)
    for data in (b"aaaa", b"bbbb", b"cccc"):
        queue.put("1-0", pieces_of(data))
    assert await all_of(queue) == ["[1 lines dropped: this viewer reads too slowly]", "bbbb", "cccc"]
    queue.put("2-0", pieces_of(b"d" * 11))
    assert await all_of(queue) == ["[1 lines dropped: this viewer reads too slowly]"]


async def test_large_entries_come_in_pieces_with_their_id() -> None:
    queue = LogQueue()
    lines = b"\n".join([b"x" * 999] * 100)
    queue.put("3-0", pieces_of(lines))
    assert repr(queue) == "LogQueue(100 lines)"
    found = []
    async for entry in queue.lines(0.001):
        if entry is None:
            break
        found.append(entry)
    assert b"\n".join(data for _, data in found) == lines
    assert {entry_id for entry_id, _ in found} == {"3-0"}
    assert max(len(data) for _, data in found) <= PIECE_BYTES
    assert pieces_of(b"") == []
