"""Traffic in the store as an operator's command reads it: the books, what is on its way to callers, and who is online.

The supervisor writes all of it (:mod:`pgnode.bus.keys`); nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from pgnode.bus.indexed import EMPTY, IndexedBlock
from pgnode.bus.keys import Keys
from pgnode.bus.snapshots import ONLINE, POLLED, STATE, NodeStatus, Polled
from pgnode.store.rows import RUN_KEY, LedgerRow, LoanPart
from pgnode.wire import service_pb2 as pb
from pgnode.wire.stat_names import parse_counter

#: Kinds of counters, in the order in which they are shown.
KINDS = ("user", "inbound", "outbound")

#: Lines of the books asked for at once: the store is busy with them for some 2 ms.
LINES_AT_A_TIME = 5_000


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
    #: Kind -> bytes handed out to callers of whom it is not known yet whether they got them; part of what is owed.
    on_loan_bytes: Mapping[str, int]
    #: None before the first reading of a core.
    polled: Polled | None
    #: Seconds since the core was read last, None where it never was.
    age_seconds: float | None

    def total(self, kind: str) -> Flow:
        """All of one kind together. What a user moved is an inbound's and an outbound's, too: kinds are not to be added up."""
        flows = self.flows[kind]
        return Flow(
            kind,
            sum(flow.uplink_bytes for flow in flows),
            sum(flow.downlink_bytes for flow in flows),
            sum(flow.owed_bytes for flow in flows),
            sum(flow.online > 0 for flow in flows),
        )


async def read_traffic(redis: Redis, keys: Keys) -> StoredTraffic:
    """All of it. Raises BUS_ERRORS.

    The books are read in parts, since the store answers nobody else meanwhile: what is booked between two of them may be seen
    in part.
    """
    ledger: dict[bytes, bytes] = {}
    async for name, line in redis.hscan_iter(keys.ledger, count=LINES_AT_A_TIME):
        ledger[name] = line
    pipe = redis.pipeline(transaction=True)
    pipe.hget(keys.snapshot(STATE), "body")
    pipe.hget(keys.snapshot(POLLED), "body")
    pipe.hget(keys.snapshot(ONLINE), "body")
    pipe.hvals(keys.loans)
    pipe.time()
    state, polled, online, loans, (seconds, microseconds) = await pipe.execute()
    found = Polled.decode(polled) if polled is not None else None
    on_loan = dict.fromkeys(KINDS, 0)
    for part in map(LoanPart.decode, loans):
        on_loan[part.kind] += _bytes_of(part)
    return StoredTraffic(
        status=NodeStatus.decode(state) if state is not None else None,
        flows=flows_of(ledger, IndexedBlock(online or EMPTY)),
        on_loan_bytes=on_loan,
        polled=found,
        age_seconds=found.age_seconds(seconds * 1000 + microseconds / 1000) if found is not None else None,
    )


def flows_of(ledger: Mapping[bytes, bytes], online: IndexedBlock) -> dict[str, list[Flow]]:
    """The ledger's lines by kind and name. Pure."""
    found: dict[str, dict[str, Flow]] = {kind: {} for kind in KINDS}
    for name, text in ledger.items():
        counter = parse_counter(name.decode())
        if name.decode() == RUN_KEY or counter is None or counter.kind not in found:
            continue
        line = LedgerRow.decode(text.decode())
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
