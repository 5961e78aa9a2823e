"""What is asked of the statistics, parsed once."""

from __future__ import annotations

import pytest

from pgnode.api.service.stats_queries import REQUEST_BYTES_MAX, StatQueries
from pgnode.bus.indexed import name_hash
from pgnode.errors import InvalidRequestError
from pgnode.wire import service_pb2 as pb


def request(kind: pb.StatType, name: str = "", *, reset: bool = False) -> bytes:
    return pb.StatRequest(type=kind, name=name, reset=reset).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "snapshot", "single"),
    [
        (pb.UsersStat, "stats.users", False),
        (pb.UserStat, "stats.users", True),
        (pb.Inbounds, "stats.inbounds", False),
        (pb.Inbound, "stats.inbounds", True),
        (pb.Outbounds, "stats.outbounds", False),
        (pb.Outbound, "stats.outbounds", True),
    ],
)
def test_each_type_names_its_snapshot(kind: pb.StatType, snapshot: str, single: bool) -> None:
    queries = StatQueries()
    body = request(kind, "a")
    query = queries.of(body)
    assert (query.snapshot, query.single, query.name, query.reset, query.fault) == (snapshot, single, "a", False, "")
    assert queries.of(body) is query
    assert queries.plain == {body: (snapshot, name_hash("a") if single else None)}


def test_what_has_no_answer_says_why_and_is_not_plain() -> None:
    queries = StatQueries()
    assert queries.of(b"\x18\x09").fault == "unknown stat type 9: known types are 0 to 5"
    assert queries.of(request(pb.UserStat)).fault.startswith("empty name")
    assert queries.of(request(pb.UserStat, "a", reset=True)).fault == ""
    with pytest.raises(InvalidRequestError, match="malformed StatRequest"):
        queries.of(b"\xff")
    assert queries.plain == {}


def test_only_so_many_and_no_long_ones_are_kept() -> None:
    queries = StatQueries(requests_max=2)
    bodies = [request(pb.UserStat, name) for name in "abc"]
    for body in bodies:
        queries.of(body)
    assert list(queries.plain) == bodies[2:]
    queries.of(request(pb.UserStat, "x" * REQUEST_BYTES_MAX))
    assert list(queries.plain) == bodies[2:]
    assert repr(queries) == "StatQueries(1)"
