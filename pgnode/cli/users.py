"""``pgnode users``: who the node should serve, whom the core has or does not have yet, and who was refused.

Desired and failed users come from the node's store; its supervisor is asked for whom the core does not have as desired.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from pgnode.bus.connection import BUS_ERRORS, connect, unreadable
from pgnode.bus.keys import Keys
from pgnode.bus.state import WITH_CORE
from pgnode.bus.users import StoredUsers, UserDrift, ask_who_waits, read_users
from pgnode.settings import Settings

_NOBODY = UserDrift(frozenset(), frozenset(), frozenset())


def lines(
    stored: StoredUsers, waiting: UserDrift | None, *, failed_only: bool = False, waiting_only: bool = False
) -> Iterator[str]:
    """The report, line by line: a summary, then one user a line, sorted by e-mail. Pure but for the local time zone.

    ``waiting`` is None where that is not known. With both of the last two only users of either kind are shown.
    """
    status = stored.status
    if status is None:
        yield "no state yet: the node has not run with this store"
        return
    with_core = status.state in WITH_CORE
    yield (
        f"{len(stored.desired)} desired, {_applied(stored, waiting)}, {len(stored.failed)} failed; "
        f"node {status.state}{', panel away' if status.degraded else ''}"
    )
    if with_core and waiting is None:
        yield "the supervisor does not answer: who is not applied is not known"
    elif not with_core and waiting_only:
        yield "no core runs: nobody is applied"
    shown = waiting if with_core and waiting is not None else _NOBODY
    everybody = not failed_only and not waiting_only
    for key in sorted(stored.desired.keys() | stored.failed.keys() | shown.coming | shown.leaving):
        user, failure = stored.desired.get(key), stored.failed.get(key)
        waits = _waits(key, shown)
        if not (everybody or (failed_only and failure is not None) or (waiting_only and waits)):
            continue
        if failure is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure.at_ms / 1000))
            kept = f"; as before in {', '.join(user.inbounds)}" if user is not None else ""
            yield f"{failure.email}  failed since {since}: {failure.cause}{kept}{f'; {waits}' if waits else ''}"
        elif user is not None:
            yield f"{user.email}  {', '.join(user.inbounds)}{f'; {waits}' if waits else ''}"
        else:
            yield f"{key}  {waits}"


def _applied(stored: StoredUsers, waiting: UserDrift | None) -> str:
    if waiting is None:
        return f"{stored.applied_count} applied"
    coming = len(stored.desired.keys() & waiting.coming)
    parts = [f"{len(stored.desired) - coming} applied"]
    if coming:
        parts.append(f"{coming} not yet")
    if waiting.leaving:
        parts.append(f"{len(waiting.leaving)} to be removed")
    return ", ".join(parts)


def _waits(key: str, waiting: UserDrift) -> str:
    """What of this user is not as desired; "" when nothing."""
    if key not in waiting.coming and key not in waiting.leaving:
        return ""
    what = "not applied yet" if key in waiting.coming else "removed, and not from the core yet"
    return f"{what}: the core did not answer" if key in waiting.uncertain else what


def report(settings: Settings, *, failed_only: bool = False, waiting_only: bool = False) -> list[str]:
    """What :func:`lines` says of the node with these settings. Raises OperatorError when its store cannot be read."""
    stored, waiting = asyncio.run(_read(settings))
    return list(lines(stored, waiting, failed_only=failed_only, waiting_only=waiting_only))


async def _read(settings: Settings) -> tuple[StoredUsers, UserDrift | None]:
    keys = Keys(settings.redis_prefix)
    redis = connect(settings.bus_url, connections=1)
    try:
        stored = await read_users(redis, keys)
        if stored.status is None or stored.status.state not in WITH_CORE:
            return stored, None
        waiting = await ask_who_waits(settings.bus_url, keys)
        # What was desired meanwhile, too.
        return await read_users(redis, keys), waiting
    except BUS_ERRORS as error:
        raise unreadable(settings, error) from None
    finally:
        await redis.aclose()
