"""Traffic as ``pgnode stats`` shows it: the store's counters by kind and name, with what a running node says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pgnode.bus.indexed import EMPTY, IndexedBlock
from pgnode.bus.operator_views import LiveTraffic
from pgnode.bus.snapshots import NodeStatus, Polled
from pgnode.store.rows import LedgerRow
from pgnode.store.state import StoredState
from pgnode.wire import service_pb2 as pb
from pgnode.wire.stat_names import parse_counter

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
        """Both ways."""
        return self.uplink_bytes + self.downlink_bytes


@dataclass(frozen=True, slots=True)
class ShownTraffic:
    """What is shown."""

    #: None where the node does not answer.
    status: NodeStatus | None
    #: Number of the last core run.
    core_run: int
    #: When the store was written last, Unix seconds.
    stored_at: float
    #: Kind -> flows, those with most traffic first.
    flows: Mapping[str, list[Flow]]
    #: Kind -> bytes handed out to callers of whom it is not known yet whether they got them; part of what is owed.
    on_loan_bytes: Mapping[str, int]
    #: None before the first reading of a core.
    polled: Polled | None
    #: Seconds since the core was read last, None where it never was.
    age_seconds: float | None

    def total(self, kind: str) -> Flow:
        """Add up one kind. What a user moved is an inbound's and an outbound's, too: kinds are not to be added up."""
        flows = self.flows[kind]
        return Flow(
            kind,
            sum(flow.uplink_bytes for flow in flows),
            sum(flow.downlink_bytes for flow in flows),
            sum(flow.owed_bytes for flow in flows),
            sum(flow.online > 0 for flow in flows),
        )


def traffic_of(state: StoredState, live: LiveTraffic | None, stored_at: float) -> ShownTraffic:
    """Put together what the store and a running node say.

    Args:
        state: What the store holds.
        live: What the node says; None where it does not answer.
        stored_at: When the store was written last, Unix seconds.

    Returns:
        What is to be shown.
    """
    on_loan = dict.fromkeys(KINDS, 0)
    for part in state.loans.values():
        on_loan[part.kind] += sum(stat.value for stat in pb.StatResponse.FromString(part.body).stats)
    return ShownTraffic(
        status=live.status if live is not None else None,
        core_run=live.status.core_run if live is not None else state.core_run,
        stored_at=stored_at,
        flows=flows_of(state.counters, live.online if live is not None else IndexedBlock(EMPTY)),
        on_loan_bytes=on_loan,
        polled=live.polled if live is not None else None,
        age_seconds=live.age_seconds if live is not None else None,
    )


def flows_of(counters: Mapping[str, LedgerRow], online: IndexedBlock) -> dict[str, list[Flow]]:
    """Sort the ledger's rows by kind and name.

    Args:
        counters: Name in the core -> row.
        online: Who is online, by e-mail.

    Returns:
        Kind -> flows, those with most traffic first.
    """
    found: dict[str, dict[str, Flow]] = {kind: {} for kind in KINDS}
    for name, row in counters.items():
        counter = parse_counter(name)
        if counter is None or counter.kind not in found:
            continue
        flow = found[counter.kind].setdefault(counter.name, Flow(counter.name))
        if counter.type == "uplink":
            flow.uplink_bytes += row.total
        else:
            flow.downlink_bytes += row.total
        flow.owed_bytes += row.total - row.reported
    for flow in found["user"].values():
        entry = online.get(flow.name)
        if entry is not None:
            flow.online = len(pb.StatsOnlineIpListResponse.FromString(entry).ips)
    return {kind: sorted(of.values(), key=lambda flow: (-flow.total_bytes, flow.name)) for kind, of in found.items()}
