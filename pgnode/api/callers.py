"""Callers by their address: who may connect at all, and who comes again and again without a right key. Pure.

The limit of wrong keys guards no key, since nobody guesses a UUID: it bounds what a stranger costs, and what is said of it in the
log. Each worker counts for itself, so a caller whose connections spread over all of them has the limit once in each: to agree
they would have to ask each other at every wrong key, which costs more than the answer does. A right key is never refused,
whatever came from its address before: panels share addresses with others, and a stranger must not be able to lock them out.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable
from math import inf
from typing import Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: So many addresses are remembered, those that were counted last.
REMEMBERED: Final = 10_000

#: Addresses whose wrong keys a worker remembers.
WRONG_KEY_ADDRESSES: Final = 4_096

#: Seconds between two lines in the log about callers who are over the limit.
SAY_SECONDS: Final = 60.0

#: Of an address of version 6 these many bits are counted: whoever has one has at least all that differ in the rest.
IPV6_PREFIX: Final = 64

#: May always connect: the node itself does, and commands on this machine.
_LOOPBACK: Final[tuple[Network, ...]] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class Strikes:
    """Counts strikes by key; they fade.

    Args:
        per_second: So many fade in a second.
        remembered: So many keys are known at most; the one that was struck the longest ago is forgotten first.
        most: No count is higher: from there it takes a known time to fade.
    """

    def __init__(self, per_second: float, remembered: int = REMEMBERED, *, most: float = inf) -> None:
        self._per_second = per_second
        self._remembered = remembered
        self._most = most
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Strikes({len(self._counts)} keys)"

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, key: str, now: float) -> float:
        """Count one more.

        Args:
            key: Who is struck.
            now: Monotonic seconds.

        Returns:
            How many there are by now that have not faded.
        """
        count, at = self._counts.pop(key, (0.0, now))
        count = min(max(0.0, count - (now - at) * self._per_second) + 1.0, self._most)
        self._counts[key] = count, now
        if len(self._counts) > self._remembered:
            self._counts.popitem(last=False)
        return count


class WrongKeys:
    """Counts calls without a right key by the address of their caller.

    Args:
        per_minute: So many are answered like any other, at once and in each minute; 0: all are.
        now: Monotonic seconds.
        tell: Called with an address that is over the limit, and how many more calls over it there were since the last time;
            at most once a minute.
    """

    def __init__(
        self, per_minute: int, now: Callable[[], float], tell: Callable[[str, int], None] = lambda _host, _more: None
    ) -> None:
        self._per_minute = per_minute
        self._now = now
        self._tell = tell
        # One that stops is forgiven within a minute.
        self._strikes = Strikes(per_minute / 60, WRONG_KEY_ADDRESSES, most=2 * per_minute)
        self._told_at: float | None = None
        self._untold = 0

    def __repr__(self) -> str:
        return f"WrongKeys({self._per_minute} a minute, {len(self._strikes)} addresses)"

    def came(self, host: str) -> bool:
        """Count a call without a right key.

        Args:
            host: The address of its caller; "" where there is none.

        Returns:
            Whether it is over the limit: the connection is to be closed.
        """
        if not self._per_minute:
            return False
        now = self._now()
        if self._strikes.add(counted_address(host), now) <= self._per_minute:
            return False
        if self._told_at is None or now - self._told_at >= SAY_SECONDS:
            self._told_at, untold, self._untold = now, self._untold, 0
            self._tell(host, untold)
        else:
            self._untold += 1
        return True


class AllowedCallers:
    """Knows whose connections are taken.

    Args:
        networks: Addresses that may connect; none: all may.
        own: Addresses under which the node calls itself.
    """

    def __init__(self, networks: Iterable[Network], own: Iterable[str] = ()) -> None:
        named = tuple(networks)
        #: What may connect; empty: everybody.
        self.networks: tuple[Network, ...] = ()
        if named:
            self.networks = (*_LOOPBACK, *(ipaddress.ip_network(host) for host in own if not _is_any(host)), *named)

    def __repr__(self) -> str:
        return f"AllowedCallers({len(self.networks)} networks)"

    def admit(self, host: str) -> bool:
        """Tell whether a caller may connect.

        Args:
            host: Its address.

        Returns:
            Whether it may; what is no address may not where there is a list.
        """
        if not self.networks:
            return True
        address = _address(host)
        return address is not None and any(address in network for network in self.networks)


def counted_address(host: str) -> str:
    """Return what the address of a caller is counted as: all of a /64 of version 6 are one.

    Args:
        host: The address.

    Returns:
        The address, or the beginning that is counted; what is no address as it is.
    """
    address = _address(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return host if address is None else str(address)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_any(host: str) -> bool:
    address = _address(host)
    return address is None or address.is_unspecified
