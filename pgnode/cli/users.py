"""``pgnode users``: desired, applied and rejected users.

Desired and failed users come from the node's store, also while the node is down; its supervisor is asked for whom the core does
not have as desired.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import NodeStatus
from pgnode.bus.state import WITH_CORE
from pgnode.bus.users import ASK_SECONDS, UserDrift, ask_who_waits, read_status
from pgnode.cli.output import say
from pgnode.cli.stored import no_state, not_running
from pgnode.settings import Settings, load
from pgnode.store.reader import read_state, stored_at
from pgnode.store.rows import RejectedUser
from pgnode.store.state import StoredState
from pgnode.wire import service_pb2 as pb


@dataclass(frozen=True, slots=True)
class ShownUsers:
    """What is shown beside :class:`~pgnode.bus.users.UserDrift`; e-mails in lower case are the keys."""

    #: None where the node does not answer.
    status: NodeStatus | None
    desired: dict[str, pb.User]
    failed: dict[str, RejectedUser]
    #: When the store was written last, Unix seconds.
    stored_at: float = 0.0

    @classmethod
    def of(cls, state: StoredState, status: NodeStatus | None, stored_at: float) -> ShownUsers:
        """Make it from what the store and the bus say."""
        desired = {key: pb.User.FromString(raw) for key, raw in state.users.items()}
        return cls(status, desired, state.rejected, stored_at)


_NOBODY = UserDrift(frozenset(), frozenset(), frozenset())


def lines(
    stored: ShownUsers, waiting: UserDrift | None, *, failed_only: bool = False, waiting_only: bool = False
) -> Iterator[str]:
    """Yield the report, line by line: a summary, then one user a line, sorted by e-mail.

    Args:
        stored: What the store and the node say.
        waiting: Whom the core does not have as desired; None where that is not known.
        failed_only: Leave out who was not refused; with ``waiting_only`` users of either kind are shown.
        waiting_only: Leave out whom the core has as desired.

    Yields:
        A line.
    """
    status = stored.status
    with_core = status is not None and status.state in WITH_CORE
    if status is None:
        yield f"{len(stored.desired)} desired, {len(stored.failed)} failed; {not_running(stored.stored_at)}"
    else:
        yield (
            f"{len(stored.desired)} desired, {_applied(stored, with_core, waiting)}, {len(stored.failed)} failed; "
            f"node {status.state}{', panel away' if status.degraded else ''}"
        )
    if with_core and waiting is None:
        yield "the supervisor does not answer: who is not applied is not known"
    elif not with_core and waiting_only:
        yield "no core runs: nobody is applied"
    shown = waiting if with_core and waiting is not None else _NOBODY
    everybody = not failed_only and not waiting_only
    for key in sorted(stored.desired.keys() | stored.failed.keys() | shown.to_add | shown.to_remove):
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


def _applied(stored: ShownUsers, with_core: bool, waiting: UserDrift | None) -> str:
    if not with_core:
        return "0 applied"
    if waiting is None:
        return "applied not known"
    to_add = len(stored.desired.keys() & waiting.to_add)
    parts = [f"{len(stored.desired) - to_add} applied"]
    if to_add:
        parts.append(f"{to_add} not yet")
    if waiting.to_remove:
        parts.append(f"{len(waiting.to_remove)} to be removed")
    return ", ".join(parts)


def _waits(key: str, waiting: UserDrift) -> str:
    """Say what of this user is not as desired; "" when nothing."""
    if key not in waiting.to_add and key not in waiting.to_remove:
        return ""
    what = "not applied yet" if key in waiting.to_add else "removed, still active in the core"
    return f"{what}: the core did not answer" if key in waiting.uncertain else what


def show_users(*, failed_only: bool = False, waiting_only: bool = False, ask_seconds: float = ASK_SECONDS) -> int:
    """Print what :func:`lines` says of the node with the settings of this environment.

    Args:
        failed_only: Leave out who was not refused.
        waiting_only: Leave out whom the core has as desired.
        ask_seconds: Seconds that the supervisor has to answer.

    Returns:
        The exit code.

    Raises:
        OperatorError: There is no store, or it cannot be read.
    """
    shown, waiting = asyncio.run(_read(load(), ask_seconds))
    for line in lines(shown, waiting, failed_only=failed_only, waiting_only=waiting_only):
        say(line)
    return 0


async def _read(settings: Settings, ask_seconds: float) -> tuple[ShownUsers, UserDrift | None]:
    keys = Keys(settings.redis_prefix)
    redis = connect(settings.bus_url, connections=1)
    status: NodeStatus | None = None
    waiting: UserDrift | None = None
    try:
        status = await read_status(redis, keys)
        if status is not None:
            waiting = await ask_who_waits(settings.bus_url, keys, ask_seconds=ask_seconds)
        if waiting is None and settings.redis_url is not None:
            # An external Redis goes on without the node, and has its last state.
            status = None
    except BUS_ERRORS:
        pass
    finally:
        await redis.aclose()
    # After the question, so that what was desired meanwhile is in it.
    state = await asyncio.to_thread(read_state, settings.store_path)
    if state is None:
        raise no_state(settings)
    return ShownUsers.of(state, status, stored_at(settings.store_path)), waiting
