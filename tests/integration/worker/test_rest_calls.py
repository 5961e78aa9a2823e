"""Calls to REST workers over real sockets: reads, changes and log viewers, with a supervisor whose answers the test decides."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

import pytest

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.snapshots import ONLINE, STATE, STATS_USERS
from pgnode.errors import NodeError, StartFailedError, UnsupportedError, UsersRefusedError
from pgnode.testing.connection import LogViewer
from pgnode.testing.panel import PanelClient, chunk_frames, frame
from pgnode.wire import service_pb2 as pb
from pgnode.wire import varint
from tests.integration.worker.stage import Stage, user
from tests.support.errors import error_of
from tests.support.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- reads --------------------------------------------------------------------------------------------------------


async def test_the_base_info(panel: PanelClient) -> None:
    info = await panel.info()
    assert (info.started, info.running) == (True, True)
    assert (info.core_version, info.node_version, info.version) == ("26.10.10", "0.5.2.0+pgnode.0.3.0", "0.3.0")
    assert info.core_type == "xray"


async def test_statistics(panel: PanelClient) -> None:
    assert (await panel.system_stats()).mem_total == 1000
    assert (await panel.backend_stats()).num_goroutine == 42
    assert {(s.name, s.type): s.value for s in await panel.stats(pb.UsersStat)} == {
        ("alice", "uplink"): 10,
        ("alice", "downlink"): 20,
        ("bob", "uplink"): 5,
    }
    assert [s.value for s in await panel.stats(pb.UserStat, "alice")] == [10, 20]
    assert [s.value for s in await panel.stats(pb.Inbound, "VLESS")] == [7]
    assert await panel.stats(pb.UserStat, "nobody") == []
    assert await panel.stats(pb.Outbounds) == []


async def test_statistics_that_are_taken_are_booked_by_the_supervisor(stage: Stage, panel: PanelClient) -> None:
    taken = pb.StatResponse(stats=[pb.Stat(name="alice", link="traffic", type="uplink", value=99)])
    stage.supervisor.handlers[Kind.TAKE_STATS] = lambda _: Reply(body=taken.SerializeToString())
    assert [s.value for s in await panel.stats(pb.UserStat, "alice", reset=True)] == [99]
    [command] = stage.supervisor.commands
    assert pb.StatRequest.FromString(command.body) == pb.StatRequest(name="alice", reset=True, type=pb.UserStat)


async def test_online_users(panel: PanelClient) -> None:
    assert await panel.online("alice") == 2
    assert await panel.online_addresses("alice") == {"192.0.2.1": 100, "192.0.2.2": 200}
    for path in ("/stats/user/online", "/stats/user/online_ip"):
        answer = await panel.request("GET", path, pb.StatRequest(name="bob").SerializeToString())
        assert answer.status == 404
        assert "not found" in error_of(answer)["error"]
        answer = await panel.request("GET", path, pb.StatRequest().SerializeToString())
        assert answer.status == 400


async def test_a_new_snapshot_is_served_soon(stage: Stage, panel: PanelClient) -> None:
    await stage.supervisor.publish({STATS_USERS: _users_block(123), ONLINE: _users_block(0)})

    async def served() -> bool:
        return [s.value for s in await panel.stats(pb.UserStat, "carol")] == [123]

    await eventually(served, "the new revision is served")


def _users_block(value: int) -> bytes:
    from pgnode.bus import indexed

    stats = pb.StatResponse(stats=[pb.Stat(name="carol", link="traffic", type="uplink", value=value)])
    return indexed.pack([(indexed.name_hash("carol"), stats.SerializeToString())])


NOT_INITIALIZED = "backend not initialized"
NOT_STARTED = "core is not started yet"


@pytest.mark.parametrize(
    ("state", "api_error", "text"),
    [
        ("idle", "", NOT_INITIALIZED),
        ("failed", "", NOT_INITIALIZED),
        ("stopping", "", NOT_INITIALIZED),
        ("starting", "", NOT_STARTED),
        ("recovering", "", NOT_STARTED),
        ("running", "deadline exceeded", "failed to get sys stats: deadline exceeded"),
    ],
)
async def test_the_health_probe_tells_the_states_apart(
    stage: Stage, panel: PanelClient, state: str, api_error: str, text: str
) -> None:
    await stage.supervisor.set_state(state, api_error)

    async def probed() -> bool:
        answer = await panel.request("GET", "/stats/backend")
        return answer.status == 503 and error_of(answer)["error"] == text and "retry-after" in answer.headers

    await eventually(probed, f"503 {text}")
    info = await panel.info()
    assert info.started == (state == "running")
    assert info.core_version
    assert info.node_version
    assert (await panel.system_stats()).mem_total == 1000


# --- changes ------------------------------------------------------------------------------------------------------


async def test_a_start_goes_to_the_supervisor_and_its_answer_comes_back(stage: Stage, panel: PanelClient) -> None:
    response = pb.BaseInfoResponse(started=True, core_version="1", node_version="2")
    stage.supervisor.handlers[Kind.START] = lambda _: Reply(body=response.SerializeToString())
    assert await panel.start("{}", [user("alice")]) == response
    [command] = stage.supervisor.of_kind(Kind.START)
    assert pb.Backend.FromString(command.body).users[0].email == "alice"


async def test_who_starts_or_stops_sees_the_new_state_at_once(stage: Stage, panel: PanelClient) -> None:
    # The state is written without an announcement: only a worker that looks for itself can know.
    pipe = stage.supervisor._redis.pipeline()
    stopped = stage.supervisor.status.encode().replace(b'"running"', b'"idle"')
    pipe.hset(
        stage.supervisor.keys.snapshot(STATE),
        mapping={"rev": 1, "at_ms": 1, "body": stopped},
    )
    await pipe.execute()
    connection = await panel.connect()
    assert (await connection.exchange(panel.head("PUT", "/stop", {}), [], 30)).status == 200
    answer = await connection.exchange(panel.head("GET", "/info", {}), [], 30)
    assert not pb.BaseInfoResponse.FromString(answer.body).started
    await connection.close()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StartFailedError("listen tcp 0.0.0.0:443: address already in use"), 503),
        (UnsupportedError("not here"), 501),
        (UsersRefusedError("failed to update users: alice: no"), 500),
    ],
)
async def test_the_supervisors_errors_are_answered_as_they_are(
    stage: Stage, panel: PanelClient, error: NodeError, status: int
) -> None:
    stage.supervisor.handlers[Kind.START] = lambda _: Reply(error=error)
    body = pb.Backend(config="{}").SerializeToString()
    answer = await panel.request("POST", "/start", body)
    assert (answer.status, error_of(answer)) == (status, {"error": error.text, "code": error.code})


async def test_starts_that_are_refused_at_once(stage: Stage, panel: PanelClient) -> None:
    for backend, status in [(pb.Backend.FromString(b"\x08\x02\x12\x02{}"), 501), (pb.Backend(), 400)]:
        answer = await panel.request("POST", "/start", backend.SerializeToString())
        assert answer.status == status
        error_of(answer)
    assert stage.supervisor.commands == []


async def test_many_changes_at_once_get_their_own_answers(stage: Stage, panel: PanelClient) -> None:
    def refuse_odd(command: Command) -> Reply:
        email = pb.User.FromString(command.body).email
        return Reply(error=UsersRefusedError(f"failed to update users: {email}: odd")) if int(email) % 2 else Reply()

    stage.supervisor.handlers[Kind.SYNC_USER] = refuse_odd
    bodies = [user(str(number)).SerializeToString() for number in range(40)]
    answers = await asyncio.gather(*(panel.request("PUT", "/user/sync", body) for body in bodies))
    for number, answer in enumerate(answers):
        assert answer.status == (500 if number % 2 else 200)
        if number % 2:
            assert error_of(answer)["error"] == f"failed to update users: {number}: odd"


async def test_lists_reach_the_supervisor_as_they_are(stage: Stage, panel: PanelClient) -> None:
    """What is wrong with one user among many is the supervisor's to say; an error for the list would stop them all."""
    users = [user(email) for email in ("one", "Two", "two", "", "three", "three")]
    await panel.sync_users(users)
    [command] = stage.supervisor.commands
    assert list(pb.Users.FromString(command.body).users) == users


@pytest.mark.parametrize("size", [1, 3, 7, 100, 10**6])
async def test_borders_of_http_chunks_mean_nothing(stage: Stage, panel: PanelClient, size: int) -> None:
    users = [user(f"user{number}") for number in range(25)]
    body = b"".join(chunk_frames(users, users_per_chunk=10))
    await panel.send_chunks("/users/sync/chunked", [body[at : at + size] for at in range(0, len(body), size)])
    [command] = stage.supervisor.of_kind(Kind.SYNC_CHUNKED)
    assert list(pb.Users.FromString(command.body).users) == users


async def test_chunks_in_any_order_equal_indexes_and_empty_frames(stage: Stage, panel: PanelClient) -> None:
    users = [user(f"user{number}") for number in range(6)]
    frames = [
        frame(pb.UsersChunk(users=users[2:4], index=1)),
        varint.encode(0),
        frame(pb.UsersChunk(users=users[0:1])),
        frame(pb.UsersChunk(users=users[1:2])),
        frame(pb.UsersChunk(users=users[4:6], index=2, last=True)),
        b"\xff what comes after the last chunk is not read",
    ]
    await panel.send_chunks("/users/sync/chunked", [b"".join(frames)])
    [command] = stage.supervisor.commands
    assert list(pb.Users.FromString(command.body).users) == users


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([pb.UsersChunk(), pb.UsersChunk(index=2, last=True)], "missing chunk index 1"),
        ([pb.UsersChunk(index=2**63, last=True)], "missing chunk index 0"),
        ([pb.UsersChunk(), pb.UsersChunk(index=1)], "missing final chunk indicator"),
        ([], "missing final chunk indicator"),
    ],
)
async def test_missing_chunks(stage: Stage, panel: PanelClient, chunks: list[pb.UsersChunk], text: str) -> None:
    body = b"".join(frame(pb.UsersChunk(users=[user("a")], index=c.index, last=c.last)) for c in chunks)
    answer = await panel.request("PUT", "/users/sync/chunked", chunks=[body])
    assert answer.status == 400
    assert text in error_of(answer)["error"]
    assert stage.supervisor.commands == []


@pytest.mark.parametrize("body", [b"\x80" * 11, b"\x05\xff\xff\xff\xff\xff", b"\x7f\x0a", b"\xff\xff\xff\xff\x7f"])
async def test_malformed_framing(stage: Stage, panel: PanelClient, body: bytes) -> None:
    answer = await panel.request("PUT", "/users/sync/chunked", chunks=[body])
    assert answer.status == 400
    error_of(answer)
    assert stage.supervisor.commands == []


# --- logs ---------------------------------------------------------------------------------------------------------


async def past_replay(stage: Stage, *viewers: LogViewer) -> None:
    """Read what was logged before the viewers came: what is logged after their headers reaches each of them, once."""
    marker = f"marker {uuid.uuid4()}"
    await stage.supervisor.log_lines([marker.encode()])
    for viewer in viewers:
        await viewer.wait_for(marker, 30)


async def lines_of(viewer: LogViewer, count: int) -> list[str]:
    """The next lines."""
    lines: list[str] = []
    async with asyncio.timeout(60):
        while len(lines) < count:
            lines.append(await viewer.next_line(30))
    return lines


async def test_viewers_get_every_line_once_and_one_that_does_not_read_holds_up_nobody(
    stage: Stage, panel: PanelClient
) -> None:
    sleeper = await panel.connect()
    sleeper.send(panel.head("GET", "/logs", {}))
    await sleeper.drain()
    async with panel.logs() as first, panel.logs() as second:
        for viewer in (first, second):
            assert viewer.headers["content-type"].startswith("text/event-stream")
        await past_replay(stage, first, second)
        expected = [f"{'x' * 500} {number}" for number in range(3000)]
        for at in range(0, len(expected), 300):
            await stage.supervisor.log_lines([line.encode() for line in expected[at : at + 300]])
        for viewer in (first, second):
            assert await lines_of(viewer, len(expected)) == expected
        # Who joins later gets the last lines, then what follows them.
        async with panel.logs() as late:
            tail = await lines_of(late, stage.settings.startup_log_tail_size)
            assert tail == expected[-len(tail) :]
            await stage.supervisor.log_lines([b"one more"])
            assert await lines_of(late, 1) == ["one more"]
    assert (await panel.info()).started
    await sleeper.close()


async def test_a_viewer_that_wakes_up_is_told_what_it_missed(stage: Stage, panel: PanelClient) -> None:
    async with panel.logs() as sleeper:
        # More than the sockets' buffers and the viewer's queue hold.
        line = b"z" * 2000
        for _ in range(60):
            await stage.supervisor.log_lines([line] * 400)
        # Those of its queue, or those that a busy worker was too slow to take off the bus.
        notice = await sleeper.wait_for_match(r"\[(\d+) lines (dropped|lost)", 60)
        assert int(notice[1]) > 0


async def test_the_first_viewer_of_each_worker_gets_what_is_logged_after_its_headers(
    stage: Stage, panel: PanelClient
) -> None:
    for round_ in range(10):
        async with panel.logs() as viewer:
            await stage.supervisor.log_lines([f"after the headers {round_}".encode(), *([b"more"] * 300)])
            await viewer.wait_for(f"after the headers {round_}", 30)


async def test_viewers_that_come_all_at_once_all_get_the_last_lines(stage: Stage, panel: PanelClient) -> None:
    last = [f"last {number}" for number in range(stage.settings.startup_log_tail_size)]
    await stage.supervisor.log_lines([line.encode() for line in last])
    async with contextlib.AsyncExitStack() as stack:
        viewers = await asyncio.gather(*(stack.enter_async_context(panel.logs()) for _ in range(12)))
        for viewer in viewers:
            assert await lines_of(viewer, len(last)) == last


async def test_bytes_that_are_no_text_do_not_end_a_viewer(stage: Stage, panel: PanelClient) -> None:
    async with panel.logs() as viewer:
        await past_replay(stage, viewer)
        await stage.supervisor.log_lines([b"before \xff\xfe after", "gr\u00fc\u00dfe".encode()])
        broken, sound = await lines_of(viewer, 2)
        assert broken.startswith("before ")
        assert broken.endswith(" after")
        assert "\ufffd" in broken
        assert sound == "gr\u00fc\u00dfe"


async def test_event_streams_are_framed_for_who_asks(stage: Stage, panel: PanelClient) -> None:
    await stage.supervisor.log_lines([b"a line"])
    async with panel.logs({"Accept": "text/event-stream"}) as viewer:
        assert await viewer.wait_for("a line", 30) == "data: a line"
    async with panel.logs({"Accept": "*/*"}) as viewer:
        assert await viewer.wait_for("a line", 30) == "a line"
