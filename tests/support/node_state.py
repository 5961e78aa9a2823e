"""What a node with a Valkey of its own says of itself, read from the store."""

from __future__ import annotations

from pgnode.bus.connection import connect
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import STATE, NodeStatus
from pgnode.settings import load
from pgnode.testing.node import NodeProcess


async def node_status(node: NodeProcess) -> NodeStatus:
    """Its state as workers know it."""
    redis = connect(load(state_dir=node.state_dir).bus_url, connections=1)
    try:
        body: bytes = await redis.hget(Keys("pgnode").snapshot(STATE), "body")  # type: ignore[assignment]
        return NodeStatus.decode(body)
    finally:
        await redis.aclose()
