"""What is wrong is answered as the contract says, and harms nothing that was right."""

from __future__ import annotations

import copy
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PROTOBUF, PanelClient, PanelError, chunk_frames, frame
from pgnode.testing.processes import command_line
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support.core_lists import inbound_users
from tests.support.errors import error_of
from tests.support.polling import eventually
from tests.support.processes import core_pid, run_to_end

MIB = 1024 * 1024
#: How much of an error the panel shows.
SHOWN_CHARACTERS = 128


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node() -> AsyncIterator[NodeProcess]:
    """A node with a small limit of size."""
    async with NodeProcess(env={**FAST, "MAX_BODY_MIB": "1"}) as running:
        yield running


@dataclass
class Stage:
    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    config: dict[str, Any]

    async def emails(self, tag: str = "VLESS") -> set[str]:
        return set(await inbound_users(self.node.run_dir / "core.sock", tag))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_stage(node: NodeProcess, panel: PanelClient, target: Target) -> AsyncIterator[Stage]:
    config = make_config([make_inbound("VLESS", "vless"), make_inbound("Shadowsocks", "shadowsocks")])
    links = [link(config["inbounds"][0], make_user("user0@demo", ["VLESS"]), name="user0")]
    async with ClientCore(links, target) as client:
        yield Stage(node, panel, client, config)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    """Ten users in a running core."""
    await whole_stage.panel.start(whole_stage.config, make_users(10, ["VLESS", "Shadowsocks"]))
    return whole_stage


async def test_without_a_backend(node: NodeProcess) -> None:
    """Runs before anything is started on this module's node, and stops what was."""
    async with node.panel() as panel:
        await panel.stop()
        await panel.stop()
        info = await panel.info()
        assert not info.started
        assert info.node_version
        assert (await panel.system_stats()).mem_total > 0
        async with panel.logs():
            pass
        for method, path, message in [
            ("GET", "/stats/backend", pb.Empty()),
            ("GET", "/stats", pb.StatRequest(type=pb.UsersStat)),
            ("GET", "/stats/user/online", pb.StatRequest(name="a@b")),
            ("GET", "/stats/user/online_ip", pb.StatRequest(name="a@b")),
            ("PUT", "/user/sync", make_user("a@b", ["VLESS"])),
            ("PUT", "/users/sync", pb.Users()),
        ]:
            answer = await panel.request(method, path, message.SerializeToString())
            assert (answer.status, error_of(answer)["error"]) == (503, "backend not initialized"), path
        answer = await panel.request("PUT", "/users/sync/chunked", chunks=chunk_frames([]))
        assert (answer.status, error_of(answer)["error"]) == (503, "backend not initialized")


async def test_a_first_start_that_fails_leaves_nothing_behind(node: NodeProcess) -> None:
    """Nothing runs that could be lost, so the start itself is the core's check; it says the same."""
    config = make_config([make_inbound("VLESS", "vless")])
    users = [*make_users(3, ["VLESS"]), bad_id("bad@demo")]
    async with node.panel() as panel:
        for spoil, words in SPOILED.values():
            with pytest.raises(PanelError) as caught:
                await panel.start(spoil(copy.deepcopy(config)), users)
            assert caught.value.status in (400, 503)
            shown = caught.value.text[:SHOWN_CHARACTERS].lower()
            assert all(word.lower() in shown for word in words), caught.value.text
            assert not (await panel.info()).started
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            config["inbounds"][0]["port"] = taken.getsockname()[1]
            with pytest.raises(PanelError, match=str(taken.getsockname()[1])):
                await panel.start(config, users)
    code, output = await run_to_end([sys.executable, "-m", "pgnode", "users"], env=node.environment())
    assert (code, output.splitlines()) == (0, ["0 desired, 0 applied, 0 rejected; node waiting"])
    await eventually(lambda: not cores_of(node), "no core is left")
    assert sorted(path.name for path in node.run_dir.iterdir() if path.name.startswith("core")) == []


def cores_of(node: NodeProcess) -> list[int]:
    """The node's processes that hold a core."""
    return [child.pid for child in psutil.Process(node.pid).children() if "pgnode-core" in command_line(child)]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xff\xff\xff", {}),
        (b"\x0a\x05ab", {}),
        (b"\x0a\x03a\xff\xfe", {}),
        (make_user("a@b", ["VLESS"]).SerializeToString(), {"Content-Type": "application/json"}),
        (make_user("a@b", ["VLESS"]).SerializeToString(), {"Content-Type": "text/plain"}),
        (make_user("", ["VLESS"]).SerializeToString(), {}),
    ],
    ids=["malformed", "cut message", "no UTF-8", "JSON type", "text type", "empty e-mail"],
)
async def test_a_user_that_cannot_be_read(stage: Stage, body: bytes, headers: dict[str, str]) -> None:
    before = await stage.emails()
    answer = await stage.panel.request("PUT", "/user/sync", body, headers=headers)
    assert answer.status == 400
    error_of(answer)
    assert await stage.emails() == before


async def test_a_missing_content_type_is_fine(stage: Stage) -> None:
    body = make_user("plain@demo", ["VLESS"]).SerializeToString()
    answer = await stage.panel.request("PUT", "/user/sync", body, headers={"Content-Type": ""})
    assert answer.status == 200
    assert "plain@demo" in await stage.emails()


def bad_id(email: str) -> pb.User:
    user = make_user(email, ["VLESS"])
    user.proxies.vless.id = "no-uuid"
    return user


def bad_method(email: str) -> pb.User:
    user = make_user(email, ["Shadowsocks"])
    user.proxies.shadowsocks.method = "rot13"
    return user


@pytest.mark.parametrize(("make", "cause"), [(bad_id, "vless id is not a UUID"), (bad_method, "rot13")])
async def test_one_unusable_user(stage: Stage, make: Any, cause: str) -> None:
    answer = await stage.panel.request("PUT", "/user/sync", make("bad@demo").SerializeToString())
    assert answer.status == 400
    assert cause in error_of(answer)["error"]
    assert "bad@demo" not in await stage.emails() | await stage.emails("Shadowsocks")


@pytest.mark.parametrize("make", [bad_id, bad_method])
@pytest.mark.parametrize("chunked", [False, True])
async def test_one_unusable_user_among_many(stage: Stage, make: Any, chunked: bool) -> None:
    users = make_users(20, ["VLESS", "Shadowsocks"], name="many")
    users.insert(7, make("bad@demo"))
    if chunked:
        answer = await stage.panel.request("PUT", "/users/sync/chunked", chunks=chunk_frames(users, 5))
    else:
        answer = await stage.panel.request("PUT", "/users/sync", pb.Users(users=users).SerializeToString())
    assert answer.status == 500
    assert error_of(answer)["error"].startswith("failed to update users: bad@demo: ")
    good = {user.email for user in users} - {"bad@demo"}
    for tag in ("VLESS", "Shadowsocks"):
        emails = await stage.emails(tag)
        assert good <= emails
        assert "bad@demo" not in emails


async def test_emails_that_differ_only_in_case(stage: Stage) -> None:
    users = [make_user(email, ["VLESS"]) for email in ("one@demo", "Two@demo", "two@DEMO", "three@demo")]
    answer = await stage.panel.request("PUT", "/users/sync", pb.Users(users=users).SerializeToString())
    text = error_of(answer)["error"]
    assert answer.status == 500
    assert text.startswith("failed to update users: ")
    assert "two@demo" in text.lower()
    assert "case" in text
    assert {"one@demo", "three@demo"} <= await stage.emails()


def without_inbounds(config: dict[str, Any]) -> str:
    return json.dumps({**config, "inbounds": []})


def with_unknown_protocol(config: dict[str, Any]) -> str:
    config["inbounds"][0]["protocol"] = "quux"
    return json.dumps(config)


def with_missing_geo_file(config: dict[str, Any]) -> str:
    config["routing"] = {"rules": [{"ip": ["geoip:ir"], "outboundTag": "BLOCK"}]}
    return json.dumps(config)


def with_bad_settings(config: dict[str, Any]) -> str:
    config["outbounds"][0]["settings"] = {"domainStrategy": "Sideways"}
    return json.dumps(config)


SPOILED: dict[str, tuple[Callable[[dict[str, Any]], str], list[str]]] = {
    "no JSON": (lambda config: "{not json", ["JSON"]),
    "a list": (lambda config: "[]", ["JSON"]),
    "empty": (lambda config: "", ["config"]),
    "no inbounds": (without_inbounds, ["inbound"]),
    "protocol": (with_unknown_protocol, ["quux"]),
    "geo file": (with_missing_geo_file, ["geoip.dat"]),
    "settings": (with_bad_settings, ["DIRECT", "domainStrategy"]),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILED.values(), ids=SPOILED)
async def test_a_config_that_cannot_start_leaves_what_runs(stage: Stage, spoil: Any, words: list[str]) -> None:
    core_before = core_pid(stage.node)
    async with stage.client.hold("user0") as transfer:
        with pytest.raises(PanelError) as caught:
            await stage.panel.start(spoil(copy.deepcopy(stage.config)), make_users(3, ["VLESS"]))
        assert caught.value.status in (400, 503)
        shown = caught.value.text[:SHOWN_CHARACTERS].lower()
        assert all(word.lower() in shown for word in words), caught.value.text
        await transfer.wait_rounds(3)
    transfer.check()
    assert core_pid(stage.node) == core_before != 0
    assert len(await stage.emails()) == 10
    await stage.panel.backend_stats()


async def test_a_port_in_use_leaves_what_runs(stage: Stage) -> None:
    core_before = core_pid(stage.node)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = copy.deepcopy(stage.config)
        config["inbounds"].append(make_inbound("Other", "vless") | {"port": port})
        async with stage.client.hold("user0") as transfer:
            with pytest.raises(PanelError) as caught:
                await stage.panel.start(config, make_users(3, ["VLESS"]))
            await transfer.wait_rounds(3)
        transfer.check()
    assert caught.value.status == 503
    assert str(port) in caught.value.text[:SHOWN_CHARACTERS]
    assert core_pid(stage.node) == core_before != 0
    assert len(await stage.emails()) == 10


@pytest.mark.parametrize("path", ["/users/sync", "/user/sync"])
async def test_a_body_cut_by_a_broken_connection_changes_nothing(stage: Stage, path: str) -> None:
    before = await stage.emails()
    body = pb.Users(users=make_users(2, ["VLESS"])).SerializeToString()
    connection = await stage.panel.connect()
    # The first user is whole: parsed as it is, it would be a valid, smaller set.
    first = len(pb.Users(users=make_users(1, ["VLESS"])).SerializeToString())
    connection.send(stage.panel.head("PUT", path, {"Content-Type": PROTOBUF, "Content-Length": str(len(body))}))
    connection.send(body[:first])
    await connection.drain()
    connection.end_input()
    await stage.panel.sync_user(make_user("after@demo", ["VLESS"]))
    assert await stage.emails() == before | {"after@demo"}
    await connection.close()


async def test_a_chunked_body_cut_short(stage: Stage) -> None:
    before = await stage.emails()
    body = b"".join(chunk_frames(make_users(10, ["VLESS"], name="cut"), 5))
    for part in (body[:-3], body[: len(body) // 2]):
        answer = await stage.panel.request("PUT", "/users/sync/chunked", chunks=[part])
        assert answer.status == 400
        error_of(answer)
    # And one whose HTTP coding ends in the middle.
    connection = await stage.panel.connect()
    connection.send(stage.panel.head("PUT", "/users/sync/chunked", {"Transfer-Encoding": "chunked"}))
    connection.send(b"%x\r\n%b\r\n" % (len(body), body))
    await connection.drain()
    connection.end_input()
    await connection.close()
    await stage.panel.sync_user(make_user("after@demo", ["VLESS"]))
    assert await stage.emails() == before | {"after@demo"}


@pytest.mark.parametrize(
    "data", [b"\x80" * 11, b"\x05\xff\xff\xff\xff\xff", frame(pb.UsersChunk(index=1 << 40, last=True))]
)
async def test_malformed_chunk_framing(stage: Stage, data: bytes) -> None:
    answer = await stage.panel.request("PUT", "/users/sync/chunked", chunks=[data])
    assert answer.status == 400
    error_of(answer)


@pytest.mark.parametrize("path", ["/users/sync", "/user/sync", "/start"])
async def test_a_body_over_the_limit_is_refused_before_it_is_read(stage: Stage, path: str) -> None:
    connection = await stage.panel.connect()
    method = "POST" if path == "/start" else "PUT"
    connection.send(stage.panel.head(method, path, {"Content-Type": PROTOBUF, "Content-Length": str(2 * MIB)}))
    answer = await connection.read_response(30)  # of the body, not one byte was sent
    assert answer.status == 413
    assert "MAX_BODY_MIB" in error_of(answer)["error"]
    await connection.close()


async def test_a_chunked_body_over_the_limit(stage: Stage) -> None:
    blocks = [bytes(MIB // 4)] * 8
    answer = await stage.panel.request("PUT", "/users/sync/chunked", chunks=blocks)
    assert answer.status == 413
    error_of(answer)


@pytest.mark.parametrize("path", ["/nowhere", "/", "/stats/nothing", "/info/more", "/user"])
async def test_unknown_paths(stage: Stage, path: str) -> None:
    answer = await stage.panel.request("GET", path)
    assert answer.status == 404
    assert error_of(answer)["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/start"), ("POST", "/info"), ("DELETE", "/users/sync"), ("PUT", "/stats"), ("POST", "/logs")],
)
async def test_wrong_methods(stage: Stage, method: str, path: str) -> None:
    answer = await stage.panel.request(method, path, b"")
    assert answer.status == 405
    assert error_of(answer)["code"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(("method", "path"), [("PUT", "/users/sync"), ("PUT", "/user/sync"), ("POST", "/start")])
async def test_a_message_without_a_length(stage: Stage, method: str, path: str) -> None:
    answer = await stage.panel.request(method, path)
    assert answer.status == 411
    error_of(answer)
    assert len(await stage.emails()) == 10


@pytest.mark.parametrize(
    "lengths",
    ["Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "Content-Length: 0\r\nContent-Length: 5\r\n"],
    ids=["length and chunked", "two lengths"],
)
async def test_two_ways_to_say_the_length(stage: Stage, lengths: str) -> None:
    head = stage.panel.head("PUT", "/users/sync", {}).removesuffix(b"\r\n") + lengths.encode() + b"\r\n"
    connection = await stage.panel.connect()
    connection.send(head + b"0\r\n\r\n")
    answer = await connection.read_response(30)
    assert answer.status == 400
    await connection.close()
    assert len(await stage.emails()) == 10


@pytest.mark.parametrize(
    "data", [b"GARBAGE\r\n\r\n", b"\x16\x03\x01 once more\r\n\r\n", b"GET /info HTTP/1.1\r\nno colon\r\n\r\n"]
)
async def test_what_is_no_http_ends_only_its_own_connection(stage: Stage, data: bytes) -> None:
    connection = await stage.panel.connect()
    connection.send(data)
    await connection.wait_end(30)
    await connection.close()
    assert (await stage.panel.info()).started
