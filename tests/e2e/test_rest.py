"""REST as the panel speaks it: transport, both kinds of key, bodies in GETs, awkward framing, logs."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PROTOBUF, PanelClient, PanelError, chunk_frames, frame
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from pgnode.wire import varint
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually


@dataclass
class Stage:
    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    config: dict[str, Any]

    async def emails(self) -> set[str]:
        """Users of the inbound, as the core lists them."""
        return set(await inbound_users(self.node.run_dir / "core.sock", "VLESS"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_stage(node: NodeProcess, panel: PanelClient, target: Target) -> AsyncIterator[Stage]:
    config = make_config([make_inbound("VLESS", "vless")])
    users = make_users(30, ["VLESS"])
    links = [link(config["inbounds"][0], user, name=user.email) for user in users]
    async with ClientCore(links, target) as client:
        await panel.start(config, users)
        yield Stage(node, panel, client, config)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    await whole_stage.panel.sync_users(make_users(30, ["VLESS"]))
    return whole_stage


async def test_no_protocol_is_negotiated_although_h2_is_offered(stage: Stage) -> None:
    connection = await stage.panel.connect()
    assert connection.alpn is None
    await connection.close()


async def test_callers_who_connect_again_are_known_to_all_workers(stage: Stage) -> None:
    """They resume their session of TLS, whichever worker takes the connection."""
    context = ssl.create_default_context(cafile=str(stage.node.ca_file))

    def connect_often() -> list[bool]:
        session, resumed = None, []
        for _ in range(12):
            with (
                socket.create_connection((stage.node.host, stage.node.port), 30) as plain,
                context.wrap_socket(plain, server_hostname=stage.node.host, session=session) as connection,
            ):
                connection.sendall(b"GET /info HTTP/1.1\r\nHost: node\r\n\r\n")
                assert connection.recv(1000).startswith(b"HTTP/1.1 401")
                resumed.append(bool(connection.session_reused))
                session = connection.session
        return resumed

    assert await asyncio.to_thread(connect_often) == [False] + [True] * 11


async def test_connections_are_kept(stage: Stage) -> None:
    connection = await stage.panel.connect()
    for _ in range(3):
        answer = await connection.exchange(stage.panel.head("GET", "/info", {}), [], 30)
        assert answer.status == 200
        assert answer.headers["content-type"] == PROTOBUF
    assert not connection.ended
    await connection.close()


async def test_large_messages_over_a_kept_connection(stage: Stage) -> None:
    """Messages over 64 KiB, which take the node some time: every one is answered, and the connection stays."""
    body = pb.Users(users=make_users(900, ["VLESS"])).SerializeToString()
    assert len(body) > 2 * 64 * 1024
    head = stage.panel.head("PUT", "/users/sync", {"Content-Type": PROTOBUF, "Content-Length": str(len(body))})
    connection = await stage.panel.connect()
    for _ in range(40):
        answer = await connection.exchange(head, [body], 30)
        assert answer.status == 200
        assert not connection.ended
    await connection.close()


@pytest.mark.parametrize("shape", [str, str.upper, "{{{}}}".format, lambda key: key.replace("-", "")])
@pytest.mark.parametrize("auth", ["x-api-key", "bearer"])
async def test_both_headers_and_all_spellings_of_the_key(stage: Stage, auth: Any, shape: Callable[[str], str]) -> None:
    async with stage.node.panel(auth=auth, api_key=shape(stage.node.api_key)) as panel:
        assert (await panel.info()).started


@pytest.mark.parametrize("path", ["/info", "/stats", "/user/sync", "/nowhere", "/"])
@pytest.mark.parametrize("key", ["", "secret", str(uuid.UUID(int=0))])
async def test_missing_and_wrong_keys_before_the_body(stage: Stage, path: str, key: str) -> None:
    connection = await stage.panel.connect()
    async with stage.node.panel(api_key=key) as stranger:
        connection.send(stranger.head("PUT", path, {"Content-Length": "1000000"}))
        answer = await connection.read_response(30)  # of the body, not one byte was sent
    await connection.close()
    assert answer.status == 401
    assert json.loads(answer.body)["code"] == "UNAUTHENTICATED"
    assert answer.headers["content-type"].startswith("application/json")


async def test_gets_with_bodies(stage: Stage) -> None:
    await stage.client.move("user1@demo", 1_000, 1_000)
    one = await stage.panel.stats(pb.UserStat, "user1@demo")
    assert {stat.name for stat in one} <= {"user1@demo"}
    async with stage.client.hold("user2@demo"):
        await eventually(lambda: stage.panel.online("user2@demo"), "user2@demo is online")
        assert await stage.panel.online("user2@demo") == 1
        assert await stage.panel.online("user3@demo") == 0


@pytest.mark.parametrize("path", ["/info", "/stats/system", "/stats/backend", "/stats"])
async def test_paths_answer_with_a_trailing_slash(stage: Stage, path: str) -> None:
    assert (
        (await stage.panel.request("GET", path + "/")).status == (await stage.panel.request("GET", path)).status == 200
    )


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 10**9])
async def test_borders_of_http_chunks_mean_nothing(stage: Stage, size: int) -> None:
    users = make_users(25, ["VLESS"], name=f"border{size}-")
    body = b"".join(chunk_frames(users, users_per_chunk=10))
    await stage.panel.send_chunks("/users/sync/chunked", cut(body, size))
    assert {user.email for user in users} <= await stage.emails()
    await stage.panel.sync_chunked([make_user(user.email, []) for user in users])
    assert not {user.email for user in users} & await stage.emails()


async def test_chunks_in_any_order_equal_indexes_and_empty_frames(stage: Stage) -> None:
    users = make_users(6, ["VLESS"], name="order")
    frames = [
        frame(pb.UsersChunk(users=users[4:6], index=2, last=False)),
        varint.encode(0),
        frame(pb.UsersChunk(users=users[0:1], index=0)),
        frame(pb.UsersChunk(users=users[1:2], index=0)),
        varint.encode(0),
        frame(pb.UsersChunk(users=users[2:4], index=1, last=False)),
        frame(pb.UsersChunk(index=2, last=True)),
        b"\xff what comes after the last chunk is not read",
    ]
    await stage.panel.send_chunks("/users/sync/chunked", [b"".join(frames)])
    assert {user.email for user in users} <= await stage.emails()


async def test_an_empty_chunked_set_is_fine(stage: Stage) -> None:
    before = await stage.emails()
    await stage.panel.send_chunks("/users/sync/chunked", [frame(pb.UsersChunk(last=True))])
    assert await stage.emails() == before


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([pb.UsersChunk(index=0), pb.UsersChunk(index=2, last=True)], "missing chunk index 1"),
        ([pb.UsersChunk(index=0), pb.UsersChunk(index=1)], "missing final chunk indicator"),
        ([], "missing final chunk indicator"),
    ],
)
async def test_missing_chunks(stage: Stage, frames: list[pb.UsersChunk], text: str) -> None:
    stranger = make_user("stranger@demo", ["VLESS"])
    body = b"".join(frame(pb.UsersChunk(users=[stranger], index=f.index, last=f.last)) for f in frames)
    with pytest.raises(PanelError) as caught:
        await stage.panel.send_chunks("/users/sync/chunked", [body])
    assert caught.value.status == 400
    assert text in caught.value.text
    assert "stranger@demo" not in await stage.emails()


async def test_an_explicit_length_of_zero_is_an_empty_set(stage: Stage) -> None:
    answer = await stage.panel.request("PUT", "/users/sync", b"")
    assert answer.status == 200
    assert await stage.emails() == set()


async def test_two_viewers_see_every_line_and_one_that_does_not_read_holds_up_nobody(stage: Stage) -> None:
    sleeper = await stage.panel.connect()
    sleeper.send(stage.panel.head("GET", "/logs", {}))
    await sleeper.drain()
    async with stage.panel.logs() as first, stage.panel.logs() as second:
        for viewer in (first, second):
            assert viewer.headers["content-type"].startswith("text/event-stream")
        emails = [f"user{number}@demo" for number in range(30)]
        for _ in range(5):
            await asyncio.gather(*(stage.client.move(email, 100, 100) for email in emails))
        for viewer in (first, second):
            # A viewer begins with a replay of the last lines, so that earlier ones may be among these.
            lines: dict[str, set[str]] = {email: set() for email in emails}
            seen: list[str] = []
            async with asyncio.timeout(30):
                while min(map(len, lines.values())) < 5:
                    seen.append(await viewer.next_line(30))
                    assert not seen[-1].startswith("data:")
                    for email in emails:
                        if seen[-1].endswith(f"email: {email}"):
                            lines[email].add(seen[-1])
            assert len(seen) == len(set(seen)), "a line came twice"
    await sleeper.close()
    assert (await stage.panel.info()).started


async def test_log_headers_come_at_once_and_event_streams_are_framed_on_request(stage: Stage) -> None:
    async with asyncio.timeout(30), stage.panel.logs({"Accept": "text/event-stream"}) as viewer:
        assert viewer.headers["content-type"].startswith("text/event-stream")
        await stage.client.move("user5@demo", 100, 100)
        line = await viewer.wait_for("email: user5@demo", 30)
        assert line.startswith("data: ")
