"""REST workers over real sockets, before a call is one: connections, the key, paths, methods and bodies."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from pgnode.bus.commands import Kind
from pgnode.testing.panel import PROTOBUF, PanelClient
from pgnode.wire import service_pb2 as pb
from tests.integration.worker.stage import BODY_TIMEOUT_SECONDS, HEADER_TIMEOUT_SECONDS, MIB, Stage, user
from tests.support.errors import error_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: What a closing connection may take beyond its time limit on a busy machine.
SLACK_SECONDS = 30.0


def _route(route: str) -> tuple[str, str]:
    """ "PUT /stop" taken apart."""
    method, path = route.split(" ")
    return method, path


# --- transport ----------------------------------------------------------------------------------------------------


async def test_http_1_is_spoken_and_nothing_negotiated_although_only_h2_is_offered(panel: PanelClient) -> None:
    connection = await panel.connect()
    assert connection.alpn is None
    for _ in range(3):
        answer = await connection.exchange(panel.head("GET", "/info", {}), [], 30)
        assert (answer.status, answer.headers["content-type"]) == (200, PROTOBUF)
    await connection.close()


async def test_idle_connections_stay_open(panel: PanelClient) -> None:
    connection = await panel.connect()
    await connection.exchange(panel.head("GET", "/info", {}), [], 30)
    # Longer than the limit for headers, and than Gunicorn's own default of two seconds.
    with pytest.raises(TimeoutError):
        await connection.wait_end(max(HEADER_TIMEOUT_SECONDS, 2.0) + 1.0)
    await connection.close()


async def test_headers_that_do_not_come_end_the_connection(panel: PanelClient) -> None:
    silent, slow, later, last = [await panel.connect() for _ in range(4)]
    slow.send(b"GET /info HTTP/1.1\r\nHost: node\r\nx-api-")
    # A further request that begins in the same packet as the one before it, and one that begins after an answer.
    await later.exchange(panel.head("GET", "/info", {}) + b"GET /info HTTP/1.1\r\nHo", [], 30)
    await last.exchange(panel.head("GET", "/info", {}), [], 30)
    last.send(b"GET /info HTTP/1.1\r\nHo")
    for connection in (silent, slow, later, last):
        assert await connection.wait_end(HEADER_TIMEOUT_SECONDS + SLACK_SECONDS) == b""
        await connection.close()
    assert (await panel.info()).started


async def test_a_body_that_does_not_come_ends_the_connection(stage: Stage, panel: PanelClient) -> None:
    connection = await panel.connect()
    connection.send(panel.head("PUT", "/users/sync", {"Content-Length": "100"}) + b"\x0a")
    await connection.wait_end(BODY_TIMEOUT_SECONDS + SLACK_SECONDS)
    await connection.close()
    await panel.sync_user(user("after"))
    assert [command.kind for command in stage.supervisor.commands] == [Kind.SYNC_USER]


@pytest.mark.parametrize(
    "lengths",
    ["Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 0\r\nContent-Length: 5\r\n"],
    ids=["length and chunked", "two lengths"],
)
async def test_two_ways_to_say_the_length(stage: Stage, panel: PanelClient, lengths: str) -> None:
    head = panel.head("PUT", "/users/sync", {}).removesuffix(b"\r\n") + lengths.encode() + b"\r\n"
    connection = await panel.connect()
    connection.send(head + b"0\r\n\r\n")
    answer = await connection.read_response(30)
    assert answer.status == 400
    assert error_of(answer)["code"] == "INVALID_ARGUMENT"
    assert await connection.wait_end(30) == b""
    assert stage.supervisor.commands == []


async def test_what_is_no_http_is_answered_in_the_form_of_all_errors(panel: PanelClient) -> None:
    connection = await panel.connect()
    connection.send(b"GARBAGE\r\n\r\n")
    answer = await connection.read_response(30)
    assert answer.status == 400
    error_of(answer)
    await connection.close()


#: An upgrade that a server of WebSocket would take.
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "eA=="}


@pytest.mark.parametrize("key", ["", None], ids=["a stranger", "with the key"])
async def test_an_upgrade_is_ignored(stage: Stage, key: str | None) -> None:
    async with stage.panel(api_key=key) as panel:
        answer = await panel.request("GET", "/info", headers=UPGRADE)
    assert answer.status == (200 if key is None else 401)
    assert "upgrade" not in answer.headers


@pytest.mark.parametrize("line", [b"GET /info\r\n", b"GET /info\n", b"\r\nGET /info\r\n"])
async def test_a_caller_of_http_0_9_is_answered_at_once(panel: PanelClient, line: bytes) -> None:
    connection = await panel.connect()
    connection.send(line)
    answer = await connection.read_response(30)
    assert answer.status == 400
    assert await connection.wait_end(30) == b""
    await connection.close()


async def test_who_asks_for_the_end_of_the_connection_gets_it(panel: PanelClient) -> None:
    connection = await panel.connect()
    connection.send(panel.head("GET", "/info", {"Connection": "close"}))
    answer = await connection.read_response(30)
    assert (answer.status, answer.closes) == (200, True)
    assert await connection.wait_end(30) == b""
    await connection.close()


async def test_nothing_is_said_to_a_stranger_on_any_port(stage: Stage) -> None:
    """Neither what answers, nor what there is."""
    told = set()
    for port in (stage.port, stage.api_port):
        async with stage.panel(api_key="") as stranger:
            stranger.port = port
            for method, path in (
                ("GET", "/"),
                ("GET", "/info"),
                ("POST", "/start"),
                ("OPTIONS", "*"),
                ("GET", "/x/../y"),
            ):
                answer = await stranger.request(method, path)
                assert answer.status == 401, (port, method, path)
                known = {"content-type", "content-length", "date", "connection", "www-authenticate"}
                assert set(answer.headers) <= known, answer.headers
                told.add(json.loads(answer.body)["error"])
    assert len(told) == 1


# --- the key ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/info", "/users/sync", "/nowhere", "/"])
@pytest.mark.parametrize("key", ["", "secret", str(uuid.UUID(int=0))])
async def test_no_key_is_answered_before_the_body(stage: Stage, panel: PanelClient, path: str, key: str) -> None:
    connection = await panel.connect()
    async with stage.panel(api_key=key) as stranger:
        connection.send(stranger.head("PUT", path, {"Content-Length": "1000000"}))
        answer = await connection.read_response(30)  # not one byte of the body was sent
    assert (answer.status, error_of(answer)["code"]) == (401, "UNAUTHENTICATED")
    # It cannot be used again: its body would be taken for the next request.
    await connection.wait_end(BODY_TIMEOUT_SECONDS + SLACK_SECONDS)
    await connection.close()


@pytest.mark.parametrize("shape", [str, str.upper, "{{{}}}".format, lambda key: key.replace("-", "")])
@pytest.mark.parametrize("auth", ["x-api-key", "bearer"])
async def test_the_key_in_both_headers_and_all_spellings(stage: Stage, auth: Any, shape: Any) -> None:
    async with stage.panel(auth=auth, api_key=shape(stage.api_key)) as panel:
        assert (await panel.info()).started


# --- paths, methods, bodies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nowhere", "/", "/stats/nothing", "/info/more", "/user", "//info", "/info//"])
async def test_unknown_paths(panel: PanelClient, path: str) -> None:
    answer = await panel.request("GET", path)
    assert (answer.status, error_of(answer)["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/start"), ("POST", "/info"), ("PUT", "/stats"), ("OPTIONS", "/info"), ("DELETE", "/logs")],
)
async def test_wrong_methods(panel: PanelClient, method: str, path: str) -> None:
    answer = await panel.request(method, path, b"")
    assert (answer.status, error_of(answer)["code"]) == (405, "METHOD_NOT_ALLOWED")


async def test_head_is_no_method_of_the_node(panel: PanelClient) -> None:
    connection = await panel.connect()
    connection.send(panel.head("HEAD", "/info", {}))
    status, _ = await connection.read_head(30)
    assert status == 405
    await connection.close()


@pytest.mark.parametrize("path", ["/info", "/stats", "/stats/system", "/stats/backend"])
async def test_a_slash_at_the_end_changes_nothing(panel: PanelClient, path: str) -> None:
    plain, slashed = await panel.request("GET", path), await panel.request("GET", path + "/")
    assert plain.status == slashed.status == 200
    assert plain.body == slashed.body


@pytest.mark.parametrize("route", ["PUT /users/sync", "PUT /user/sync", "PUT /users/sync/chunked", "POST /start"])
async def test_a_message_without_a_length(stage: Stage, panel: PanelClient, route: str) -> None:
    answer = await panel.request(*_route(route))
    assert (answer.status, error_of(answer)["code"]) == (411, "LENGTH_REQUIRED")
    assert stage.supervisor.commands == []


async def test_a_length_of_zero_is_an_empty_list(stage: Stage, panel: PanelClient) -> None:
    assert (await panel.request("PUT", "/users/sync", b"")).status == 200
    assert [(c.kind, c.body) for c in stage.supervisor.commands] == [(Kind.SYNC_USERS, b"")]


@pytest.mark.parametrize("route", ["PUT /users/sync", "PUT /user/sync", "POST /start"])
async def test_a_body_over_the_limit_is_refused_before_it_is_sent(panel: PanelClient, route: str) -> None:
    connection = await panel.connect()
    connection.send(panel.head(*_route(route), {"Content-Length": str(2 * MIB)}))
    answer = await connection.read_response(30)
    assert (answer.status, error_of(answer)["code"]) == (413, "PAYLOAD_TOO_LARGE")
    await connection.close()


async def test_a_chunked_body_over_the_limit(stage: Stage, panel: PanelClient) -> None:
    answer = await panel.request("PUT", "/users/sync/chunked", chunks=[bytes(MIB // 4)] * 8)
    assert (answer.status, error_of(answer)["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert stage.supervisor.commands == []


@pytest.mark.parametrize("content_type", ["application/xml", "text/plain"])
async def test_another_content_type(stage: Stage, panel: PanelClient, content_type: str) -> None:
    body = user("alice").SerializeToString()
    answer = await panel.request("PUT", "/user/sync", body, headers={"Content-Type": content_type})
    assert answer.status == 400
    assert content_type in error_of(answer)["error"]
    assert stage.supervisor.commands == []


@pytest.mark.parametrize("content_type", ["", PROTOBUF, f"{PROTOBUF}; charset=binary"])
async def test_content_types_that_are_fine(stage: Stage, panel: PanelClient, content_type: str) -> None:
    body = user("alice").SerializeToString()
    assert (await panel.request("PUT", "/user/sync", body, headers={"Content-Type": content_type})).status == 200
    assert [command.body for command in stage.supervisor.commands] == [body]


@pytest.mark.parametrize(
    "body",
    [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x03a\xff\xfe", pb.User(inbounds=["VLESS"]).SerializeToString()],
    ids=["malformed", "cut message", "no UTF-8", "empty e-mail"],
)
async def test_a_user_that_cannot_be_read(stage: Stage, panel: PanelClient, body: bytes) -> None:
    answer = await panel.request("PUT", "/user/sync", body)
    assert (answer.status, error_of(answer)["code"]) == (400, "INVALID_ARGUMENT")
    assert stage.supervisor.commands == []


async def test_bodies_cut_by_a_broken_connection_reach_nobody(stage: Stage, panel: PanelClient) -> None:
    whole = pb.Users(users=[user("one"), user("two")]).SerializeToString()
    first = len(pb.Users(users=[user("one")]).SerializeToString())  # by itself a valid, smaller list
    for headers, part in [
        ({"Content-Length": str(len(whole))}, whole[:first]),
        ({"Transfer-Encoding": "chunked"}, b"%x\r\n%b\r\n" % (first, whole[:first])),
    ]:
        connection = await panel.connect()
        connection.send(panel.head("PUT", "/users/sync", headers) + part)
        await connection.drain()
        connection.end_input()
        await connection.close()
    await panel.sync_user(user("after"))
    assert [command.kind for command in stage.supervisor.commands] == [Kind.SYNC_USER]
