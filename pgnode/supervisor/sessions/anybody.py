"""Whether anybody is connected at all: where nobody is, users who departed need not be looked after, nor even read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from pgnode.os_support.tcp_ends import Seen
from pgnode.supervisor.sessions.plan import doors_of
from pgnode.supervisor.users.decoding import Inbounds
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.process.reach import UnreachableError
from pgnode.xray.process.reach_messages import Question
from pgnode.xray.process.running import RunningCore

log = structlog.get_logger(__name__)

#: Looks into a core. Raises UnreachableError, OSError.
Look = Callable[[RunningCore, Question], Awaitable[Seen]]

#: Seconds for which nobody asks again where somebody was connected.
CONNECTED_SECONDS: Final = 5.0

#: The kinds of sockets of an inbound all of whose connections can be seen.
_TCP_ALONE: Final = frozenset({"tcp"})


class Anybody:
    """Asks the core, and remembers for a while that somebody was there. Belongs to the supervisor's loop.

    Args:
        look: Looks into the core.
        call_seconds: Seconds that the core has for one answer.
        connected_seconds: Seconds for which nobody asks again where somebody was connected.
    """

    def __init__(self, look: Look, call_seconds: float, *, connected_seconds: float = CONNECTED_SECONDS) -> None:
        self._look = look
        self._call_seconds = call_seconds
        self._connected_seconds = connected_seconds
        #: Seconds of the loop's clock.
        self._until = -math.inf

    def __repr__(self) -> str:
        return f"Anybody(until {self._until:.1f})"

    async def is_connected(self, running: RunningCore | None, api: CoreApi | None, inbounds: Inbounds) -> bool:
        """Tell whether there is a connection that could have to end; whoever comes later is checked by the core.

        Args:
            running: The core; None for none.
            api: Its API.
            inbounds: Those whose users the node owns, by tag.

        Returns:
            Whether there may be one: True also where that is not known.
        """
        loop = asyncio.get_running_loop()
        doors = doors_of(inbounds.values())
        if running is None or api is None or loop.time() < self._until or doors.keys() != inbounds.keys():
            return True
        try:
            somebody = bool((await self._look(running, Question(list(doors.values()), (), listed=True))).found)
            if not somebody and any(spec.kinds != _TCP_ALONE for spec in inbounds.values()):
                # What cannot be ended, since it is no connection of TCP, is counted.
                somebody = bool(await api.stats.online_users(self._call_seconds))
        except (UnreachableError, OSError, CoreApiError):
            # Whoever looks after the users meets the same, and says so.
            return True
        except Exception:
            log.exception("whether anybody is connected is not known")
            return True
        if somebody:
            self._until = loop.time() + self._connected_seconds
        return somebody
