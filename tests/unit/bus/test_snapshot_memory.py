"""Which revisions are held in shared memory, and what happens where none can be."""

from __future__ import annotations

import errno
import os

import structlog

from pgnode.bus.snapshot_memory import SnapshotMemory
from pgnode.os_support.shared_memory import SharedBytes, open_shared


def put(memory: SnapshotMemory, body: bytes, name: str = "stats.users") -> SharedBytes:
    made = memory.put(name, body)
    assert made is not None
    return made


def test_a_revision_is_held_until_the_next_one_is_published() -> None:
    memory = SnapshotMemory()
    first = put(memory, b"first")
    memory.published()
    second, other = put(memory, b"second"), put(memory, b"other", "online")
    assert open_shared(first.handle) is not None, "the bus still names it"
    # The bus was away, so another one takes its place.
    third = put(memory, b"third")
    assert open_shared(second.handle) is None
    memory.published()
    memory.published()
    assert open_shared(first.handle) is None
    assert [found and bytes(found) for found in map(open_shared, (third.handle, other.handle))] == [b"third", b"other"]
    assert repr(memory) == "SnapshotMemory(stats.users, online)"
    for one in (third, other):
        one.close()


def test_no_room_is_told_once() -> None:
    def full(_body: bytes) -> SharedBytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    memory = SnapshotMemory(full)
    with structlog.testing.capture_logs() as lines:
        assert memory.put("stats.users", b"x") is None
        assert memory.put("stats.users", b"x") is None
    assert [(line["event"], line["error"]) for line in lines] == [
        ("large snapshots are not shared: each worker keeps a copy", "No space left on device")
    ]
    assert not memory.works
    assert repr(memory) == "SnapshotMemory(nothing, given up)"


def test_a_worker_that_cannot_map_the_newest_revision_ends_sharing() -> None:
    memory = SnapshotMemory()
    first = put(memory, b"first")
    memory.published()
    second = put(memory, b"second")
    with structlog.testing.capture_logs() as lines:
        assert not memory.cannot_be_mapped(first.handle), "it was superseded when the worker looked for it"
        assert not memory.cannot_be_mapped("of a supervisor before")
        assert memory.works
        assert memory.cannot_be_mapped(second.handle)
        assert not memory.cannot_be_mapped(second.handle)
    assert len(lines) == 1
    assert memory.put("stats.users", b"third") is None
    memory.published()
    second.close()
