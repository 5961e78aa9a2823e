"""Traffic in the store as an operator's command reads it: the books, what is on its way to callers, and who is online.

The supervisor writes all of it (:mod:`pgnode.bus.keys`); nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from pgnode.bus.books import RUN_KEY, Line, LoanPart
from pgnode.bus.indexed import EMPTY, IndexedBlock
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import ONLINE, POLLED, STATE, NodeStatus, Polled
from pgnode.wire import service_pb2 as pb
from pgnode.wire.stats import parse_counter

#: Kinds of counters, in the order in which they are shown.
KINDS = ("user", "inbound", "outbound")


@dataclass(slots=True)
class Flow:
    """One user's, inbound's or outbound's traffic; bytes."""

    name: str
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    #: Counted and not known to have reached a caller that took it with ``reset``.
    owed_bytes: int = 0
    #: Addresses that a user is online from.
    online: int = 0

    @property
    def total_bytes(self) -> int:
        return self.uplink_bytes + self.downlink_bytes


@dataclass(frozen=True, slots=True)
class StoredTraffic:
    """What the store says."""

    #: None where no supervisor has written one yet.
    status: NodeStatus | None
    #: Kind -> flows, those with most traffic first.
    flows: Mapping[str, list[Flow]]
    #: Bytes handed out to callers of whom it is not known yet whether they got them; part of what is owed.
    on_loan_bytes: int
    #: None before the first reading of a core.
    polled: Polled | None
    #: Seconds since the core was read last, None where it never was.
    age_seconds: float | None

    @property
    def owed_bytes(self) -> int:
        return sum(flow.owed_bytes for flows in self.flows.values() for flow in flows)


async def read_traffic(redis: Redis, keys: Keys) -> StoredTraffic:
    """All of it, read in one transaction. Raises BUS_ERRORS."""
    pipe = redis.pipeline(transaction=True)
    pipe.hget(keys.snapshot(STATE), "body")
    pipe.hmget(keys.snapshot(POLLED), ["body", "at_ms"])
    pipe.hget(keys.snapshot(ONLINE), "body")
    pipe.hgetall(keys.ledger)
    pipe.hvals(keys.loans)
    pipe.time()
    state, (polled, at_ms), online, ledger, loans, (seconds, microseconds) = await pipe.execute()
    found = Polled.decode(polled) if polled is not None else None
    age = None
    if found is not None and found.age_ms is not None:
        age = (found.age_ms + max(0.0, seconds * 1000 + microseconds / 1000 - int(at_ms))) / 1000
    return StoredTraffic(
        status=NodeStatus.decode(state) if state is not None else None,
        flows=flows_of(ledger, IndexedBlock(online or EMPTY)),
        on_loan_bytes=sum(_bytes_of(LoanPart.decode(part)) for part in loans),
        polled=found,
        age_seconds=age,
    )


def flows_of(ledger: Mapping[bytes, bytes], online: IndexedBlock) -> dict[str, list[Flow]]:
    """The ledger's lines by kind and name. Pure."""
    found: dict[str, dict[str, Flow]] = {kind: {} for kind in KINDS}
    for name, text in ledger.items():
        counter = parse_counter(name.decode())
        if name.decode() == RUN_KEY or counter is None or counter.kind not in found:
            continue
        line = Line.decode(text.decode())
        flow = found[counter.kind].setdefault(counter.name, Flow(counter.name))
        if counter.type == "uplink":
            flow.uplink_bytes += line.total
        else:
            flow.downlink_bytes += line.total
        flow.owed_bytes += line.total - line.reported
    for flow in found["user"].values():
        entry = online.get(flow.name)
        if entry is not None:
            flow.online = len(pb.StatsOnlineIpListResponse.FromString(entry).ips)
    return {kind: sorted(of.values(), key=lambda flow: (-flow.total_bytes, flow.name)) for kind, of in found.items()}


def _bytes_of(part: LoanPart) -> int:
    return sum(stat.value for stat in pb.StatResponse.FromString(part.body).stats)
