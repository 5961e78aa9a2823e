"""The books as an operator's command shows them."""

from __future__ import annotations

from pgnode.bus.indexed import IndexedBlock, name_hash, pack
from pgnode.bus.operator_views import LiveTraffic
from pgnode.bus.snapshots import NodeStatus, Polled
from pgnode.bus.state import State
from pgnode.cli.traffic import flows_of, traffic_of
from pgnode.store.rows import LedgerRow, LoanPart
from pgnode.store.state import StoredState
from pgnode.wire import service_pb2 as pb


def test_flows_of_a_ledger() -> None:
    online = pb.StatsOnlineIpListResponse(name="Al@x", ips={"192.0.2.1": 1, "192.0.2.2": 2})
    ledger = {
        "user>>>Al@x>>>traffic>>>uplink": LedgerRow(100, 40, 10, 3),
        "user>>>Al@x>>>traffic>>>downlink": LedgerRow(1000, 0, 10, 3),
        "user>>>odd>>>name>>>traffic>>>uplink": LedgerRow(5000, 5000, 0, 1),
        "inbound>>>in>>>traffic>>>uplink": LedgerRow(7, 0, 7, 3),
        "short>>>name": LedgerRow(1, 1, 1, 1),
    }
    flows = flows_of(ledger, IndexedBlock(pack([(name_hash("al@x"), online.SerializeToString())])))
    first, second = flows["user"]
    assert (first.name, first.owed_bytes, first.online) == ("odd>>>name", 0, 0)
    assert (second.uplink_bytes, second.downlink_bytes, second.owed_bytes, second.online) == (100, 1000, 1060, 2)
    assert [flow.owed_bytes for flow in flows["inbound"]] == [7]
    assert flows["outbound"] == []


def test_what_is_on_its_way_is_added_up_by_kind_and_a_node_that_is_down_has_no_age() -> None:
    body = pb.StatResponse(stats=[pb.Stat(name="a", value=3), pb.Stat(name="b", value=4)]).SerializeToString()
    state = StoredState(
        core_run=2, loans={"1:0": LoanPart("1", "user", "w", body), "1:1": LoanPart("1", "user", "w", body)}
    )
    down = traffic_of(state, None, 5.0)
    assert (down.status, down.core_run, down.stored_at, down.age_seconds) == (None, 2, 5.0, None)
    assert down.on_loan_bytes == {"user": 14, "inbound": 0, "outbound": 0}
    status, polled = NodeStatus(State.RUNNING, True, "26.10.10", "0", "", 3), Polled(100, 5_000, "")
    live = traffic_of(state, LiveTraffic(status, polled, 1.5, IndexedBlock(pack([]))), 5.0)
    assert (live.status, live.core_run, live.polled, live.age_seconds) == (status, 3, polled, 1.5)
    assert live.total("user").total_bytes == 0
