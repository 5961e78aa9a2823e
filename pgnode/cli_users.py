"""``pgnode users``: who the node should serve, whom the core has, and who was refused, from the node's store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from pgnode.bus.connection import BUS_ERRORS, connect, unreadable
from pgnode.bus.keys import Keys
from pgnode.bus.users import StoredUsers, read_users
from pgnode.settings import Settings


def lines(stored: StoredUsers, *, failed_only: bool) -> Iterator[str]:
    """The report, line by line: a summary, then one user a line, sorted by e-mail. Pure but for the local time zone."""
    status = stored.status
    if status is None:
        yield "no state yet: the node has not run with this store"
        return
    yield (
        f"{len(stored.desired)} desired, {stored.applied_count} applied, {len(stored.failed)} failed; "
        f"node {status.state}{', panel away' if status.degraded else ''}"
    )
    for key in sorted(stored.desired.keys() | stored.failed.keys()):
        user, failure = stored.desired.get(key), stored.failed.get(key)
        if failure is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure.at_ms / 1000))
            kept = f"; as before in {', '.join(user.inbounds)}" if user is not None else ""
            yield f"{failure.email}  failed since {since}: {failure.cause}{kept}"
        elif user is not None and not failed_only:
            yield f"{user.email}  {', '.join(user.inbounds)}"


def report(settings: Settings, *, failed_only: bool) -> list[str]:
    """What :func:`lines` says of the node with these settings. Raises OperatorError when its store cannot be read."""
    return asyncio.run(_report(settings, failed_only=failed_only))


async def _report(settings: Settings, *, failed_only: bool) -> list[str]:
    redis = connect(settings.bus_url, connections=1)
    try:
        stored = await read_users(redis, Keys(settings.redis_prefix))
    except BUS_ERRORS as error:
        raise unreadable(settings, error) from None
    finally:
        await redis.aclose()
    return list(lines(stored, failed_only=failed_only))
