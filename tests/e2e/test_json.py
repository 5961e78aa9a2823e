"""JSON over REST against a real node, as an operator with curl sends it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgnode.api.methods import METHODS, Method
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient, Response
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.support.core_lists import inbound_users
from tests.support.errors import error_of

JSON = "application/json"


async def curl(panel: PanelClient, method: str, path: str, sent: Any = None) -> tuple[int, Any]:
    """Status and JSON of the answer; ``sent`` is bytes, or an object that becomes JSON."""
    body = sent if sent is None or isinstance(sent, bytes) else json.dumps(sent).encode()
    headers = {"Accept": JSON} | ({} if body is None else {"Content-Type": JSON})
    response = await panel.request(method, path, body, headers=headers, timeout_seconds=30.0)
    assert response.headers["content-type"] == JSON
    return response.status, json.loads(response.body)


def as_json(user: pb.User) -> dict[str, Any]:
    proxies = {"vless": {"id": user.proxies.vless.id}}
    return {"email": user.email, "inbounds": list(user.inbounds), "proxies": proxies}


#: Those that answer at once, without the one that gives the node a core.
UNARY = [row for row in METHODS if not row.streaming and row.grpc_name != "Start"]


@pytest.mark.parametrize("row", UNARY, ids=lambda row: row.grpc_name)
async def test_without_a_core_each_method_does_what_the_table_says(panel: PanelClient, row: Method) -> None:
    await panel.stop()
    sent: Any = None
    if row.takes_body:
        sent = {"email": "a"} if row.request is pb.User else {}
        if row.request is pb.StatRequest:
            sent = {"name": "a", "type": "UserStat"}
    status, answer = await curl(panel, row.http_method, row.path, sent)
    if row.any_state:
        assert status == 200
    else:
        assert (status, answer["code"]) == (503, "BACKEND_NOT_INITIALIZED")
        assert answer["error"] == "backend not initialized"


async def test_a_node_s_life_in_json(node: NodeProcess, panel: PanelClient) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    users = [as_json(user) for user in make_users(300, ["VLESS"])]

    async def emails() -> set[str]:
        return set(await inbound_users(node.run_dir / "core.sock", "VLESS"))

    status, info = await curl(
        panel, "POST", "/start", {"type": "XRAY", "config": json.dumps(config), "users": users[:2]}
    )
    assert status == 200
    assert info["started"] is True
    assert await curl(panel, "GET", "/info") == (200, info)
    assert await emails() == {"user0@demo", "user1@demo"}

    # A long list, which is converted in a thread, and a short one.
    assert await curl(panel, "PUT", "/users/sync", {"users": users}) == (200, {})
    assert len(await emails()) == 300
    assert await curl(panel, "PUT", "/users/sync", {"users": users[:3]}) == (200, {})
    assert await curl(panel, "PUT", "/user/sync", {"email": "user0@demo", "inbounds": []}) == (200, {})
    assert await curl(panel, "PUT", "/users/sync/chunked", {"users": [users[5]]}) == (200, {})
    assert await emails() == {"user1@demo", "user2@demo", "user5@demo"}

    status, stats = await curl(panel, "GET", "/stats", {"type": "UsersStat"})
    assert (status, set(stats)) == (200, {"stats"})
    status, stats = await curl(panel, "GET", "/stats/backend")
    assert (status, stats["num_goroutine"] > 0) == (200, True)
    status, stats = await curl(panel, "GET", "/stats/system")
    assert int(stats["mem_total"]) > 0

    bad = as_json(make_user("bad@demo", ["VLESS"]))
    bad["proxies"]["vless"]["id"] = "no uuid at all, and far too long for the short form"
    status, answer = await curl(panel, "PUT", "/users/sync/chunked", {"users": [bad, users[6]]})
    assert (status, answer["code"]) == (500, "USER_REJECTED")
    assert answer["error"].startswith("failed to update users: bad@demo: ")
    assert await emails() == {"user1@demo", "user2@demo", "user5@demo", "user6@demo"}

    # What is wrong is refused as a whole, and the connection goes on.
    for sent, text in (
        ({"users": [{"email": "x"}, {"email": 7}]}, "users[1].email: a string is expected, not a number"),
        (b"[]", "Users: an object is expected, not a list"),
        (b'{"users": [\xff]}', "malformed JSON: byte 11 is no UTF-8"),
        (b'{"users": ' + b"[" * 200_000, "malformed JSON: nested too deeply"),
    ):
        status, answer = await curl(panel, "PUT", "/users/sync", sent)
        assert (status, answer) == (400, {"error": text, "code": "INVALID_ARGUMENT"})
    assert len(await emails()) == 4


async def test_the_log_as_lines_of_json(panel: PanelClient) -> None:
    async with panel.logs({"Accept": JSON}) as viewer:
        assert viewer.headers["content-type"] == "application/x-ndjson"
        await panel.stop()
        line = json.loads(await viewer.next_line(30))
        assert set(line) == {"detail"}
        assert line["detail"]


async def test_a_caller_of_another_form_is_told_which_there_are(panel: PanelClient) -> None:
    response: Response = await panel.request("PUT", "/user/sync", b"<user/>", headers={"Content-Type": "text/xml"})
    assert response.status == 400
    error = error_of(response)["error"]
    assert error == "wrong Content-Type 'text/xml': send application/x-protobuf or application/json"
