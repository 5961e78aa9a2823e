"""The core's counters as :class:`CoreApi` reads them, for tests that decide who moved what; tests/xray has the real ones."""

from __future__ import annotations

from collections import Counter

from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.proto.stats_command_pb2 import Stat, UserStat

#: Where everybody's traffic goes, and what a connection's protocol puts around it at the inbound.
OUT, IN, AROUND_BYTES = "direct", "VLESS", 40


class FakeCounters:
    """Users move bytes in here. Calls raise CoreApiError while ``silent``. A real core has inbounds' counters from its start."""

    def __init__(self, *, counts_inbounds: bool = True) -> None:
        self.counters: Counter[str] = Counter()
        self._counts_inbounds = counts_inbounds
        if counts_inbounds:
            for direction in ("uplink", "downlink"):
                self.counters[f"inbound>>>{IN}>>>traffic>>>{direction}"] = 0
        self.online: set[str] = set()
        self.silent = False
        #: Names of the calls made.
        self.calls: list[str] = []

    def __repr__(self) -> str:
        return f"FakeCounters({len(self.counters)} counters, {len(self.online)} online)"

    @property
    def stats(self) -> FakeCounters:
        """The part of the API that reads them."""
        return self

    def move(self, email: str, up: int, down: int) -> None:
        for direction, size in (("uplink", up), ("downlink", down)):
            if size:
                self.counters[f"user>>>{email}>>>traffic>>>{direction}"] += size
                self.counters[f"outbound>>>{OUT}>>>traffic>>>{direction}"] += size
                if self._counts_inbounds:
                    self.counters[f"inbound>>>{IN}>>>traffic>>>{direction}"] += size + AROUND_BYTES

    def move_blocked(self, email: str, up: int) -> None:
        """Move bytes that no outbound counts."""
        self.counters[f"user>>>{email}>>>traffic>>>uplink"] += up
        if self._counts_inbounds:
            self.counters[f"inbound>>>{IN}>>>traffic>>>uplink"] += up + AROUND_BYTES

    @property
    def moved_by_users(self) -> int:
        return sum(value for name, value in self.counters.items() if name.startswith("user"))

    async def get_stat(self, name: str, deadline_seconds: float) -> int | None:
        self._call("by name")
        return self.counters.get(name)

    async def query_stats_pieces(self, pattern: str, deadline_seconds: float) -> list[bytes]:
        self._call("whole")
        return [
            Stat(name=name, value=value).SerializeToString() for name, value in self.counters.items() if pattern in name
        ]

    async def users_stats_pieces(self, deadline_seconds: float, *, include_traffic: bool) -> list[bytes]:
        self._call("online")
        made = []
        for email in self.online:
            stat = UserStat(email=email)
            stat.ips.add(ip="192.0.2.1", last_seen=1)
            stat.traffic.uplink = self.counters[f"user>>>{email}>>>traffic>>>uplink"]
            stat.traffic.downlink = self.counters[f"user>>>{email}>>>traffic>>>downlink"]
            made.append(stat.SerializeToString())
        return made

    def _call(self, what: str) -> None:
        if self.silent:
            raise CoreApiError("the core's API does not answer", ErrorKind.UNAVAILABLE)
        self.calls.append(what)
