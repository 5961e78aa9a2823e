"""gRPC workers of a real node: watched, replaced, and ended with it; ports and protocols."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from grpc import StatusCode, aio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.connection import LogViewer
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import GRPC_WORKER_READY, NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.processes import is_running, tree
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from pgnode.xray.transport import frames as h2
from tests.e2e.conftest import WITH_GRPC
from tests.support.grpc_node import GrpcNode, asked_again
from tests.support.hostile_http2 import EMPTY_MESSAGE, HostileConnection, call_block
from tests.support.polling import eventually, pause
from tests.support.processes import kill, listens, of_state_dir, run_to_end, stop, worker_pids
from tests.support.said import said

#: Half a minute is promised for a worker that hangs; a machine with other things to do gets more.
HUNG_SECONDS = 75.0
WORKERS = 2

#: A successor that does not come up is given up after 20 s.
GIVEN_UP_SECONDS = 75.0


def grpc_pids(node: NodeProcess) -> list[int]:
    """The gRPC workers that run."""
    found = []
    for process in tree(node.pid):
        try:
            if "pgnode.worker.grpc_worker" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return sorted(found)


def caller(node: NodeProcess, port: int | None = None, key: str = "") -> GrpcNode:
    return GrpcNode(f"{node.host}:{port or node.grpc_port}", key or node.api_key, node.ca_file.read_bytes())


async def answers(node: NodeProcess, times: int = 1) -> bool:
    """Whether calls on that many new connections are answered."""
    for _ in range(times):
        async with caller(node) as one:
            await one.call("GetBaseInfo", timeout_seconds=30)
    return True


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeProcess]:
    key, key_file = str(uuid.uuid4()), tmp_path_factory.mktemp("key") / "api_key"
    key_file.write_text(key)
    key_file.chmod(0o600)
    settings = {"GRPC_WORKERS": str(WORKERS), "API_KEY": "", "API_KEY_FILE": str(key_file)}
    async with NodeProcess(env=WITH_GRPC | settings, api_key=key) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def whole(node: NodeProcess) -> NodeProcess:
    """The module's node with all its workers."""
    await eventually(lambda: len(grpc_pids(node)) == WORKERS, "all workers run")
    await eventually(lambda: answers(node, 4), "they answer", errors=(aio.AioRpcError,))
    return node


async def test_both_faces_are_one_node(whole: NodeProcess) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    users = make_users(20, ["VLESS"])
    async with caller(whole) as grpc_panel, whole.panel() as rest_panel:
        start = pb.Backend(config=json.dumps(config), users=users[:10])
        assert (await grpc_panel.call("Start", start, timeout_seconds=40)).started
        assert (await rest_panel.info()).started
        await grpc_panel.stream("SyncUser", users[10:])
        bad = pb.User(email="bad", inbounds=["VLESS"], proxies=pb.Proxy(vless=pb.Vless(id="no UUID")))
        with pytest.raises(aio.AioRpcError) as caught:
            await grpc_panel.stream("SyncUser", [users[10], bad, users[11]])
        assert caught.value.code() is StatusCode.INTERNAL
        assert (caught.value.details() or "").startswith("failed to update users: bad: ")
        chunks = [pb.UsersChunk(users=[users[0], bad], index=0), pb.UsersChunk(users=[users[1]], index=1, last=True)]
        with pytest.raises(aio.AioRpcError) as caught:
            await grpc_panel.stream("SyncUsersChunked", chunks)
        assert caught.value.code() is StatusCode.INTERNAL
        assert (caught.value.details() or "").startswith("failed to update users: bad: ")
        await grpc_panel.call("Stop")
        with pytest.raises(aio.AioRpcError) as caught:
            await grpc_panel.call("GetBackendStats")
        assert (caught.value.code(), caught.value.details()) == (StatusCode.UNAVAILABLE, "backend not initialized")


@dataclass(frozen=True)
class Logged:
    """A config's ``log``, and where lines about connections are then."""

    log: dict[str, Any] | None
    viewers: bool = True
    file: str = ""


#: The core's default, where a config has no ``log``, is to say nothing of connections.
LOGS = {
    "no log": Logged(None, viewers=False),
    "empty": Logged({}),
    "file": Logged({"access": "access.log", "error": "error.log", "loglevel": "info"}, file="access.log"),
    "one file": Logged({"access": "both.log", "error": "both.log"}, file="both.log"),
    "none": Logged({"access": "none", "error": "only-errors.log", "loglevel": "info"}, viewers=False),
    "level none": Logged({"loglevel": "none"}, viewers=False),
}


def maintenance_desk(node: NodeProcess, key: str) -> PanelClient:
    return PanelClient(node.host, node.api_port, ca_file=node.ca_file, api_key=key)


async def admitted(node: NodeProcess, key: str) -> list[bool]:
    """Whether a caller with a key is let in: over REST, by the maintenance API, over gRPC."""
    async with node.panel(api_key=key) as panel, maintenance_desk(node, key) as desk, caller(node, key=key) as other:
        statuses = [(await panel.request("GET", "/info")).status, (await desk.request("GET", "/")).status]
        code = StatusCode.OK
        try:
            await other.call("GetBaseInfo")
        except aio.AioRpcError as error:
            code = error.code()
    assert {*statuses} <= {200, 401}
    assert code in (StatusCode.OK, StatusCode.UNAUTHENTICATED)
    return [statuses[0] == 200, statuses[1] == 200, code is StatusCode.OK]


async def test_a_new_key_refuses_nobody_and_the_old_one_ends(whole: NodeProcess) -> None:
    old, done = whole.api_key, asyncio.Event()

    async def key_command(*arguments: str, says: str) -> str:
        """The output of a command, when all workers have said that they know."""
        before = whole.output_text.count(says)
        command = [sys.executable, "-m", "pgnode", "key", *arguments]
        code, output = await run_to_end(command, env=whole.environment())
        assert code == 0, output
        workers = len(worker_pids(whole)) + WORKERS
        await eventually(lambda: whole.output_text.count(says) >= before + workers, "all workers know")
        return output

    async def calls(key: str) -> int:
        rounds = 0
        while not (done.is_set() and rounds >= 3):
            assert await admitted(whole, key) == [True] * 3
            rounds += 1
        return rounds

    assert await admitted(whole, str(uuid.uuid4())) == [False] * 3
    with_old = asyncio.create_task(calls(old))
    shown = await key_command("rotate", "--overlap", "1h", "--json", says="new API key taken")
    new = str(json.loads(shown)["key"])
    with_new = asyncio.create_task(calls(new))

    async def previous_uses() -> bool:
        async with maintenance_desk(whole, new) as desk:
            text = (await desk.request("GET", "/metrics")).body.decode()
        return 'pgnode_api_key_uses_total{key="previous"}' in text

    try:
        await eventually(previous_uses, "uses of the old key are told")
    finally:
        done.set()
        rounds = await asyncio.gather(with_old, with_new)
    assert min(rounds) >= 3
    await said(whole, "a caller still uses the previous API key")
    await key_command("forget-previous", says="the previous API key is not valid any more")
    assert await admitted(whole, old) == [False] * 3
    assert await admitted(whole, new) == [True] * 3
    assert old not in whole.output_text
    assert new not in whole.output_text
    whole.api_key = new


async def test_lines_about_connections_go_where_the_config_says(whole: NodeProcess, target: Target) -> None:
    config = make_config([make_inbound("VLESS", "vless")])
    users = {name: make_user(f"{name.replace(' ', '-')}@logs", ["VLESS"]) for name in LOGS}
    links = [link(config["inbounds"][0], user, name=name) for name, user in users.items()]
    async with caller(whole) as over_grpc, whole.panel() as panel, ClientCore(links, target) as client:
        for name, expected in LOGS.items():
            await panel.stop()
            rest = {key: value for key, value in config.items() if key != "log"}
            await panel.start(rest if expected.log is None else {**rest, "log": expected.log}, list(users.values()))
            wanted, last = f"email: {users[name].email}", f"the-end-of-{name.replace(' ', '-')}"
            viewer = over_grpc.logs()
            await viewer.initial_metadata()
            async with panel.logs() as rest_viewer:
                await client.move(name, 100, 100)
                if expected.viewers:
                    await rest_viewer.wait_for(wanted, 30)
                # The node's own line about a rule tells viewers that there was nothing before.
                rule = {"ruleTag": last, "port": "1", "outboundTag": "BLOCK"}
                await panel.call("PUT", "/routing/rules", pb.AddRoutingRuleRequest(rule=json.dumps(rule)), pb.Empty)
                seen = await _until(last, rest_viewer)
                async with asyncio.timeout(30):
                    over = [pb.Log.FromString(message).detail async for message in _until_held(viewer, last)]
            viewer.cancel()
            assert any(wanted in line for line in over) is expected.viewers, (name, over)
            assert expected.viewers or not any(wanted in line for line in seen), (name, seen)
            folder = whole.state_dir / "logs"
            holding = (
                {path.name for path in folder.iterdir() if wanted in path.read_text()} if folder.exists() else set()
            )
            assert holding == ({expected.file} if expected.file else set()), name
            for path in folder.iterdir() if folder.exists() else ():
                strange = [line for line in path.read_text().splitlines() if not line[:1].isdigit()]
                assert not strange, (name, path, strange)
        await panel.stop()


async def _until(text: str, viewer: LogViewer) -> list[str]:
    """All lines up to the one that holds a text."""
    lines: list[str] = []
    while not lines or text not in lines[-1]:
        lines.append(await viewer.next_line(30))
    return lines


async def _until_held(viewer: Any, text: str) -> AsyncIterator[bytes]:
    async for message in viewer:
        yield message
        if text.encode() in message:
            return


async def test_a_viewer_that_pings_often_and_a_caller_that_leaves(whole: NodeProcess) -> None:
    """The third of such pings ended a log once (a panel pings every ten seconds), and who left cost a traceback."""
    users = make_users(20, ["VLESS"])
    key = whole.api_key
    async with caller(whole) as panel:
        config = json.dumps(make_config([make_inbound("VLESS", "vless")]))
        assert (await panel.call("Start", pb.Backend(config=config, users=users), timeout_seconds=40)).started
        async with HostileConnection(whole.grpc_port) as viewer:
            [stream] = viewer.streams(1)
            await viewer.send(
                h2.frame(h2.HEADERS, h2.END_HEADERS, stream, call_block(key, "/service.NodeService/GetLogs"))
                + h2.frame(h2.DATA, h2.END_STREAM, stream, EMPTY_MESSAGE)
            )
            await viewer.wait_for(h2.HEADERS, 1)
            answered = viewer.got[h2.PING]
            for count in range(1, 21):
                await viewer.send(h2.frame(h2.PING, 0, 0, b"12345678"))
                await viewer.wait_for(h2.PING, answered + count)
            assert not viewer.ended
            assert viewer.got[h2.HEADERS] == 1, "the log goes on"
            assert viewer.got[h2.RST_STREAM] == 0
        question = pb.StatRequest(type=pb.UsersStat).SerializeToString()
        for _ in range(4):
            # Nothing of the answer is let through, so it is being written when its caller leaves.
            async with HostileConnection(whole.grpc_port, {h2.SETTINGS_INITIAL_WINDOW_SIZE: 0}) as leaving:
                [stream] = leaving.streams(1)
                await leaving.send(
                    h2.frame(h2.HEADERS, h2.END_HEADERS, stream, call_block(key, "/service.NodeService/GetStats"))
                    + h2.frame(h2.DATA, h2.END_STREAM, stream, b"\0" + h2.U32.pack(len(question)) + question)
                )
                await leaving.wait_for(h2.HEADERS, 1)
                assert leaving.got[h2.DATA] == 0
        await panel.call("Stop")
    assert await answers(whole, 4)
    assert "call failed" not in whole.output_text
    assert "Traceback" not in whole.output_text


async def all_are_ready(node: NodeProcess, before: list[int]) -> None:
    """As many as there have to be, and those that are new have come up: one that still starts would end at a signal."""

    def ready() -> bool:
        now = set(grpc_pids(node))
        said = {int(line.rpartition("pid=")[2]) for line in node.output if GRPC_WORKER_READY in line}
        return len(now) == WORKERS and now - set(before) <= said

    await eventually(ready, "as many workers as before are ready", HUNG_SECONDS)


async def test_a_worker_that_dies_is_brought_back_at_once(whole: NodeProcess) -> None:
    before = grpc_pids(whole)
    begun = time.monotonic()
    kill(before[0])
    await eventually(lambda: not is_running(before[0]), "it has ended")
    await all_are_ready(whole, before)
    await eventually(lambda: answers(whole, 4), "calls are answered", errors=(aio.AioRpcError,))
    assert time.monotonic() - begun < HUNG_SECONDS
    assert before[1] in grpc_pids(whole)


async def test_workers_that_hang_are_replaced_on_both_faces(whole: NodeProcess) -> None:
    before = grpc_pids(whole)
    hung = [before[0], worker_pids(whole)[0]]
    begun = time.monotonic()
    for pid in hung:
        await stop(pid)
    await eventually(lambda: not is_running(hung[0]), "the gRPC worker is ended", HUNG_SECONDS)
    await eventually(lambda: not is_running(hung[1]), "the REST worker is ended", HUNG_SECONDS)
    await all_are_ready(whole, before)
    await eventually(lambda: len(worker_pids(whole)) == 2, "others are there", HUNG_SECONDS)
    await eventually(lambda: answers(whole, 4), "calls are answered", HUNG_SECONDS, errors=(aio.AioRpcError,))
    assert time.monotonic() - begun < HUNG_SECONDS
    async with whole.panel() as panel:
        await panel.info()


async def test_a_worker_told_to_end_is_replaced_before_it_goes(whole: NodeProcess) -> None:
    before = grpc_pids(whole)
    ended = asyncio.Event()

    async def calls() -> int:
        done = 0
        while not ended.is_set():
            # A connection that was made and not yet accepted goes with its socket, too.
            await asked_again(partial(answers, whole))
            done += 1
            await pause()
        return done

    calling = asyncio.create_task(calls())
    for pid in before:
        os.kill(pid, signal.SIGTERM)
    await eventually(lambda: not set(before) & set(grpc_pids(whole)), "the old ones have gone")
    ended.set()
    assert await calling > 0
    assert len(grpc_pids(whole)) == WORKERS


async def test_a_worker_told_to_end_goes_on_until_its_successor_has_come(short_dir: Path) -> None:
    """One that takes longer than a process may take to come up is given up, and the next one is tried."""
    faults = ArmedFaults(short_dir / "faults")
    other = NodeProcess(env={**WITH_GRPC, **faults.environment}, state_dir=short_dir / "state")
    await other.start()
    try:
        [first] = grpc_pids(other)
        faults.arm("grpc_worker.listen", "wait")
        os.kill(first, signal.SIGTERM)
        successor = await faults.reached("grpc_worker.listen")
        await eventually(lambda: "was not ready within" in other.output_text, "it is given up", GIVEN_UP_SECONDS)
        assert is_running(first)
        assert await answers(other, 4)
        await eventually(lambda: not is_running(first), "the next one has come", GIVEN_UP_SECONDS)
        [second] = grpc_pids(other)
        assert second != successor
        assert await answers(other, 4)
    finally:
        assert await other.stop() == 0


async def test_a_second_node_does_not_share_the_port(whole: NodeProcess, short_dir: Path) -> None:
    second = NodeProcess(env=WITH_GRPC | {"GRPC_PORT": str(whole.grpc_port)}, state_dir=short_dir / "state")
    await second.spawn()
    try:
        assert await second.wait(60) == 4
    finally:
        await second.stop()
    assert f"port {whole.grpc_port} on" in second.output_text
    assert "set GRPC_PORT" in second.output_text
    assert "Traceback" not in second.output_text
    assert await answers(whole)


async def test_workers_end_with_a_killed_supervisor(short_dir: Path) -> None:
    other = NodeProcess(env=WITH_GRPC, state_dir=short_dir / "state")
    await other.start()
    pids = grpc_pids(other)
    assert len(pids) == 1
    kill(other.pid)
    await other.wait()
    await eventually(lambda: not any(is_running(pid) for pid in pids), "its workers end")
    # A process has ended some moments before the last of its threads.
    await eventually(lambda: not listens(other.grpc_port), "nobody listens")
    await other.start()
    assert await answers(other)
    assert await other.stop() == 0
    await eventually(lambda: not of_state_dir(other.state_dir), "nothing is left")
    await eventually(lambda: not listens(other.grpc_port), "nobody listens")


async def test_grpc_alone_is_served_on_the_service_port(short_dir: Path) -> None:
    other = NodeProcess(env=WITH_GRPC | {"SERVICE_PROTOCOL": "grpc"}, state_dir=short_dir / "state")
    await other.spawn()
    try:
        await eventually(lambda: "Try next" in other.output_text, "it is up", 90)
        async with caller(other, other.port) as one:
            assert (await one.call("GetBaseInfo")).node_version
        assert not listens(other.grpc_port)
        desk = PanelClient(other.host, other.api_port, ca_file=other.ca_file, api_key=other.api_key)
        async with desk:
            assert (await desk.request("GET", "/")).status == 200
    finally:
        assert await other.stop() == 0


async def test_rest_alone_needs_no_grpc(short_dir: Path) -> None:
    with socket.socket() as taken:
        other = NodeProcess(env=WITH_GRPC | {"SERVICE_PROTOCOL": "rest"}, state_dir=short_dir / "state")
        taken.bind(("127.0.0.1", other.grpc_port))
        taken.listen()
        await other.start()
        assert grpc_pids(other) == []
        assert await other.stop() == 0
