"""Users who count as online though they have no connection at the moment: those of WireGuard, for a while. Pure.

To the core a user is online while a connection through it is open. A WireGuard user is connected all the time, and opens
connections only now and then; so it counts as online for some time after its last one, and after its traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from pgnode.wire import service_pb2 as pb

#: For how long after its traffic a WireGuard user is online.
WIREGUARD_SECONDS: Final = 45.0


class _Seen(NamedTuple):
    """When a user was seen last, in seconds of a clock that nobody sets, and its part of the snapshot."""

    at: float
    part: bytes
    addresses: int


class LatelyOnline:
    """Belongs to whoever reads the core's counters.

    Args:
        seconds: For how long a user is online after it was seen; 0 = not at all.
        address_of: Returns an address that a user comes from inside its tunnel, by e-mail; "" where none is known.
    """

    def __init__(
        self, seconds: Callable[[], float] = lambda: 0.0, address_of: Callable[[str], str] = lambda _: ""
    ) -> None:
        self._seconds = seconds
        self._address_of = address_of
        self._seen: dict[str, _Seen] = {}

    def __repr__(self) -> str:
        return f"LatelyOnline({len(self._seen)} users)"

    def clear(self) -> None:
        """Forget everybody."""
        self._seen = {}

    def gone(self, email: str, part: bytes, addresses: int, now: float) -> None:
        """Note that a user who was online has no connection any more.

        Args:
            email: The user.
            part: Its part of the snapshot, as it was last.
            addresses: From how many addresses it was online.
            now: Seconds on the clock.
        """
        if self._seconds():
            self._seen[email] = _Seen(now, part, addresses)

    def moved(self, emails: Iterable[str], now: float, time: float) -> None:
        """Note that users moved something whom nobody saw online.

        Args:
            emails: The users.
            now: Seconds on the clock.
            time: The time, in Unix seconds, for whoever is told.
        """
        if not self._seconds():
            return
        for email in emails:
            known = self._seen.get(email)
            if known is not None:
                self._seen[email] = known._replace(at=now)
            elif address := self._address_of(email):
                part = pb.StatsOnlineIpListResponse(name=email, ips={address: int(time)})
                self._seen[email] = _Seen(now, part.SerializeToString(deterministic=True), 1)

    def still(self, now: float) -> Iterator[tuple[str, bytes, int]]:
        """Find out who counts as online.

        Args:
            now: Seconds on the clock.

        Returns:
            (e-mail, part of the snapshot, number of addresses) of everybody who was seen a short while ago.
        """
        since = now - self._seconds()
        if self._seen:
            self._seen = {email: seen for email, seen in self._seen.items() if seen.at > since}
        return ((email, seen.part, seen.addresses) for email, seen in self._seen.items())
