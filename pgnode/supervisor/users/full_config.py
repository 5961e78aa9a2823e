"""The whole config of a core that is about to be started, with all desired users."""

from __future__ import annotations

import asyncio

from pgnode.supervisor.users.decoding import Inbounds, decode
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.table import UserTable
from pgnode.xray.config.document import BaseConfig, render

#: Users encoded at a time before the event loop gets its turn.
SLICE = 1000


async def render_config(
    base: BaseConfig,
    users: UserTable,
    inbounds: Inbounds,
    cache: ClientJsonCache | None = None,
) -> str:
    """Make the config of a core with all desired users.

    Args:
        base: The config without users.
        users: Who is desired.
        inbounds: The inbounds that get users, by tag.
        cache: Clients that were made on the way; they are used up.

    Returns:
        The config, as JSON.
    """
    known = ClientJsonCache(inbounds) if cache is None else cache
    for number, key in enumerate(known.missing(users.desired), 1):
        raw = users.desired[key]
        known.put(key, raw, *decode(raw, inbounds))
        if number % SLICE == 0:
            await asyncio.sleep(0)
    return await asyncio.to_thread(lambda: render(base, known.hand_over(users.desired)))
