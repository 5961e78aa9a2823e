"""Who has connections still, as far as the core and its log tell."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from pgnode.supervisor.host.log_ring import Block
from pgnode.supervisor.sessions.due import Batch
from pgnode.supervisor.sessions.log_search import users_told
from pgnode.supervisor.users.decoding import Inbounds
from pgnode.xray.client.api import CoreApi
from pgnode.xray.config.accounts import email_key

#: Up to so many users are asked for one by one at once.
ALONE_MAX: Final = 4
#: Of more, the core first says who is online. Up to so many of these are asked for one by one; of more, all are read.
NAMED_MAX: Final = 64

#: Users that are read before others get their turn.
SLICE: Final = 200


async def online_from(api: CoreApi, emails: Collection[str], seconds: float) -> dict[str, Mapping[str, int]]:
    """Return from where users are online, those who are.

    Args:
        api: The core's API.
        emails: The users, as the core has them.
        seconds: That it has for one answer.

    Returns:
        User -> address -> Unix second at which the last connection from there began.

    Raises:
        CoreApiError: The core does not answer.
    """
    wanted = set(emails)
    if len(wanted) > ALONE_MAX:
        wanted &= await api.stats.online_users(seconds)
    if len(wanted) > NAMED_MAX:
        everybody = await api.stats.online(seconds)
        return {email: everybody[email] for email in wanted if everybody.get(email)}
    ordered = sorted(wanted)
    found = await asyncio.gather(*(api.stats.online_ips(email, seconds) for email in ordered))
    return {email: addresses for email, addresses in zip(ordered, found, strict=True) if addresses}


async def read_who_is_seen(
    batch: Batch, api: CoreApi | None, blocks: Iterable[Block], inbounds: Inbounds, seconds: float
) -> None:
    """Read those of a batch who are online, or whom a line of the log is about; nothing is to be ended of others.

    Args:
        batch: The batch.
        api: The core's API; None where there is none: then everybody is read.
        blocks: The log.
        inbounds: The inbounds of the core, by tag.
        seconds: That the core has for its answer.

    Raises:
        CoreApiError: The core does not answer.
    """
    if not batch.unread:
        return
    if api is None:
        keys = list(batch.unread)
    else:
        online = await api.stats.online_users(seconds)
        keys = batch.unread_among(await users_told(blocks), set(map(email_key, online)))
    for number, key in enumerate(keys, 1):
        batch.read(key, inbounds)
        if number % SLICE == 0:
            await asyncio.sleep(0)
