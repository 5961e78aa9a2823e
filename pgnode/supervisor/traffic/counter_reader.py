"""Readings of the core's counters and of who is online, as differences: what did not change since the last one is not parsed.

An answer with the counters of 100,000 users has 200,000 elements. Comparing their bytes with those of the answer before costs a
tenth of parsing them; the core sends them in another order each time, so they are compared as a set.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Sequence
from typing import TypeVar

from pgnode.bus import indexed
from pgnode.supervisor.traffic.lately_online import LatelyOnline
from pgnode.wire import service_pb2 as pb
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.proto.stats_command_pb2 import Stat, UserStat

T = TypeVar("T")

#: (counter, bytes), as the core has them.
Counters = list[tuple[str, int]]

#: Elements handled at a time by a thread, so that the event loop gets the interpreter in between.
SLICE = 5_000

#: Users who went offline since the last reading are asked for one by one, up to so many.
GONE_MAX = 200


class CounterReader:
    """Reads one core at a time. Belongs to the supervisor's loop; one reading at a time.

    Args:
        deadline_seconds: Seconds that the core has for one answer.
        lately: Keeps who counts as online for a while after its last connection.
    """

    def __init__(self, deadline_seconds: float, lately: LatelyOnline | None = None) -> None:
        self._deadline_seconds = deadline_seconds
        self._lately = lately if lately is not None else LatelyOnline()
        #: Hashes of the elements of the last whole reading: an element takes some 130 bytes, and there may be 200,000.
        self._all = array("q")
        #: Elements of the last reading of online users that had their traffic with them.
        self._online: set[bytes] = set()
        #: Those who were online at the last reading, by e-mail: the element it came in, its part of the snapshot, and the number
        #: of addresses.
        self._present: dict[str, tuple[bytes, bytes, int]] = {}
        #: The same of everybody who counts as online, at the last reading of those who are.
        self._shown: dict[str, tuple[bytes, bytes, int]] = {}
        self._addresses = 0
        self._index: tuple[list[str], bytes] = ([], indexed.index([]))

    def begin(self) -> None:
        """Begin with another core, of which nothing is known."""
        self._all, self._online, self._present, self._shown, self._addresses = array("q"), set(), {}, {}, 0
        self._lately.clear()

    @property
    def online(self) -> tuple[int, int]:
        """How many users were online at the last reading, and from how many addresses."""
        return len(self._shown), self._addresses

    def addresses_of(self, email: str) -> int:
        """Return from how many addresses a user was online at the last reading."""
        entry = self._shown.get(email)
        return entry[2] if entry is not None else 0

    def online_addresses(self) -> dict[str, int]:
        """Return from how many addresses each user was online at the last reading, by e-mail."""
        return {email: entry[2] for email, entry in list(self._shown.items())}

    @property
    def counters(self) -> int:
        """How many the last whole reading found."""
        return len(self._all)

    @property
    def somebody_online(self) -> bool:
        """Whether anybody was online at the last reading."""
        return bool(self._present)

    async def by_name(self, api: CoreApi, counters: Sequence[str]) -> Counters:
        """Read the counters of these names that the core has. Raises CoreApiError."""
        values = await asyncio.gather(*(api.stats.get_stat(name, self._deadline_seconds) for name in counters))
        return [(name, value) for name, value in zip(counters, values, strict=True) if value is not None]

    async def all(self, api: CoreApi) -> Counters:
        """Read every counter; return those that are new or changed since the last such reading. Raises CoreApiError."""
        pieces = await api.stats.query_stats_pieces("", self._deadline_seconds)
        first = not self._all
        changed, self._all = await asyncio.to_thread(_hashed_difference, pieces, self._all)
        found = await asyncio.to_thread(_mapped, _counter, changed)
        if not first:
            # What a core that was found had counted before says nothing of when.
            names = (name.split(">>>") for name, _ in found)
            users = {parts[1] for parts in names if parts[0] == "user"} - self._present.keys()
            self._lately.moved(users, asyncio.get_running_loop().time(), time.time())
            self._show()
        return found

    async def online_users(self, api: CoreApi) -> tuple[Counters, int]:
        """Read the counters of users who are online, and of those who were at the last reading and are not now.

        Args:
            api: The core.

        Returns:
            The counters that changed, and how many users of the second sort were left out, because they are too many or the
            core did not answer.

        Raises:
            CoreApiError: The core did not answer.
        """
        pieces = await api.stats.users_stats_pieces(self._deadline_seconds, include_traffic=True)
        changed, held = await asyncio.to_thread(_difference, pieces, self._online)
        users = await asyncio.to_thread(_mapped, UserStat.FromString, changed)
        before, self._online = self._present, held
        present = {email: entry for email, entry in before.items() if entry[0] in held}
        found: Counters = []
        for number, (piece, user) in enumerate(zip(changed, users, strict=True)):
            for direction, value in (("uplink", user.traffic.uplink), ("downlink", user.traffic.downlink)):
                if value:  # a user without this counter shows as zero
                    found.append((_name(user.email, direction), value))
            if user.ips:
                ips = {address.ip: address.last_seen for address in user.ips}
                part = pb.StatsOnlineIpListResponse(name=user.email, ips=ips).SerializeToString(deterministic=True)
                present[user.email] = (piece, part, len(ips))
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self._present = present
        gone = [email for email in before if email not in present]
        now = asyncio.get_running_loop().time()
        for email in gone:
            self._lately.gone(email, *before[email][1:], now)
        self._show()
        asked = gone[:GONE_MAX]
        try:
            found += await self.by_name(
                api, [_name(email, direction) for email in asked for direction in ("uplink", "downlink")]
            )
        except CoreApiError:
            return found, len(gone)
        return found, len(gone) - len(asked)

    def _show(self) -> None:
        """Find out who counts as online now."""
        lately = {
            entry[0]: (b"", entry[1], entry[2]) for entry in self._lately.still(asyncio.get_running_loop().time())
        }
        self._shown = lately | self._present if lately else self._present
        self._addresses = sum(addresses for _, _, addresses in self._shown.values())

    async def online_block(self) -> bytes:
        """Return the indexed block of ``StatsOnlineIpListResponse`` by e-mail."""
        self._show()
        names, parts = list(self._shown), [part for _, part, _ in self._shown.values()]
        if names != self._index[0]:
            made = await asyncio.to_thread(lambda: indexed.index([indexed.name_hash(name) for name in names]))
            self._index = (names, made)
        return await asyncio.to_thread(indexed.assemble, self._index[1], parts)


def _name(email: str, direction: str) -> str:
    return f"user>>>{email}>>>traffic>>>{direction}"


def _counter(piece: bytes) -> tuple[str, int]:
    stat = Stat.FromString(piece)
    return stat.name, stat.value


def _difference(pieces: list[bytes], held: set[bytes]) -> tuple[list[bytes], set[bytes]]:
    """Return those of ``pieces`` that are not in ``held``, and all of them as a set. For a thread: in slices."""
    changed: list[bytes] = []
    together: set[bytes] = set()
    for at in range(0, len(pieces), SLICE):
        part = pieces[at : at + SLICE]
        changed += [piece for piece in part if piece not in held]
        together.update(part)
    return changed, together


def _hashed_difference(pieces: list[bytes], held: array[int]) -> tuple[list[bytes], array[int]]:
    """Return those of ``pieces`` whose hashes are not in ``held``, and the hashes of all. For a thread: in slices.

    A hash has 64 bits: that one of 200,000 changed elements has that of another one happens once in 400 million readings, and
    then it is counted when it moves again, as all counters are absolute.
    """
    known: set[int] = set()
    for at in range(0, len(held), SLICE):
        known.update(held[at : at + SLICE])
    changed: list[bytes] = []
    together = array("q")
    for at in range(0, len(pieces), SLICE):
        part = pieces[at : at + SLICE]
        hashes = array("q", map(hash, part))
        changed += [piece for piece, hashed in zip(part, hashes, strict=True) if hashed not in known]
        together += hashes
    return changed, together


def _mapped(make: Callable[[bytes], T], pieces: list[bytes]) -> list[T]:
    return [make(piece) for piece in pieces]
