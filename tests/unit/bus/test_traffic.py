"""The books as an operator's command reads them."""

from __future__ import annotations

import pytest

from pgnode.bus.indexed import IndexedBlock, name_hash, pack
from pgnode.bus.snapshots import Polled
from pgnode.bus.traffic import flows_of
from pgnode.store.rows import RUN_KEY
from pgnode.wire import service_pb2 as pb


def test_flows_of_a_ledger() -> None:
    online = pb.StatsOnlineIpListResponse(name="Al@x", ips={"192.0.2.1": 1, "192.0.2.2": 2})
    ledger = {
        RUN_KEY.encode(): b"3 boot:1:2",
        b"user>>>Al@x>>>traffic>>>uplink": b"100 40 10 3",
        b"user>>>Al@x>>>traffic>>>downlink": b"1000 0 10 3",
        b"user>>>odd>>>name>>>traffic>>>uplink": b"5000 5000 0 1",
        b"inbound>>>in>>>traffic>>>uplink": b"7 0 7 3",
        b"short>>>name": b"1 1 1 1",
    }
    flows = flows_of(ledger, IndexedBlock(pack([(name_hash("al@x"), online.SerializeToString())])))
    first, second = flows["user"]
    assert (first.name, first.owed_bytes, first.online) == ("odd>>>name", 0, 0)
    assert (second.uplink_bytes, second.downlink_bytes, second.owed_bytes, second.online) == (100, 1000, 1060, 2)
    assert [flow.owed_bytes for flow in flows["inbound"]] == [7]
    assert flows["outbound"] == []


@pytest.mark.parametrize(
    ("age_ms", "sent_at_ms", "now_ms", "seconds"),
    [
        (None, 1000, 5000, None),
        (200, 1000, 5000, 4.2),
        (200, 5000, 1000, 0.2),  # the store's clock was set back
        (200, 0, 5000, 0.2),  # it was not known
    ],
)
def test_the_age_of_a_reading_by_the_stores_clock(
    age_ms: int | None, sent_at_ms: int, now_ms: float, seconds: float | None
) -> None:
    assert Polled(age_ms, 5000, "", sent_at_ms=sent_at_ms).age_seconds(now_ms) == seconds
