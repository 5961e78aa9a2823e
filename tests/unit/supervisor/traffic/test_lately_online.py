"""Who counts as online for a while after the last connection."""

from __future__ import annotations

from pgnode.supervisor.traffic.lately_online import LatelyOnline
from pgnode.wire import service_pb2 as pb


def names(lately: LatelyOnline, now: float) -> set[str]:
    return {email for email, _, _ in lately.still(now)}


def test_whoever_is_gone_is_online_for_a_while() -> None:
    lately = LatelyOnline(lambda: 45.0)
    lately.gone("a", b"part", 2, now=100.0)
    assert list(lately.still(144.0)) == [("a", b"part", 2)]
    assert names(lately, 145.0) == set()
    assert repr(lately) == "LatelyOnline(0 users)"


def test_traffic_keeps_a_user_online_and_shows_one_whom_nobody_saw() -> None:
    lately = LatelyOnline(lambda: 45.0, {"b": "10.66.0.3"}.get)  # type: ignore[arg-type]
    lately.gone("a", b"part", 1, now=100.0)
    lately.moved(["a", "b", "nobody"], now=120.0, time=1_700_000_000.5)
    found = {email: part for email, part, _ in lately.still(160.0)}
    assert found.keys() == {"a", "b"}
    assert found["a"] == b"part"
    entry = pb.StatsOnlineIpListResponse.FromString(found["b"])
    assert (entry.name, dict(entry.ips)) == ("b", {"10.66.0.3": 1_700_000_000})
    assert names(lately, 165.0) == set()


def test_without_a_time_nobody_is_kept() -> None:
    lately = LatelyOnline()
    lately.gone("a", b"part", 1, now=100.0)
    lately.moved(["a"], now=100.0, time=1.0)
    assert names(lately, 100.0) == set()


def test_another_core_begins_anew() -> None:
    lately = LatelyOnline(lambda: 45.0)
    lately.gone("a", b"part", 1, now=100.0)
    lately.clear()
    assert names(lately, 100.0) == set()
