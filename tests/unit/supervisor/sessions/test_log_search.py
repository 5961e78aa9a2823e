"""The log is searched from the line on that says where connections come from, block by block."""

from __future__ import annotations

import pytest

from pgnode.supervisor.host.log_ring import LogRing
from pgnode.supervisor.sessions.due import Due
from pgnode.supervisor.sessions.log_search import ends_told, find, told_blocks, users_told
from pgnode.supervisor.sessions.plan import NEEDLES_MAX, Found, Hit
from tests.unit.supervisor.sessions.lines import line, ring_of, spec

ALICE = Due("alice", "in", "alice", None, 0.0)


def test_only_lines_that_tell_are_searched() -> None:
    ring = LogRing(100)
    ring.put(b"one\ntwo", 0.0, 2)
    ring.put(b"of the node", 5.0, 1, of_core=False)
    ring.put(b"four", 9.0, 1)
    assert told_blocks(ring, None) == []
    assert [block.raw for block in told_blocks(ring, 2)] == [b"two", b"four"]
    assert [block.raw for block in told_blocks(ring, 1)] == [b"one\ntwo", b"four"]
    assert told_blocks(ring, 5) == []


async def test_connections_are_found() -> None:
    ring = ring_of(line("192.0.2.1:1", "alice"), line("192.0.2.1:2", "bob"))
    assert (await find(told_blocks(ring, 1), [ALICE], {"in": spec("in")})).hits == {
        Hit(("192.0.2.1", 1), "in", "alice")
    }
    assert await find(told_blocks(ring, 2), [ALICE], {"in": spec("in")}) == Found()


@pytest.mark.parametrize("more", [0, NEEDLES_MAX])
async def test_it_is_known_which_ends_a_line_is_about(more: int) -> None:
    ring = ring_of(line("192.0.2.1:1", "alice"), line("[2001:db8::1]:2", "bob"))
    wanted = {("192.0.2.1", 1), ("192.0.2.1", 3), *(("192.0.2.9", port) for port in range(more))}
    assert await ends_told(told_blocks(ring, 1), wanted) == {("192.0.2.1", 1)}
    assert await ends_told(told_blocks(ring, 1), set()) == set()


async def test_it_is_known_which_users_a_line_is_about() -> None:
    ring = ring_of(line("192.0.2.1:1", "Alice"), line("192.0.2.1:2", "bob"), line("192.0.2.1:3"), b"another line")
    assert await users_told(told_blocks(ring, 1)) == {"alice", "bob"}
