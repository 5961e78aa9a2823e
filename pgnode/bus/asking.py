"""One question of an operator's command to the supervisor of a running node."""

from __future__ import annotations

import secrets

from pgnode.bus.client import CommandClient
from pgnode.bus.commands import Kind
from pgnode.bus.keys import Keys
from pgnode.bus.waits import CLIENT_WAITS, ClientWaits
from pgnode.errors import NodeError

#: Seconds that the supervisor has to answer an operator's command.
ASK_SECONDS = 4.0


async def ask(
    url: str, keys: Keys, kind: Kind, *, ask_seconds: float = ASK_SECONDS, waits: ClientWaits = CLIENT_WAITS
) -> bytes | None:
    """Ask the supervisor of a node.

    Args:
        url: Address of the node's Redis.
        keys: The node's keys.
        kind: What is asked.
        ask_seconds: Seconds that the supervisor has.
        waits: How long to wait for what.

    Returns:
        The body of its answer; None where it does not answer.
    """
    client = CommandClient(url, keys, f"operator-{secrets.token_hex(4)}", waits=waits)
    client.start()
    try:
        return await client.call(kind, b"", ask_seconds)
    except NodeError:
        return None
    finally:
        await client.close()
