"""What an operator wants of a drain, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pgnode.supervisor.control.messages import RefusedError
from pgnode.supervisor.control.report import DrainReport
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle.node import Node
from pgnode.supervisor.sessions.connections import count_connections

#: Days for which a node is drained at most, where that is to end by itself.
DAYS_MAX: Final = 366


class DrainOrders:
    """Belongs to the supervisor's loop.

    Args:
        node: Has the drain.
        core: The core's process.
    """

    def __init__(self, node: Node, core: CoreController) -> None:
        self._node = node
        self._core = core

    def __repr__(self) -> str:
        return f"DrainOrders({self._node.drain!r})"

    async def order(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out what is wanted, and say how far the drain is.

        Args:
            values: ``do`` is "begin" (``seconds``, None for no end, and ``hold`` belong to it), "cancel" or "look".

        Returns:
            How far it is, with the connections that are open now.

        Raises:
            RefusedError: It is not understood; nothing was changed.
        """
        drain, ended = self._node.drain, False
        match values.get("do"):
            case "begin":
                seconds = values.get("seconds")
                if seconds is not None and not _is_time(seconds):
                    raise RefusedError(f"{seconds!r:.40} is no number of seconds above 0 and up to {DAYS_MAX} days")
                await drain.begin(seconds, hold=values.get("hold") is True)
            case "cancel":
                ended = await drain.cancel()
            case "look":
                pass
            case _:
                raise RefusedError("what is to be done is begin, cancel or look")
        return {"ended": ended, "drain": drain_report(self._node).encode(), "connections": await self._connections()}

    async def _connections(self) -> dict[str, int]:
        """Count users' connections by inbound; those with none are left out."""
        counted = await count_connections(self._core.running, self._node.core_base)
        return {inbound: number for inbound, number in counted.items() if number}


def _is_time(seconds: object) -> bool:
    return isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds <= DAYS_MAX * 86_400


def drain_report(node: Node) -> DrainReport:
    """Say how far a node's drain is, from memory."""
    drain = node.drain
    order = drain.order
    return DrainReport(
        draining=order is not None,
        since=order.since if order is not None else None,
        until=order.until if order is not None else None,
        hold=order is not None and order.hold,
        away=drain.away,
        stays=[f"{title} keeps listening: {why}" for title, why in drain.plan().kept.items()]
        if order is not None
        else [],
        error=drain.error,
    )
