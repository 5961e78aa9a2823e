"""What an operator wants of one user's connections: to see them, to end them, and why some were left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from pgnode.os_support.tcp_ends import Connection, plain
from pgnode.supervisor.control.messages import RefusedError
from pgnode.supervisor.lifecycle.node import Node
from pgnode.supervisor.sessions.access_lines import name_in_log
from pgnode.supervisor.sessions.by_address import others_by_address
from pgnode.supervisor.sessions.cutter import Cutter
from pgnode.supervisor.sessions.listing import Session, SessionList
from pgnode.supervisor.sessions.plan import LEFT_WORDS, SHARED_TRANSPORTS
from pgnode.wire.users import leading_email
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.config.accounts import email_key
from pgnode.xray.process.reach import UnreachableError

#: Seconds that the core has to say who is online.
ONLINE_SECONDS = 5.0


class CoreView(Protocol):
    """The core as this sees it."""

    @property
    def api(self) -> CoreApi | None:
        """Its API."""


class SessionOrders:
    """Belongs to the supervisor's loop.

    Args:
        cutter: Knows connections, and ends them.
        node: Has the users.
        core: The core.
    """

    def __init__(self, cutter: Cutter, node: Node, core: CoreView) -> None:
        self._cutter = cutter
        self._node = node
        self._core = core

    def __repr__(self) -> str:
        return f"SessionOrders({self._cutter!r})"

    async def order(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out what is wanted, and say what there is.

        Args:
            values: ``user``, and what to ``do``: "look", "disconnect" or "left".

        Returns:
            ``sessions`` for a look, ``ended`` for a disconnect; and what was ``left`` of the user the last time, None for
            nothing.

        Raises:
            RefusedError: It is not understood, or not possible.
        """
        user = values.get("user")
        if not isinstance(user, str) or not user:
            raise RefusedError("whose connections are meant is not said")
        key = email_key(user)
        found: dict[str, Any] = {}
        try:
            match values.get("do"):
                case "look":
                    found["sessions"] = [session.encode() for session in await self._sessions(key, user)]
                case "disconnect":
                    found["ended"] = await self._disconnect(key, user)
                case "left":
                    pass
                case _:
                    raise RefusedError("what is to be done is look, disconnect or left")
        except UnreachableError as error:
            raise RefusedError(f"connections cannot be seen: {error}") from None
        except (OSError, CoreApiError) as error:
            raise RefusedError(f"the core did not tell: {error}") from None
        left = self._cutter.counts.users.get(key)
        words = [LEFT_WORDS[why] for why in left.reasons] if left is not None else []
        return {**found, "left": {"at": left.at, "reasons": words} if left is not None else None}

    async def _sessions(self, key: str, user: str) -> list[Session]:
        """List a user's connections. Raises UnreachableError, OSError, CoreApiError."""
        base, api = self._node.core_base, self._core.api
        if base is None or api is None:
            return []
        shared = {spec.tag for spec in base.inbounds if spec.transport in SHARED_TRANSPORTS}
        connections: list[tuple[str, Connection]] = await self._cutter.connections()
        listed = SessionList(connections, shared)
        for block in self._cutter.told_blocks():
            listed.read(block)
            await asyncio.sleep(0)
        online = await api.stats.online(ONLINE_SECONDS)
        own = {
            address: at for email, found in online.items() if email_key(email) == key for address, at in found.items()
        }
        by_address = others_by_address(online)
        others = {address for address in map(_plain, own) if by_address.get(address, set()) - {key}}
        return listed.of(name_in_log(user), own, others)

    async def _disconnect(self, key: str, user: str) -> int:
        raw = self._node.users.table.get(key)
        return await self._cutter.disconnect(key, (leading_email(raw) if raw is not None else None) or user)


def _plain(address: str) -> str:
    return plain(address.strip("[]"))
