"""The node's store from outside: killed between core, store and answer, a disk that takes nothing, files that cannot be used."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pgnode.bus.connection import connect
from pgnode.settings import load
from pgnode.store.schema import VERSION
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelError
from pgnode.testing.processes import is_running
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support.core_lists import inbound_users
from tests.support.node_state import node_status
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill, run_to_end, stopped
from tests.support.said import said
from tests.support.stored import stored_state, stored_users
from tests.support.valkey import TestValkey, running_valkey

TAG = "VLESS"
NOT_YET = (NoAnswerError, OSError, PanelError)


class Stage:
    """A node with ten users, whose fault points can be armed."""

    def __init__(self, node: NodeProcess, faults: ArmedFaults, valkey: TestValkey | None = None) -> None:
        self.node = node
        self.faults = faults
        self.valkey = valkey
        self.config = make_config([make_inbound(TAG, "vless")])

    async def begin(self) -> None:
        async with self.node.panel() as panel:
            await panel.start(self.config, make_users(10, [TAG]))

    async def in_core(self) -> set[str]:
        return set(await inbound_users(self.node.run_dir / "core.sock", TAG))

    async def killed_while(self, point: str, user: pb.User, *, starts: bool = True) -> None:
        """The supervisor is killed at ``point``, while it changes a user, and started again."""
        core = core_pid(self.node)
        self.faults.arm(point, "kill")
        async with self.node.panel() as panel:
            with pytest.raises(NOT_YET):
                await panel.sync_user(user)
        await self.faults.reached(point)
        await self.node.wait()
        assert is_running(core), "users' connections go on"
        if not starts:
            return
        await self.node.start()
        assert core_pid(self.node) == core


@pytest_asyncio.fixture(loop_scope="session", scope="module", params=["embedded", "external"])
async def shared_stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """A node with each kind of bus."""
    with tempfile.TemporaryDirectory(prefix="pgn") as folder:
        faults = ArmedFaults(Path(folder, "faults"))
        env = {**FAST, **faults.environment}
        async with running_valkey() as valkey:
            if request.param == "external":
                env["REDIS_URL"] = valkey.url
            async with NodeProcess(state_dir=Path(folder, "state"), env=env) as node:
                yield Stage(node, faults, valkey if request.param == "external" else None)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(shared_stage: Stage) -> Stage:
    """It runs, with ten users."""
    if shared_stage.node.returncode is not None:
        await shared_stage.node.start()
    await shared_stage.begin()
    return shared_stage


@pytest.mark.parametrize("email", ["user3@demo", "new@demo"])
async def test_killed_between_store_and_answer(stage: Stage, email: str) -> None:
    changed = make_user(email, [TAG], key="changed")
    await stage.killed_while("commit.stored", changed)
    assert stored_users(stage.node).desired[email] == changed

    async def there() -> bool:
        return email in await stage.in_core()

    await eventually(there, "the core has what is stored")


@pytest.mark.parametrize("email", ["user3@demo", "new@demo"])
async def test_killed_when_it_is_stored_and_the_core_has_not_taken_it(stage: Stage, target: Target, email: str) -> None:
    changed = make_user(email, [TAG], key="changed")
    async with stopped(core_pid(stage.node)):
        await stage.killed_while("commit.desired_stored", changed, starts=False)
        assert stored_users(stage.node).desired[email] == changed
    await stage.node.start()
    await said(stage.node, "because='take over core: done'")
    async with ClientCore([link(stage.config["inbounds"][0], changed, name=TAG)], target) as client:
        await client.move(TAG, 1000, 1000)


async def test_killed_between_core_and_store(stage: Stage) -> None:
    await stage.killed_while("commit.applied", make_user("new@demo", [TAG]))

    async def as_stored() -> bool:
        return (await stage.in_core()) == set(stored_users(stage.node).desired)

    await eventually(as_stored, "core and store agree")
    if stage.valkey is not None:
        # The command is in the stream, and is delivered again.
        async def taken() -> bool:
            return "new@demo" in stored_users(stage.node).desired

        await eventually(taken, "what was not answered is done")
        await eventually(as_stored, "core and store agree")
    else:
        assert "new@demo" not in await stage.in_core(), "nobody was told that it is there"


@pytest.mark.parametrize("core_too", [False, True], ids=["core goes on", "core killed, too"])
async def test_a_loan_that_was_stored_and_not_answered_is_owed_again(
    stage: Stage, target: Target, core_too: bool
) -> None:
    user = make_user("user1@demo", [TAG])
    async with stage.node.panel() as panel:
        async with ClientCore([link(stage.config["inbounds"][0], user, name=TAG)], target) as client:
            await client.move(TAG, 10_000, 20_000)

        async def counted() -> bool:
            return (await panel.traffic(user.email)).downlink_bytes == 20_000

        await eventually(counted, "it is counted")
        stage.faults.arm("commit.traffic_stored", "kill")
        with pytest.raises(NOT_YET):
            await panel.traffic(user.email, reset=True)
    await stage.node.wait()
    assert stored_state(stage.node).loans
    if core_too:
        # Then the loan may be all that says what was counted.
        kill(core_pid(stage.node))
    await stage.node.start()
    async with stage.node.panel() as panel:

        async def given() -> bool:
            traffic = await panel.traffic(user.email, reset=True)
            return (traffic.uplink_bytes, traffic.downlink_bytes) == (10_000, 20_000)

        await eventually(given, "all of it is given, once", errors=NOT_YET)
        assert (await panel.traffic(user.email, reset=True)).downlink_bytes == 0
    assert not stored_state(stage.node).loans


# The embedded bus ends with its supervisor, and brings nothing again.
@pytest.mark.parametrize("shared_stage", ["external"], indirect=True)
async def test_a_routing_change_that_was_stored_and_not_answered_is_done_once(stage: Stage) -> None:
    assert stage.valkey is not None
    rule = '{"ruleTag": "mine", "outboundTag": "BLOCK", "domain": ["mine.example"]}'
    async with stage.node.panel() as panel:
        await panel.call("PUT", "/routing/rules", pb.AddRoutingRuleRequest(rule=rule), pb.Empty)
        stage.faults.arm("commit.stored", "kill")
        with pytest.raises(NOT_YET):
            await panel.call("DELETE", "/routing/rules", pb.RemoveRoutingRuleRequest(rule_tag="mine"), pb.Empty)
    await stage.node.wait()
    replies: Any = connect(stage.valkey.url)
    await replies.delete(*await replies.keys("pgnode:replies:*"))
    await stage.node.start()

    async def again() -> list[bytes]:
        return [
            value
            for key in await replies.keys("pgnode:replies:*")
            for _, fields in await replies.xrange(key)
            for value in fields.values()
        ]

    found = await eventually(again, "the command is answered")
    assert b" " in found
    assert not any(value.startswith(b"NOT_FOUND") for value in found), "it was done, and is not done again"
    async with stage.node.panel() as panel:
        rules = await panel.call("GET", "/routing/rules", None, pb.RoutingRulesResponse)
        assert "mine" not in {known.rule_tag for known in rules.rules}
    await replies.aclose()


async def test_a_disk_that_takes_nothing(stage: Stage) -> None:
    """Changes get 503 and are kept, reads and statistics go on, and what was kept is stored as soon as there is room."""
    _, hard = resource.prlimit(stage.node.pid, resource.RLIMIT_FSIZE)
    async with stage.node.panel() as panel:
        # As a full disk: nothing of the store may grow, or be written again beyond its first page.
        resource.prlimit(stage.node.pid, resource.RLIMIT_FSIZE, (4096, hard))
        try:
            for number in range(3):
                with pytest.raises(PanelError) as caught:
                    await panel.sync_user(make_user(f"new{number}@demo", [TAG]))
                assert caught.value.status == 503
                assert "not stored: " in str(caught.value)
            assert "new0@demo" in await stage.in_core(), "nothing is undone"
            assert "new0@demo" not in stored_users(stage.node).desired
            await panel.backend_stats()
            await panel.stats(pb.UsersStat)
            assert (await panel.info()).started
        finally:
            resource.prlimit(stage.node.pid, resource.RLIMIT_FSIZE, (hard, hard))

        async def stored() -> bool:
            return {"new0@demo", "new1@demo", "new2@demo"} <= stored_users(stage.node).desired.keys()

        await eventually(stored, "what was kept is stored")
        await panel.sync_user(make_user("after@demo", [TAG]))
    await stage.node.stop()
    await stage.node.start()
    assert "after@demo" in stored_users(stage.node).desired


async def test_another_process_that_holds_the_store(stage: Stage) -> None:
    async with stage.node.panel() as panel:
        other = sqlite3.connect(stage.node.state_dir / "state.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(PanelError) as caught:
                await panel.sync_user(make_user("new@demo", [TAG]))
            assert caught.value.status == 503
            assert "another process is writing to it" in str(caught.value)
            await panel.backend_stats()
        finally:
            other.execute("ROLLBACK")
            other.close()
        await panel.sync_user(make_user("new@demo", [TAG]))
    assert "new@demo" in stored_users(stage.node).desired


async def test_a_bus_that_is_emptied(stage: Stage) -> None:
    """Nothing in it has to last."""
    redis = connect(stage.valkey.url if stage.valkey is not None else load(state_dir=stage.node.state_dir).bus_url)
    async with stage.node.panel() as panel:
        for number in range(3):
            await redis.flushall()
            await panel.backend_stats()

            async def synced(number: int = number) -> bool:
                await panel.sync_user(make_user(f"new{number}@demo", [TAG]))
                return True

            await eventually(synced, "changes go on", errors=NOT_YET)
            await panel.stats(pb.UsersStat)

        async def published() -> bool:
            return bool(await redis.exists("pgnode:snapshot:state"))

        await eventually(published, "snapshots are there again")
    await redis.aclose()
    assert {"new0@demo", "new1@demo", "new2@demo"} <= stored_users(stage.node).desired.keys()


# --- a start with a file that cannot be used ---------------------------------------------------------------------


@pytest.fixture
def state_db(short_dir: Path) -> Path:
    (short_dir / "state").mkdir()
    return short_dir / "state" / "state.db"


async def refused(path: Path) -> str:
    """What ``pgnode run`` says, which does not start with this store."""
    node = NodeProcess(state_dir=path.parent)
    code, output = await run_to_end([sys.executable, "-m", "pgnode", "run"], env=node.environment())
    assert code == 2, output
    [line] = [line for line in output.splitlines() if line.startswith("pgnode: ")]
    assert str(path) in line
    return line


async def test_a_damaged_file(state_db: Path) -> None:
    await asyncio.to_thread(state_db.write_bytes, os.urandom(50_000))
    assert "the file is damaged" in await refused(state_db)


async def test_a_store_that_is_damaged_or_lost_or_ends_the_node_costs_no_connection(
    target: Target, tmp_path: Path
) -> None:
    """Whoever is connected stays so: the next supervisors leave the core alone, and the next start of the panel takes it over."""
    config, user = make_config([make_inbound(TAG, "vless")]), make_user("holder@e2e", [TAG])
    gone = make_user("gone@e2e", [TAG])
    faults = ArmedFaults(tmp_path)
    async with (
        NodeProcess(env={**FAST, **faults.environment}) as node,
        ClientCore([link(config["inbounds"][0], user, name=TAG)], target) as client,
    ):
        async with node.panel() as panel:
            await panel.start(config, [user, gone])
        core = core_pid(node)
        async with client.hold(TAG) as transfer:
            os.kill(node.pid, signal.SIGKILL)
            await node.wait()
            state_db = node.run_dir.parent / "state.db"
            for path in state_db.parent.glob("state.db-*"):
                path.unlink()
            await asyncio.to_thread(state_db.write_bytes, os.urandom(50_000))
            # As if that was not enough.
            await asyncio.to_thread((node.run_dir / "core.json").write_bytes, b'{"pid": 1')
            assert "the file is damaged" in await refused(state_db)
            await transfer.wait_rounds(2)
            state_db.unlink()
            await node.start()
            await eventually(lambda: "it is not known what has to run" in node.output_text, "the core was found")
            async with node.panel() as panel:
                answer = await panel.request("GET", "/stats/backend")
                assert (answer.status, answer.body) == (503, b"backend not initialized")
                assert (await node_status(node)).unknown
                await panel.start(config, [user])
                assert not (await panel.traffic("holder@e2e")).uplink_bytes > transfer.sent_bytes
            await transfer.wait_rounds(2)
            await client.move(TAG, 1_000, 1_000)
            os.kill(node.pid, signal.SIGKILL)
            await node.wait()
            for _ in range(2):
                faults.arm("restore.begun", "raise")
                await node.spawn()
                await node.wait()
            await node.start()
            await said(node, "the stored config is set aside")
            async with node.panel() as panel:
                assert "ended the node twice" in (await node_status(node)).unknown
                await panel.start(config, [user])
            assert (await node_status(node)).unknown == ""
            await transfer.wait_rounds(2)
        transfer.check()
        assert core_pid(node) == core
        assert set(await inbound_users(node.run_dir / "core.sock", TAG)) == {"holder@e2e"}


async def test_a_newer_file(state_db: Path) -> None:
    connection = sqlite3.connect(state_db)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.execute("PRAGMA application_id = 1346850372")
    connection.close()
    assert f"was written by a newer pgnode (schema {VERSION + 1}, this one knows {VERSION})" in await refused(state_db)


async def test_a_file_in_use(state_db: Path) -> None:
    other = sqlite3.connect(state_db, isolation_level=None)
    other.execute("CREATE TABLE first (id)")
    other.execute("DROP TABLE first")
    other.execute("BEGIN EXCLUSIVE")
    assert "another process is writing to it" in await refused(state_db)
    other.close()


async def test_a_folder_in_its_place(state_db: Path) -> None:
    await asyncio.to_thread(state_db.mkdir)
    assert f"{state_db} is a folder: move it away, or choose another STATE_DIR" in await refused(state_db)


async def test_the_command_line_reads_a_node_that_is_down(stage: Stage) -> None:
    await stage.node.stop(signal.SIGTERM)
    environment = {**stage.node.environment()}
    code, output = await run_to_end([sys.executable, "-m", "pgnode", "users"], env=environment)
    assert code == 3
    assert output.startswith("10 desired, 0 rejected; the node is not running; this is the state it stored at ")
    code, output = await run_to_end([sys.executable, "-m", "pgnode", "stats"], env=environment)
    assert code == 3
    assert "the node is not running; this is the state it stored at " in output
