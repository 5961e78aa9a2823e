"""The books as an operator's command shows them."""

from __future__ import annotations

from typing import Any

import pytest

from pgnode.bus.snapshots import Polled
from pgnode.cli.traffic import LiveTraffic, flows_of, traffic_of
from pgnode.store.rows import LedgerRow, LoanPart
from pgnode.store.state import StoredState
from pgnode.wire import service_pb2 as pb


def test_flows_of_a_ledger() -> None:
    ledger = {
        "user>>>Al@x>>>traffic>>>uplink": LedgerRow(100, 40, 10, 3),
        "user>>>Al@x>>>traffic>>>downlink": LedgerRow(1000, 0, 10, 3),
        "user>>>odd>>>name>>>traffic>>>uplink": LedgerRow(5000, 5000, 0, 1),
        "inbound>>>in>>>traffic>>>uplink": LedgerRow(7, 0, 7, 3),
        "short>>>name": LedgerRow(1, 1, 1, 1),
    }
    flows = flows_of(ledger, {"al@x": 2})
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
    assert (down.state, down.core_run, down.stored_at, down.age_seconds) == (None, 2, 5.0, None)
    assert down.on_loan_bytes == {"user": 14, "inbound": 0, "outbound": 0}
    polled = Polled(1500, 5_000, "")
    live = traffic_of(state, LiveTraffic("running", 3, polled), 5.0, 812)
    assert (live.state, live.core_run, live.polled, live.age_seconds, live.pid) == ("running", 3, polled, 1.5, 812)
    assert live.total("user").total_bytes == 0


@pytest.mark.parametrize("body", [b"\xff\xff garbage", "text"])
def test_a_damaged_loan_hides_nothing_else(body: Any) -> None:
    sound = pb.StatResponse(stats=[pb.Stat(name="a", value=3)]).SerializeToString()
    loans = {"1:0": LoanPart("1", "user", "w", body), "1:1": LoanPart("1", "user", "w", sound)}
    state = StoredState(counters={"user>>>a>>>traffic>>>uplink": LedgerRow(5, 0, 5, 1)}, loans=loans)
    down = traffic_of(state, None, 5.0)
    assert down.on_loan_bytes == {"user": 3, "inbound": 0, "outbound": 0}
    assert down.total("user").owed_bytes == 5


def test_what_the_supervisor_says_is_read() -> None:
    said = {"state": "running", "core_run": 7, "polled": {"age_ms": 5, "interval_ms": 10, "error": "", "news": 1}}
    assert LiveTraffic.decode({**said, "online": {"Al@x": 2}}) == LiveTraffic(
        "running", 7, Polled(5, 10, ""), {"al@x": 2}
    )
    unread = {**said, "polled": {"age_ms": None, "interval_ms": 10, "error": ""}, "online": {}}
    assert LiveTraffic.decode(unread).polled is None
    with pytest.raises((KeyError, TypeError)):
        LiveTraffic.decode({"state": "running"})
