"""What is answered as a whole is, to the byte, what the application answers, and is counted alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from structlog.testing import capture_logs

from pgnode.api.auth import ApiKeys
from pgnode.api.call_audit import CallAudit
from pgnode.api.rest.app import build
from pgnode.api.rest.asgi import Headers
from pgnode.api.rest.pipeline import RequestPipeline
from pgnode.bus.commands import Kind
from pgnode.bus.indexed import IndexedBlock, name_hash, pack
from pgnode.errors import BusUnavailableError, UsersRefusedError
from pgnode.metrics.meter import FaceMeter
from pgnode.os_support.aio import end_tasks
from pgnode.wire import service_pb2 as pb
from tests.support.polling import next_turn
from tests.unit.api.fakes import KEY, Answer, Call, Node, part
from tests.unit.api.rest.requests import LIMIT_BYTES, USER

STAT = pb.StatResponse(stats=[pb.Stat(name="alice", type="uplink", link="traffic", value=5)]).SerializeToString()
ASK = pb.StatRequest(type=pb.UserStat, name="alice").SerializeToString()
PROTOBUF = (b"content-type", b"application/x-protobuf")
RIGHT = (b"x-api-key", KEY.encode())


@dataclass
class Side:
    """A node on fakes, its pipeline, and what counts the calls."""

    node: Node
    meter: FaceMeter
    audit: CallAudit
    pipeline: RequestPipeline
    #: Called with the calls that were counted.
    told: list[Any]

    @property
    def counted(self) -> object:
        return self.meter.calls, dict(self.meter.key_uses), self.meter.in_flight, self.node.commands.calls

    def audited(self) -> list[dict[str, Any]]:
        with capture_logs() as lines:
            self.audit.tell()
        return [dict(line) for line in lines]


def side(key: str | ApiKeys = KEY) -> Side:
    node = Node()
    node.reads.bodies = {"system": pb.SystemStatsResponse(mem_total=7).SerializeToString(), "backend": b"back"}
    node.reads.blocks, node.reads.age = {"stats.users": IndexedBlock(pack([(name_hash("alice"), STAT)]))}, 3.7
    meter, told = FaceMeter(lambda: 0.0), list[Any]()
    keys = ApiKeys.of(key)
    audit = CallAudit(keys, lambda seconds, _what: told.append(seconds))
    made = build(
        node.service(),
        api_key=keys,
        max_body_bytes=LIMIT_BYTES,
        body_timeout_seconds=0.05,
        meter=meter,
        audit=audit,
        drain_seconds=0.01,
    )
    return Side(node, meter, audit, made, told)


async def in_the_usual_way(of: Side, method: str, path: str, headers: Headers, body: bytes) -> Answer:
    call = Call(method, path, {}, [part(body)])
    call.scope["headers"] = headers
    return await call.run(of.pipeline)


async def as_a_whole(of: Side, method: str, path: str, headers: Headers, body: bytes) -> Answer | None:
    found = of.pipeline.whole.find(method, path, headers, "127.0.0.1", body)
    if found is None:
        return None
    answer = found if isinstance(found, tuple) else await found
    return Answer(answer.status, dict(answer.headers), bytes(answer.body))


#: Calls, and whether the usual caller's are answered as a whole.
CALLS = {
    ("GET", "/info", b""): True,
    ("GET", "/info/", b""): True,
    ("GET", "/stats/system", b""): False,
    ("GET", "/stats/backend", b""): True,
    ("GET", "/stats", ASK): True,
    ("GET", "/stats", pb.StatRequest(type=pb.UserStat, name="alice", reset=True).SerializeToString()): False,
    ("GET", "/stats", b"\xff"): False,
    ("PUT", "/user/sync", USER): True,
    ("PUT", "/user/sync/", USER): True,
    ("PUT", "/user/sync", b""): True,
    ("PUT", "/user/sync", b"\xff"): True,
    ("PUT", "/user/sync", USER + bytes(LIMIT_BYTES)): False,
    ("PUT", "/users/sync", pb.Users(users=[pb.User(email="alice")]).SerializeToString()): False,
    ("PUT", "/stop", b""): False,
    ("POST", "/info", b""): False,
    ("GET", "/nowhere", b""): False,
}


@pytest.mark.parametrize("error", [None, BusUnavailableError("away"), UsersRefusedError("no"), KeyError("a fault")])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]} {call[1]} {len(call[2])}")
async def test_what_the_usual_caller_sends(call: tuple[str, str, bytes], error: Exception | None) -> None:
    method, path, body = call
    length = [(b"content-length", b"%d" % len(body)), PROTOBUF] if body or method != "GET" else []
    headers = [(b"host", b"n"), RIGHT, (b"accept", b"*/*"), *length]
    usual, whole = side(), side()
    for of in (usual, whole):
        # A body that was not seen before goes the long way in any case.
        await in_the_usual_way(of, method, path, headers, body)
        of.node.commands.error = error
    found = await as_a_whole(whole, method, path, headers, body)
    assert (found is not None) == CALLS[call]
    if found is not None:
        assert found == await in_the_usual_way(usual, method, path, headers, body)
        assert whole.counted == usual.counted
        assert whole.audited() == usual.audited()
        assert whole.told == usual.told


#: What a caller may say of itself and of its message.
KEYS: list[Headers] = [
    [RIGHT],
    [],
    [(b"x-api-key", b"123")],
    [(b"authorization", b"Bearer " + KEY.encode())],
    [RIGHT, (b"x-api-key", b"123")],
]
ACCEPTED = [None, b"*/*", b"application/json", b"application/x-protobuf, application/json;q=0.5"]
TYPES = [None, b"application/x-protobuf", b"Application/X-Protobuf; a=b", b"application/json", b"text/html"]
LENGTHS: list[Headers] = [
    [],
    [(b"content-length", b"%d")],
    [(b"content-length", b"0%d")],
    [(b"content-length", b"9%d")],
    [(b"content-length", b"x")],
    [(b"transfer-encoding", b"chunked")],
    [(b"content-length", b"%d"), (b"transfer-encoding", b"chunked")],
    [(b"content-length", b"%d"), (b"content-length", b"%d")],
]


@pytest.mark.parametrize(
    "call", [("GET", "/info", b""), ("GET", "/stats", ASK), ("PUT", "/user/sync", USER), ("PUT", "/user/sync", b"")]
)
@pytest.mark.parametrize("key", KEYS, ids=["right", "none", "wrong", "bearer", "twice"])
async def test_whatever_a_caller_says(call: tuple[str, str, bytes], key: Headers) -> None:
    """Where it is answered as a whole, alike; where it is not, nothing was counted, asked or noted by that question."""
    method, path, body = call
    usual, whole, answered = side(), side(), 0
    for accept, kind, length in product(ACCEPTED, TYPES, LENGTHS):
        headers = [
            *key,
            *([(b"accept", accept)] if accept is not None else []),
            *([(b"content-type", kind)] if kind is not None else []),
            *((name, value.replace(b"%d", b"%d" % len(body))) for name, value in length),
        ]
        before = whole.counted
        found = await as_a_whole(whole, method, path, headers, body)
        if found is None:
            assert whole.counted == before
            # To be answered in the usual way, so that both sides have had the same calls.
            found = await in_the_usual_way(whole, method, path, headers, body)
        else:
            answered += 1
        assert found == await in_the_usual_way(usual, method, path, headers, body)
        assert whole.counted == usual.counted
    assert whole.audited() == usual.audited()
    assert (answered > 0) == (key in ([RIGHT], KEYS[3]))


async def test_a_message_without_a_type_is_protobuf() -> None:
    whole = side()
    length = (b"content-length", b"%d" % len(USER))
    found = await as_a_whole(whole, "PUT", "/user/sync", [RIGHT, length], USER)
    assert found is not None
    assert found.status == 200


async def test_a_node_that_knows_no_key_yet_answers_nothing_so() -> None:
    whole = side(ApiKeys(None))
    assert await as_a_whole(whole, "GET", "/info", [RIGHT], b"") is None
    assert whole.meter.in_flight == 0


async def test_a_caller_that_goes_meanwhile_is_counted_as_gone() -> None:
    whole = side()
    never = asyncio.Event()

    async def waits(kind: Kind, body: bytes, timeout_seconds: float) -> bytes:
        await never.wait()
        return b""

    whole.node.commands.call = waits  # type: ignore[method-assign]
    length = (b"content-length", b"%d" % len(USER))
    found = whole.pipeline.whole.find("PUT", "/user/sync", [RIGHT, PROTOBUF, length], "", USER)
    assert isinstance(found, Awaitable)
    asked = asyncio.ensure_future(found)
    await next_turn()
    assert whole.meter.in_flight == 1
    await end_tasks([asked])
    assert whole.meter.in_flight == 0
    assert whole.meter.calls == {"SyncUser": {"CANCELLED": 1}}


def test_what_it_is() -> None:
    assert repr(side().pipeline.whole).startswith("WholeAnswers(")
