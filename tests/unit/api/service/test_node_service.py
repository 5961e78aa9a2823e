"""The service's rules: states, statistics, and what is checked before a command goes out."""

from __future__ import annotations

import pytest

from pgnode.api.methods import BY_ROUTE, METHODS
from pgnode.api.service.node_service import NodeService
from pgnode.api.service.off_loop import THREAD_BYTES
from pgnode.api.service.stats_queries import StatQueries
from pgnode.api.service.tracked import TrackedAnswer, TrackedResponse
from pgnode.bus.commands import Kind
from pgnode.bus.indexed import IndexedBlock, name_hash, pack
from pgnode.bus.snapshots import NodeStatus
from pgnode.errors import (
    BusUnavailableError,
    CoreNotStartedError,
    CoreUnavailableError,
    InvalidRequestError,
    NodeError,
    NotFoundError,
    NotInitializedError,
    UnsupportedError,
)
from pgnode.wire import service_pb2 as pb
from pgnode.wire.framing import frame
from tests.unit.api.fakes import Node, status

ALICE = pb.StatResponse(stats=[pb.Stat(name="alice", type="uplink", link="traffic", value=5)]).SerializeToString()
BOB = pb.StatResponse(stats=[pb.Stat(name="bob", type="uplink", link="traffic", value=7)]).SerializeToString()
ONLINE = pb.StatsOnlineIpListResponse(name="alice", ips={"127.0.0.2": 10, "127.0.0.3": 20}).SerializeToString()


def block(**pieces: bytes) -> IndexedBlock:
    return IndexedBlock(pack((name_hash(name), piece) for name, piece in pieces.items()))


@pytest.fixture
def node() -> Node:
    made = Node()
    made.reads.bodies = {"system": b"sys", "backend": b"back"}
    made.reads.blocks = {
        "stats.users": block(alice=ALICE, bob=BOB),
        "stats.inbounds": block(vless=b"in"),
        "stats.outbounds": block(direct=b"out"),
        "online": block(alice=ONLINE),
    }
    return made


def query(kind: pb.StatType, name: str = "", *, reset: bool = False) -> bytes:
    return pb.StatRequest(type=kind, name=name, reset=reset).SerializeToString()


async def answer_of(answer: TrackedAnswer) -> bytes:
    if isinstance(answer, bytes | memoryview):
        return bytes(answer)
    waited = await answer
    return waited.body if isinstance(waited, TrackedResponse) else bytes(waited)


async def failure(service: NodeService, handler: str, body: bytes) -> NodeError:
    try:
        answer = await answer_of(getattr(service, handler)(body))
    except NodeError as error:
        return error
    pytest.fail(f"{handler} answered {answer!r}")


def test_every_method_has_a_handler_and_a_place_of_its_own(node: Node) -> None:
    service = node.service()
    assert all(callable(getattr(service, row.handler)) for row in METHODS)
    assert all(callable(getattr(service, row.cached_handler)) for row in METHODS if row.cached)
    assert len(BY_ROUTE) == len({row.grpc_name for row in METHODS}) == len(METHODS) == 19


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("idle", NotInitializedError),
        ("stopping", NotInitializedError),
        ("failed", NotInitializedError),
        ("starting", CoreNotStartedError),
        ("recovering", CoreNotStartedError),
        (None, BusUnavailableError),
    ],
)
async def test_reads_of_the_core_say_the_state(node: Node, state: str | None, error: type[NodeError]) -> None:
    node.reads.status = None if state is None else status(state)
    service = node.service()
    for handler, body in [
        ("backend_stats", b""),
        ("stats", query(pb.StatType.UsersStat)),
        ("user_online", query(pb.StatType.UserStat, "alice")),
        ("user_online_ips", query(pb.StatType.UserStat, "alice")),
    ]:
        assert type(await failure(service, handler, body)) is error
    assert node.refreshes == 4
    info = pb.BaseInfoResponse.FromString(await answer_of(service.info()))
    assert not info.started
    assert info.node_version
    assert service.system_stats() == b"sys"


async def test_a_core_that_does_not_answer(node: Node) -> None:
    node.reads.status = status(api_error="timed out")
    service = node.service()
    error = await failure(service, "backend_stats", b"")
    assert (type(error), error.text) == (CoreUnavailableError, "failed to get sys stats: timed out")
    error = await failure(service, "stats", query(pb.StatType.UsersStat))
    assert (type(error), error.text) == (CoreUnavailableError, "failed to get stats: timed out")


async def test_info_follows_the_status(node: Node) -> None:
    service = node.service()
    first = service.info()
    assert isinstance(first, bytes)
    info = pb.BaseInfoResponse.FromString(first)
    assert info.started
    assert info.running
    assert (info.core_version, info.node_version, info.version, info.core_type) == (
        "26.10.10",
        "0.5.2.0+pgnode.9.9.9",
        "9.9.9",
        "xray",
    )
    assert service.info() is first
    node.reads.status = status("recovering")
    assert not pb.BaseInfoResponse.FromString(await answer_of(service.info())).started
    node.reads.status = None
    assert pb.BaseInfoResponse.FromString(await answer_of(service.info())).node_version == "0.5.2.0+pgnode.0.3.0"


@pytest.mark.parametrize("before", [None, status("idle"), status("starting"), status(api_error="timed out")])
async def test_news_of_a_start_are_looked_for_before_saying_no(node: Node, before: NodeStatus | None) -> None:
    service = node.service()
    for handler, body, expected in [
        ("backend_stats", b"", b"back"),
        ("stats", query(pb.StatType.UserStat, "bob"), BOB),
        ("user_online_ips", query(pb.StatType.UserStat, "alice"), ONLINE),
    ]:
        node.reads.status, node.news = before, status()
        assert await answer_of(getattr(service, handler)(body)) == expected
    assert node.refreshes == 3


def test_a_running_core_is_read_without_a_look(node: Node) -> None:
    service = node.service()
    assert service.backend_stats() == b"back"
    assert service.user_online_ips(query(pb.StatType.UserStat, "alice")) == ONLINE
    assert node.refreshes == 0


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (query(pb.StatType.UsersStat), ALICE + BOB),
        (query(pb.StatType.UserStat, "bob"), BOB),
        (query(pb.StatType.UserStat, "BOB"), BOB),
        (query(pb.StatType.UserStat, "carol"), b""),
        (query(pb.StatType.Inbounds), b"in"),
        (query(pb.StatType.Inbound, "vless"), b"in"),
        (query(pb.StatType.Outbounds), b"out"),
        (b"", b"out"),
        (query(pb.StatType.Outbound, "direct"), b"out"),
    ],
)
def test_stats_come_from_the_snapshot(node: Node, body: bytes, answer: bytes) -> None:
    service = node.service()
    assert service.stats(body) == answer
    assert service.stats(body) == answer
    assert service.stats_cached(body) == answer
    assert not node.commands.calls


def test_what_is_not_at_hand_is_not_told_at_once(node: Node) -> None:
    service = node.service()
    body = query(pb.StatType.UserStat, "bob")
    assert service.stats_cached(body) is None  # not seen before
    assert service.stats(body) == service.stats_cached(body) == BOB
    for other in (query(pb.StatType.UserStat, "bob", reset=True), query(pb.StatType.UserStat), b"\x18\x09", b"\xff"):
        service.is_tracked(other)
        assert service.stats_cached(other) is None
    node.reads.too_old = "the core does not answer"
    assert service.stats_cached(body) is None
    node.reads.too_old = ""
    for state in (None, status("recovering"), status(api_error="no answer")):
        node.reads.status = state
        assert service.stats_cached(body) is None
    assert not node.refreshes


def test_requests_are_remembered_only_so_far(node: Node) -> None:
    service = node.service(queries=StatQueries(requests_max=2))
    bodies = [query(pb.StatType.UserStat, name) for name in ("alice", "bob", "carol")]
    assert [service.stats(body) for body in bodies] == [ALICE, BOB, b""]
    assert [service.stats_cached(body) for body in bodies] == [None, None, b""]
    long = query(pb.StatType.UserStat, "x" * 600)
    assert service.stats(long) == b""
    assert service.stats_cached(long) is None


async def test_reset_goes_to_the_supervisor(node: Node) -> None:
    body = query(pb.StatType.UserStat, "alice", reset=True)
    node.commands.reply = b"taken"
    for timeout, timeout_seconds in ((30.0, 10.0), (4.0, 4.0)):
        answer = node.service(timeout).stats(body)
        assert not isinstance(answer, bytes | memoryview)
        tracked = await answer
        assert isinstance(tracked, TrackedResponse)
        assert tracked.body == b"taken"
        assert node.commands.calls.pop() == (Kind.TAKE_STATS, body, timeout_seconds)


@pytest.mark.parametrize(
    ("handler", "body", "text"),
    [
        ("stats", b"\x18\x09", "unknown stat type 9"),
        ("stats", b"\xff", "malformed StatRequest"),
        ("stats", query(pb.StatType.UserStat), "empty name"),
        ("user_online", b"", "empty name"),
        ("user_online_ips", b"", "empty name"),
        ("sync_user", b"\xff", "malformed User"),
        ("sync_user", b"\x0a\x02\xff\xfe", "malformed User"),
        ("sync_user", b"", "empty email"),
        ("sync_users", b"\x0a\x09\x0a", "malformed Users"),
        ("sync_users_chunked", b"", "missing final chunk"),
        ("start", b"\xff", "malformed Backend"),
        ("start", b"", "empty config"),
    ],
)
async def test_bad_input_reaches_no_supervisor(node: Node, handler: str, body: bytes, text: str) -> None:
    error = await failure(node.service(), handler, body)
    assert type(error) is InvalidRequestError
    assert error.text.startswith(text)
    assert not node.commands.calls


async def test_other_backends_are_not_implemented(node: Node) -> None:
    backend = b"\x08\x02" + pb.Backend(config="{}").SerializeToString()
    assert type(await failure(node.service(), "start", backend)) is UnsupportedError
    assert not node.commands.calls


async def test_online(node: Node) -> None:
    service = node.service()
    body = query(pb.StatType.UserStat, "alice")
    online = pb.OnlineStatResponse.FromString(await answer_of(service.user_online(body)))
    assert (online.name, online.value) == ("alice", 2)
    assert service.user_online_ips(body) == ONLINE
    error = await failure(service, "user_online", query(pb.StatType.UserStat, "carol"))
    assert (type(error), error.text) == (NotFoundError, "online entry of user 'carol' not found")


@pytest.mark.parametrize("large", [False, True])
async def test_writes_hand_on_the_bytes_as_they_came(node: Node, large: bool) -> None:
    node.reads.status = status("idle")  # the supervisor answers for the state
    service = node.service()
    alice = pb.User(email="alice", inbounds=["x" * THREAD_BYTES] if large else [])
    backend = pb.Backend(config="{}", users=[alice]).SerializeToString()
    user = alice.SerializeToString()
    users = pb.Users(users=[alice, pb.User(), alice]).SerializeToString()
    chunk = pb.UsersChunk(users=[alice, pb.User(), alice], last=True)
    await service.start(backend)
    await service.stop()
    await service.sync_user(user)
    await service.sync_users(users)
    await service.sync_users(b"")
    await service.sync_users_chunked(frame(chunk))
    assert node.commands.calls == [
        (Kind.START, backend, 30.0),
        (Kind.STOP, b"", 30.0),
        (Kind.SYNC_USER, user, 30.0),
        (Kind.SYNC_USERS, users, 30.0),
        (Kind.SYNC_USERS, b"", 30.0),
        (Kind.SYNC_CHUNKED, users, 30.0),
    ]


async def test_emails_that_differ_only_in_case_are_for_the_supervisor(node: Node) -> None:
    users = [pb.User(email="Alice"), pb.User(email="bob"), pb.User(email="aLice")]
    whole = pb.Users(users=users).SerializeToString()
    service = node.service()
    await service.sync_users(whole)
    await service.sync_users_chunked(frame(pb.UsersChunk(users=users, last=True)))
    assert [call[:2] for call in node.commands.calls] == [(Kind.SYNC_USERS, whole), (Kind.SYNC_CHUNKED, whole)]


async def test_statistics_that_are_too_old_are_not_told(node: Node) -> None:
    node.reads.too_old = "QueryStats: no answer within 5 s"
    error = await failure(node.service(), "stats", query(pb.UserStat, "alice"))
    assert isinstance(error, CoreUnavailableError)
    assert error.text == "failed to get stats: QueryStats: no answer within 5 s"
