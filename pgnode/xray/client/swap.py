"""Many users at once: an inbound is taken out of the running core, given another list of users, and put in again.

Live connections over TCP go on; the inbound does not listen for some milliseconds. For some hundred users and more that is
faster than adding and removing each (measured; :mod:`pgnode.supervisor.users.swap_policy` decides).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from pgnode.os_support.fault_points import async_fault_point
from pgnode.xray.client.channel import MAX_SEND_BYTES, decode_answer
from pgnode.xray.client.errors import CoreApiError, ErrorKind, SwapFailedError
from pgnode.xray.client.inbounds import InboundsClient, with_users
from pgnode.xray.client.users import AlterOperation, UsersClient
from pgnode.xray.config.protocols import SINGLE_USER_SETTINGS, can_be_swapped
from pgnode.xray.proto import core_pb2, handler_command_pb2

#: Makes the serialized User messages of the users an inbound had.
UsersBefore = Callable[[], Awaitable[Sequence[bytes]]]


class InboundSwap:
    """Exchanges the users of inbounds of one running core.

    ``limit_bytes`` is what an inbound with its users may have in one message to the core.
    """

    def __init__(self, inbounds: InboundsClient, users: UsersClient, *, limit_bytes: int = MAX_SEND_BYTES) -> None:
        self._inbounds = inbounds
        self._users = users
        self._limit_bytes = limit_bytes
        #: Swaps whose inbound is out of the core; they go on when their caller gives up.
        self._finishing: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<InboundSwap {len(self._finishing)} under way>"

    async def replace_users(
        self, tag: str, users: Sequence[bytes], deadline_seconds: float, before: UsersBefore | None = None
    ) -> Sequence[bytes]:
        """Give a running inbound exactly ``users`` by removing and adding it again.

        If the core refuses the new one (a user twice, say), the old one is put back with the users it had. A Hysteria inbound
        is refused untouched (REFUSED): its clients would stall.

        Args:
            tag: The inbound.
            users: Serialized xray.common.protocol.User messages.
            deadline_seconds: Seconds until the inbound has to be out; what follows has as many again.
            before: Makes the messages of the users it has now; without it the core is asked for them first.

        Returns:
            Those, from the end of ``users``, that did not fit into one message to the core; the caller adds them with
            ``alter_many``.

        Raises:
            CoreApiError: The inbound is as it was before.
            SwapFailedError: The core refused the new inbound; ``restored`` tells whether the old one is back.
        """
        end = time.monotonic() + deadline_seconds
        inbound = await self._inbounds.bare_inbound(tag, deadline_seconds)
        if not can_be_swapped(inbound.proxy_settings.type):
            text = f"inbound {tag!r} cannot be swapped without cutting off its clients; alter its users instead"
            raise CoreApiError(text, ErrorKind.REFUSED)
        changed, rest = with_users(inbound, users, self._limit_bytes)
        if before is None:
            listed = b""
            if inbound.proxy_settings.type != SINGLE_USER_SETTINGS:
                listed = await self._users.inbound_users_answer(tag, end - time.monotonic())
            before = _listed(listed)
        await self._inbounds.take_out(tag, end - time.monotonic())
        # From here on the inbound is gone: a caller that gives up waiting must not leave it so.
        finish = asyncio.create_task(self._finish(changed, inbound, before, deadline_seconds))
        self._finishing.add(finish)
        finish.add_done_callback(self._finishing.discard)
        await asyncio.shield(finish)
        return rest

    async def _finish(
        self,
        changed: core_pb2.InboundHandlerConfig,
        inbound: core_pb2.InboundHandlerConfig,
        before: UsersBefore,
        deadline_seconds: float,
    ) -> None:
        await async_fault_point("swap.taken_out")
        try:
            await self._inbounds.put_in(changed, deadline_seconds)
        except CoreApiError as error:
            restored = await self._restore(inbound, await before(), deadline_seconds)
            state = "the old one is back" if restored else "the old one could not be put back"
            text = f"{error} (inbound {inbound.tag!r}; {state})"
            raise SwapFailedError(text, error.kind, restored=restored) from None

    async def _restore(
        self, inbound: core_pb2.InboundHandlerConfig, before: Sequence[bytes], deadline_seconds: float
    ) -> bool:
        rest: Sequence[bytes] = ()
        if before:
            inbound, rest = with_users(inbound, before, self._limit_bytes)
        try:
            await self._inbounds.put_in(inbound, deadline_seconds)
        except CoreApiError:
            return False
        operations = [AlterOperation.add(inbound.tag, user) for user in rest]
        return not any(await self._users.alter_many(operations, deadline_seconds))


def _listed(answer: bytes) -> UsersBefore:
    """Keep the core's answer as it came; it is decoded only when the swap fails."""

    async def users() -> Sequence[bytes]:
        had = decode_answer(handler_command_pb2.GetInboundUserResponse, answer).users
        return [user.SerializeToString() for user in had]

    return users
