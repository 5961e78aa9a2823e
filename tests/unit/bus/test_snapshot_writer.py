"""Revisions rise, and everything can be written again."""

from __future__ import annotations

from redis.asyncio import Redis

from pgnode.bus.keys import Keys
from pgnode.bus.snapshot_writer import SnapshotWriter
from pgnode.bus.snapshots import INLINE_BYTES, STATS_USERS, SYSTEM


def test_revisions_rise_and_all_of_them_are_written_again() -> None:
    writer = SnapshotWriter(Keys("test"))
    pipe = Redis().pipeline()
    writer.put(pipe, SYSTEM, b"small")
    first = writer.get(SYSTEM)
    writer.put(pipe, SYSTEM, b"again")
    writer.put(pipe, STATS_USERS, bytes(INLINE_BYTES + 1))
    second, large = writer.get(SYSTEM), writer.get(STATS_USERS)
    assert first is not None
    assert second is not None
    assert large is not None
    assert first.rev < second.rev < large.rev
    assert writer.get("backend") is None
    assert repr(writer) == f"SnapshotWriter(system@{second.rev}, stats.users@{large.rev})"
    written = [args for args, _ in pipe.command_stack]
    assert [args[0] for args in written] == ["HSET", "PUBLISH"] * 3
    assert written[-1] == ("PUBLISH", "test:snapshots", f"stats.users {large.rev} {large.at_ms}".encode())
    again = Redis().pipeline()
    writer.put_all(again)
    assert [args for args, _ in again.command_stack] == written[2:]
