"""How many connections each address of callers has open with this worker, and which of them goes when there are too many.

Who holds the key asks something on a connection soon after it is made; who wants to take all that a worker can hold keeps
silent. So of too many connections of one address the oldest goes on which nothing was ever asked, and only where there is none
the new one. A panel behind the same address as somebody hostile is served all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pgnode.api.callers import counted_address

T = TypeVar("T")


@dataclass(slots=True)
class _Network(Generic[T]):
    """The connections of one address."""

    #: In the order in which they came. Those on which nothing was asked yet, and all others.
    silent: dict[T, None] = field(default_factory=dict)
    asked: dict[T, None] = field(default_factory=dict)


class OpenConnections(Generic[T]):
    """Counts connections by address.

    Args:
        most: How many one address may have; 0: as many as it likes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._networks: dict[str, _Network[T]] = {}
        self._network_of: dict[T, str] = {}

    def __repr__(self) -> str:
        return f"OpenConnections({len(self._network_of)} of {len(self._networks)} addresses, at most {self._most} each)"

    def opened(self, connection: T, host: str) -> T | None:
        """Note a connection.

        Args:
            connection: The new one.
            host: The address that it comes from.

        Returns:
            The connection that has to end now; None where no one has.
        """
        name = counted_address(host)
        network = self._networks.setdefault(name, _Network())
        self._network_of[connection] = name
        too_many = 0 < self._most <= len(network.silent) + len(network.asked)
        ends = next(iter(network.silent), connection) if too_many else None
        network.silent[connection] = None
        return ends

    def asked(self, connection: T) -> None:
        """Note that something was asked on a connection; one that is not known is no news."""
        name = self._network_of.get(connection)
        if name is not None and connection in self._networks[name].silent:
            del self._networks[name].silent[connection]
            self._networks[name].asked[connection] = None

    def closed(self, connection: T) -> None:
        """Note that a connection has ended, or is being ended; saying so twice is once."""
        name = self._network_of.pop(connection, None)
        if name is None:
            return
        network = self._networks[name]
        network.silent.pop(connection, None)
        network.asked.pop(connection, None)
        if not network.silent and not network.asked:
            del self._networks[name]
