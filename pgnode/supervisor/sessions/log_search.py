"""Searches of the log's ring for connections, a block at a time: the event loop gets its turn after each."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

from pgnode.supervisor.host.log_ring import Block, LogRing
from pgnode.supervisor.sessions.access_lines import Peer, lines_of, needles_of
from pgnode.supervisor.sessions.due import Due
from pgnode.supervisor.sessions.plan import NEEDLES_MAX, Found, Search
from pgnode.xray.config.inbounds import InboundSpec


def told_blocks(ring: LogRing, since: int | None) -> list[Block]:
    """Return the blocks that say where connections come from, the oldest first.

    Args:
        ring: The last lines.
        since: From which line on they do; None: they do not.

    Returns:
        The blocks, without lines before that.
    """
    if since is None:
        return []
    blocks = [block for block in ring.oldest_first() if block.of_core and block.end > since]
    return [block if block.number >= since else block.without(since - block.number) for block in blocks]


async def find(blocks: Sequence[Block], dues: Collection[Due], inbounds: Mapping[str, InboundSpec]) -> Found:
    """Find the connections of users who are gone.

    Args:
        blocks: The log.
        dues: Whose, and where.
        inbounds: The inbounds of the core, by tag.

    Returns:
        What is to be ended, and what is left.
    """
    if not blocks:
        return Found()
    search = Search(dues, inbounds)
    for look in (search.find_ends, search.find_owners):
        for block in blocks:
            look(block)
            await asyncio.sleep(0)
        if not search.ends_found():
            break
    return search.result()


async def users_told(blocks: Iterable[Block]) -> set[str]:
    """Return the users that some line is about, as :func:`name_in_log` writes them."""
    told: set[str] = set()
    for block in blocks:
        told.update(line.user for line in lines_of(block) if line.user is not None)
        await asyncio.sleep(0)
    return told


async def ends_told(blocks: Iterable[Block], peers: Collection[Peer]) -> set[Peer]:
    """Return those ends that some line is about.

    Args:
        blocks: The log.
        peers: The ends.

    Returns:
        Some of them.
    """
    needles = [needle for peer in peers for needle in needles_of(peer)] if len(peers) <= NEEDLES_MAX else []
    told: set[Peer] = set()
    for block in blocks if peers else ():
        raw = block.raw.lower() if needles else b""
        if not needles or any(needle in raw for needle in needles):
            told.update(line.peer for line in lines_of(block) if line.peer in peers)
        await asyncio.sleep(0)
    return told
