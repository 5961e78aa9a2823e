"""``pgnode run`` as an operator meets it: what it makes, what it says when it cannot run, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.processes import command_line, running, tree
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from tests.e2e.conftest import WITH_GRPC
from tests.support.polling import eventually
from tests.support.processes import core_pid, gunicorn_master_pid, listens, of_state_dir, sockets_in

#: ``pgnode run`` promises to end within 10 s; a machine with other things to do gets more.
END_SECONDS = 30.0

#: A connection that has not sent a request's headers is closed after so long, by default.
HEADER_SECONDS = 15.0


@pytest.fixture
def state_dir(short_dir: Path) -> Path:
    """A state folder that does not exist yet."""
    return short_dir / "state"


@pytest_asyncio.fixture(loop_scope="session")
async def fresh(state_dir: Path) -> AsyncIterator[NodeProcess]:
    """A node on a folder that does not exist yet, with no key given; not started."""
    node = NodeProcess(env={**WITH_GRPC, "API_KEY": ""}, state_dir=state_dir, own_certificate=True)
    try:
        yield node
    finally:
        await node.stop()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def mapped(pid: int) -> dict[str, str]:
    """The files that a process has in memory, and where the first part of each is."""
    found: dict[str, str] = {}
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, *_, name = line.split(maxsplit=5)
        found.setdefault(name, place.partition("-")[0])
    return found


def has_only_what_it_needs(node: NodeProcess) -> None:
    """Libraries that were taken off a process stay off, and what processes have in common is there once."""
    (grpc_worker,) = (p.pid for p in tree(node.pid) if "grpc_worker" in command_line(p))
    supervisor, master, rest = (mapped(pid) for pid in (node.pid, gunicorn_master_pid(node), grpc_worker))
    for files, unwanted in (
        (supervisor, ("pydantic_core", "cryptography/", "grpc/")),
        (master, ("pydantic_core", "cryptography/", "grpc/", "sqlite3")),
        (rest, ("pydantic_core", "cryptography/", "sqlite3")),
    ):
        assert not [name for name in files for part in unwanted if part in name]
    # Libraries are at the same place in those that were forked, and at another one in each that was started.
    (common,) = (name for name in supervisor if "/uvloop/" in name)
    assert supervisor[common] == master[common] == rest[common]


async def test_a_first_run_makes_what_it_needs_and_ctrl_c_ends_all_of_it(fresh: NodeProcess) -> None:
    await fresh.spawn()
    key_file = fresh.state_dir / "api_key"
    await eventually(lambda: key_file.exists() and fresh.ca_file.exists(), "key and certificate are there")
    fresh.api_key = key_file.read_text().strip()
    await fresh.wait_ready()
    await eventually(lambda: "Try next" in fresh.output_text, "all is said that is said at the start")
    assert fresh.api_key in fresh.output_text, "the key is shown the first time"
    has_only_what_it_needs(fresh)

    assert str(uuid.UUID(fresh.api_key)) == fresh.api_key
    assert mode(fresh.state_dir) == 0o700
    files = [path for path in fresh.state_dir.rglob("*") if path.is_file()]
    assert {mode(path) & 0o077 for path in files} == {0}, [(path, oct(mode(path))) for path in files]
    assert len(fresh.ca_file.read_text()) < 2048
    for text in (str(fresh.port), str(fresh.ca_file), "Try next"):
        assert text in fresh.output_text

    config = make_config([make_inbound("VLESS", "vless")])
    user = make_user("held@e2e", ["VLESS"])
    async with (
        Target() as target,
        ClientCore([link(config["inbounds"][0], user, name="held")], target) as client,
        fresh.panel() as panel,
        panel.logs() as viewer,
    ):
        await panel.start(config, [user])
        processes = tree(fresh.pid)
        core = psutil.Process(core_pid(fresh))
        async with client.hold("held"):
            await viewer.wait_for("email: held@e2e", 30)
            begun = time.monotonic()
            assert await fresh.stop(signal.SIGINT) == 0
            assert time.monotonic() - begun < END_SECONDS
    # A process has ended some moments before the last of its threads.
    await eventually(lambda: not running({*processes, core}), "all processes have ended")
    await eventually(lambda: not of_state_dir(fresh.state_dir), "none of the folder is left")
    assert sockets_in(fresh.run_dir) == []
    for port in (fresh.port, fresh.api_port, config["inbounds"][0]["port"]):
        await eventually(lambda port=port: not listens(port), f"nobody listens on {port}")  # type: ignore[misc]

    await fresh.start()
    await eventually(lambda: str(key_file) in fresh.output_text, "where the key is kept is shown")
    assert fresh.api_key not in fresh.output_text
    assert await fresh.stop(signal.SIGTERM) == 0


async def test_a_second_signal_ends_at_once(fresh: NodeProcess) -> None:
    await fresh.spawn()
    await eventually(lambda: (fresh.state_dir / "api_key").exists() and fresh.ca_file.exists(), "key and certificate")
    fresh.api_key = (fresh.state_dir / "api_key").read_text().strip()
    await fresh.wait_ready()
    processes = tree(fresh.pid)
    begun = time.monotonic()
    fresh.send_signal(signal.SIGINT)
    fresh.send_signal(signal.SIGTERM)
    code = await fresh.wait()
    assert code in (0, 130)
    assert time.monotonic() - begun < END_SECONDS
    await eventually(lambda: not running(processes), "nothing is left")


async def run_to_its_end(node: NodeProcess) -> int:
    """Start a node that cannot run."""
    await node.spawn()
    try:
        return await node.wait(60)
    finally:
        await node.stop()


async def test_a_second_node_on_the_same_folder_says_who_holds_it(node: NodeProcess) -> None:
    second = NodeProcess(env=WITH_GRPC, state_dir=node.state_dir)
    assert await run_to_its_end(second) == 3
    assert str(node.pid) in second.output_text
    assert str(node.state_dir) in second.output_text
    async with node.panel() as panel:
        await panel.info()


@pytest.mark.parametrize("name", ["SERVICE_PORT", "API_PORT"])
async def test_a_port_in_use_is_named(fresh: NodeProcess, name: str) -> None:
    port = fresh.port if name == "SERVICE_PORT" else fresh.api_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert await run_to_its_end(fresh) == 4
    assert str(port) in fresh.output_text
    assert f"set {name}" in fresh.output_text
    assert "Traceback" not in fresh.output_text
    await eventually(lambda: not of_state_dir(fresh.state_dir), "nothing is left")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", "secret"),
        ("SERVICE_PORT", "70000"),
        ("NODE_HOST", "here"),
        ("XRAY_EXECUTABLE_PATH", "/nowhere/xray"),
    ],
)
async def test_a_wrong_setting_is_named(state_dir: Path, name: str, value: str) -> None:
    node = NodeProcess(env={name: value}, state_dir=state_dir)
    assert await run_to_its_end(node) == 2
    assert name in node.output_text
    assert "allowed" in node.output_text
    assert "Traceback" not in node.output_text
    assert ("secr" if name == "API_KEY" else value) in node.output_text


async def test_nobody_else_reads_the_state(node: NodeProcess) -> None:
    assert mode(node.state_dir) == 0o700
    for path in node.state_dir.rglob("*"):
        assert mode(path) & 0o077 == 0, path
    assert mode(node.ca_file.parent / "key.pem") == 0o600


async def test_address_families(state_dir: Path) -> None:
    """A node on IPv6 is reached there, with its certificate checked."""
    if not socket.has_ipv6 or not _has_ipv6_loopback():
        pytest.skip("this machine has no IPv6 loopback")
    node = NodeProcess(env={"NODE_HOST": "::1"}, state_dir=state_dir)
    node.host = "::1"
    try:
        await node.start()
        async with node.panel() as panel:
            assert not (await panel.info()).started
    finally:
        assert await node.stop() == 0


def _has_ipv6_loopback() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


async def test_many_connections_that_say_nothing_do_not_stop_others(node: NodeProcess) -> None:
    async with node.panel() as panel:
        silent = await asyncio.gather(*(panel.connect() for _ in range(200)))
        for connection in silent[::2]:
            connection.send(b"GET /info HTTP/1.1\r\nHost: x\r\n")  # and never the rest
        for _ in range(20):
            begun = time.monotonic()
            await panel.info()
            assert time.monotonic() - begun < HEADER_SECONDS, "it waited until they were closed"
        await asyncio.gather(*(connection.close() for connection in silent))
