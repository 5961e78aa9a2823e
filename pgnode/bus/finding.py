"""Finds the server that has the node's keys, where sentinels or the servers of a cluster have to be asked for it.

All keys of a node are in one hash tag, so one server of a cluster has all of them, and a plain connection to it is enough. What
changes is found out by its refusals (:data:`ELSEWHERE`): then the connection is given up, and the next one is made to the server
that is named by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, RedisError

from pgnode.bus.asking import ask
from pgnode.os_support.aio import end_tasks
from pgnode.settings.redis_address import Host

#: What a server answers that does not have the keys now, or may not change them, by how it begins.
ELSEWHERE = ("READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "UNBLOCKED")

#: Seconds after which the next one is asked, too.
NEXT_SECONDS = 0.3

#: Servers that are remembered for being asked, at most.
HOSTS_MAX = 16

#: Asks one server for the one that has the keys. Raises RedisError, OSError or TimeoutError.
Ask = Callable[[Host], Awaitable[Host]]


class NotFoundError(RedisConnectionError):
    """Nobody who was asked names a server that has the node's keys; the cause is the last answer."""


class UnknownMasterError(RedisConnectionError):
    """A sentinel watches no master of this name."""


class Finder:
    """Asks for the server. Belongs to one event loop.

    Args:
        hosts: Who can be asked.
        ask: Asks one of them.
        next_seconds: Seconds after which the next one is asked, too.
    """

    def __init__(self, hosts: Sequence[Host], ask: Ask, *, next_seconds: float = NEXT_SECONDS) -> None:
        self._hosts = list(hosts)
        self._ask = ask
        self._next_seconds = next_seconds

    def __repr__(self) -> str:
        return f"Finder({_names(self._hosts)})"

    def ask_first(self, host: Host) -> None:
        """Ask this one first from now on, also where nobody had named it before."""
        self._hosts = [host, *(other for other in self._hosts if other != host)][:HOSTS_MAX]

    def ask_last(self) -> None:
        """Ask another one first from now on: the server that was named last cannot be used."""
        self._hosts = [*self._hosts[1:], *self._hosts[:1]]

    async def find(self) -> Host:
        """Ask one after the other, and the next one already when one takes long; the first good answer counts.

        Returns:
            The server's host and port.

        Raises:
            NotFoundError: Nobody names one.
        """
        waiting = list(self._hosts)
        asked: dict[asyncio.Task[Host], Host] = {}
        reasons: list[str] = []
        last: BaseException | None = None
        try:
            while waiting or asked:
                if waiting:
                    host = waiting.pop(0)
                    asked[asyncio.ensure_future(self._ask(host))] = host
                limit = self._next_seconds if waiting else None
                done, _ = await asyncio.wait(asked, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    host = asked.pop(task)
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, (RedisError, OSError, TimeoutError)):
                        raise error
                    reasons.append(f"{_names([host])}: {error}")
                    last = error
        finally:
            await end_tasks(asked)
        raise NotFoundError("; ".join(reasons)) from last


def sentinel_finder(hosts: Sequence[Host], master: str, kind: type[Connection], arguments: Mapping[str, Any]) -> Finder:
    """Return what asks sentinels.

    Args:
        hosts: The sentinels.
        master: What they call the master.
        kind: How they are connected to.
        arguments: What such a connection takes beside host and port.

    Returns:
        What asks them.
    """

    async def look(host: Host) -> Host:
        found = await ask(kind, arguments, host, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master))
        if not found:
            raise UnknownMasterError(f"this sentinel knows no master {master!r}")
        finder.ask_first(host)
        return found[0].decode(), int(found[1])

    finder = Finder(hosts, look)
    return finder


def cluster_finder(hosts: Sequence[Host], key: str, kind: type[Connection], arguments: Mapping[str, Any]) -> Finder:
    """Return what asks the servers of a cluster.

    Args:
        hosts: Some of them.
        key: One of the node's keys.
        kind: How they are connected to.
        arguments: What such a connection takes beside host and port.

    Returns:
        What asks them; whoever has the keys is asked first the next time, since it knows where they went.
    """

    async def look(host: Host) -> Host:
        found = host
        try:
            await ask(kind, arguments, host, ("EXISTS", key))
        except MovedError as error:
            # A server that does not know its own name leaves that out.
            found = (error.host if error.host not in ("", "?") else host[0], error.port)
        finder.ask_first(found)
        return found

    finder = Finder(hosts, look)
    return finder


def is_elsewhere(error: BaseException) -> bool:
    """Return whether an error says that another server has the keys."""
    return str(error).startswith(ELSEWHERE)


def _names(hosts: Sequence[Host]) -> str:
    return ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
