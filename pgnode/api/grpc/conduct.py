"""Callers over gRPC whose calls cost more than they can be worth, and the end of their connections.

A worker has one queue of calls for all connections, and each call costs it some hundred microseconds whatever becomes of it.
The library limits how many a connection may have open, and not how many it may open and take back, or how often it may come
without the key. So both are counted here. What counts is what callers do, not what is done to them: an answer that is an error
is no strike.

And a caller can send frames without end that are no call: headers that are never complete, settings, pings. Nobody is told of
those; but the kernel knows how much has come, and everybody who may call has shown the key within a few kilobytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import structlog

from pgnode.api.callers import AllowedCallers, Strikes, WrongKeys, counted_address
from pgnode.os_support.clock import Clock
from pgnode.os_support.connections import Peer, end_connections, plain_host

log = structlog.get_logger(__name__)

#: Seconds between two lines in the log about the same kind of misconduct.
SAY_SECONDS: Final = 60.0

#: Seconds between two looks at how much has come from whom.
POLL_INTERVAL_SECONDS: Final = 1.0

#: So many times as long as a look took, nobody looks again: with thousands of connections it takes a while.
REST_FACTOR: Final = 20

#: Calls without a right key from one address in a minute, where no settings say.
WRONG_KEYS: Final = 30


@dataclass(frozen=True, slots=True)
class ConductLimits:
    """What is borne of callers."""

    #: Calls that one connection takes back before they are answered, at once and for each second. All calls that it may have
    #: open can run into their deadline some times.
    taken_back: float = 500.0
    taken_back_per_second: float = 50.0
    #: What further connections of an address may take back that has done so too often.
    taken_back_again: float = 20.0
    #: Bytes that may come between two looks, a second or more, on a connection on which nobody has shown the key.
    strangers_bytes: int = 1024 * 1024
    #: Connections that one address may have; 0: as many as it likes.
    connections: int = 0


class Conduct:
    """Counts what callers do, and ends connections of those who do too much of it.

    Args:
        clock: Tells when it is.
        limits: What is borne.
        end: Ends the connections of callers, in a thread.
        wrong_keys: Counts calls without a right key; with more than it bears, each costs the connection it came over.
        allowed: Who may call.
    """

    def __init__(
        self,
        clock: Clock,
        limits: ConductLimits | None = None,
        end: Callable[[AbstractSet[Peer]], int] = end_connections,
        *,
        wrong_keys: WrongKeys | None = None,
        allowed: AllowedCallers | None = None,
    ) -> None:
        self._clock = clock
        self._limits = limits or ConductLimits()
        self._end = end
        self._wrong_keys = wrong_keys or WrongKeys(WRONG_KEYS, clock.now)
        self._allowed = allowed or AllowedCallers(())
        self._connections = Strikes(self._limits.taken_back_per_second)
        self._hosts = Strikes(self._limits.taken_back_per_second)
        #: Connections on which the key was shown, as the library names their callers.
        self._known: set[str] = set()
        self._to_end: set[Peer] = set()
        self._ending: asyncio.Task[None] | None = None
        self._said: dict[str, tuple[float, int]] = {}
        #: Connections that were ended.
        self.cut_off = 0
        #: Those of them whose callers may not connect.
        self.not_allowed = 0

    def __repr__(self) -> str:
        return f"Conduct({self._wrong_keys}, {self._connections})"

    def came_without_key(self, peer: str) -> bool:
        """Take note of a call without the key.

        Args:
            peer: The caller, as the library names it.

        Returns:
            Whether it is one too many.
        """
        found = peer_of(peer)
        if found is None or not self._wrong_keys.came(found.host):
            return False
        self._misconduct(found, "its caller comes again and again without the key")
        return True

    def came_with_key(self, peer: str) -> bool:
        """Take note of a call with the key.

        Args:
            peer: The caller, as the library names it.

        Returns:
            Whether it may be answered: it comes from where callers may come from.
        """
        if peer not in self._known:
            found = peer_of(peer)
            if found is not None and not self._may_call(found):
                return False
            self._known.add(peer)
        return True

    async def watch(self, received: Callable[[], Mapping[Peer, int]]) -> None:
        """End connections on which much comes and the key does not, again and again, until this is cancelled.

        Args:
            received: Tells how many bytes have come from each caller; called in a thread.
        """
        before: Mapping[Peer, int] = {}
        while True:
            begun = self._clock.now()
            known = set(self._known)
            try:
                found = await asyncio.to_thread(received)
            except OSError as error:
                log.debug("connections cannot be looked at", error=str(error))
                found = {}
            else:
                # Those that were made since the look began are not in it.
                self._known -= {name for name in known if peer_of(name) not in found}
            friends = {peer_of(name) for name in self._known}
            for peer, count in found.items():
                # The kernel may have let it through: where it takes no filter, or before it had one.
                if (
                    self._may_call(peer)
                    and count - before.get(peer, 0) > self._limits.strangers_bytes
                    and peer not in friends
                ):
                    self._misconduct(peer, "its caller sends much and does not show the key")
            self._end_too_many(found, friends)
            before = found
            await self._clock.sleep(POLL_INTERVAL_SECONDS + REST_FACTOR * (self._clock.now() - begun))

    def _end_too_many(self, found: Iterable[Peer], friends: Container[Peer | None]) -> None:
        """End connections of addresses that have too many, first those on which nobody has shown the key."""
        if not self._limits.connections:
            return
        networks: dict[str, list[Peer]] = {}
        for peer in found:
            networks.setdefault(counted_address(peer.host), []).append(peer)
        for peers in networks.values():
            too_many = len(peers) - self._limits.connections
            if too_many > 0:
                for peer in sorted(peers, key=lambda one: one in friends)[:too_many]:
                    self._misconduct(peer, "its caller's address has too many connections")

    def took_back(self, peer: str) -> None:
        """Take note of a call that its caller took back.

        Args:
            peer: The caller, as the library names it.
        """
        found = peer_of(peer)
        if found is None:
            return
        now = self._clock.now()
        by_connection = self._connections.add(peer, now)
        again = self._hosts.add(found.host, now) > self._limits.taken_back
        if by_connection > (self._limits.taken_back_again if again else self._limits.taken_back):
            self._misconduct(found, "its caller opens calls and takes them back")

    def _may_call(self, peer: Peer) -> bool:
        """Tell whether a caller may connect; the connection of one that may not is ended."""
        if self._allowed.admit(peer.host):
            return True
        if peer not in self._to_end:
            self.not_allowed += 1
        self._misconduct(peer, "its address is not in ALLOWED_CALLERS")
        return False

    def _misconduct(self, peer: Peer, why: str) -> None:
        if peer in self._to_end:
            return
        self._say(peer, why)
        self._to_end.add(peer)
        self.cut_off += 1
        if self._ending is None:
            self._ending = asyncio.create_task(self._end_all())

    async def _end_all(self) -> None:
        try:
            while self._to_end:
                peers, self._to_end = self._to_end, set()
                await asyncio.to_thread(self._end, peers)
        finally:
            self._ending = None

    def _say(self, peer: Peer, why: str) -> None:
        """Say the first of a kind at once, and then how many there were, once a minute."""
        now = self._clock.now()
        said_at, unsaid = self._said.get(why, (now - SAY_SECONDS, 0))
        if now - said_at < SAY_SECONDS:
            self._said[why] = said_at, unsaid + 1
            return
        self._said[why] = now, 0
        log.warning("gRPC connection ended", audit="caller", cause=why, caller=peer.host, more_before=unsaid)


def peer_of(name: str) -> Peer | None:
    """Read how the library names a caller: ``ipv4:192.0.2.1:4711``, ``ipv6:%5B2001:db8::1%5D:4711``.

    Args:
        name: The name.

    Returns:
        The address; None for a caller without one.
    """
    family, _, rest = unquote(name).partition(":")
    host, _, port = rest.rpartition(":")
    if family not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return Peer(plain_host(host.strip("[]")), int(port))
