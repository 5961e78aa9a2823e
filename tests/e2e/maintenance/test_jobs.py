"""Maintenance jobs of a real node: one at a time, none twice; resets, and the operator's update command."""

from __future__ import annotations

import asyncio

import pytest

from pgnode.testing.panel import NoAnswerError, PanelError
from pgnode.testing.processes import is_running
from pgnode.testing.users import make_user
from pgnode.wire import service_pb2 as pb
from tests.e2e.maintenance.stage import Stage, detail_of
from tests.support.core_lists import inbound_users
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill, valkey_pid
from tests.support.stored import stored_state


async def test_one_job_at_a_time_beside_everything_else_and_a_caller_that_goes_away(stage: Stage) -> None:
    stage.server.release("26.15.1")
    path = stage.server.asset_path("26.15.1")
    held = stage.server.held[path] = asyncio.Event()
    connection = await stage.desk.connect()
    body = b'{"core_version": "26.15.1"}'
    connection.send(
        stage.desk.head(
            "POST", "/node/core_update", {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        )
        + body
    )
    await eventually(lambda: path in stage.server.requests, "the download has begun")
    await connection.close()
    for other in ("/node/hard_reset", "/node/update"):
        detail = detail_of(await stage.post(other), 409)
        assert "core_update 26.15.1 is under way since" in detail
    assert (await stage.desk.request("GET", "/")).status == 200
    await stage.panel.sync_user(make_user("meanwhile@e2e", ["VLESS"]))
    await stage.panel.sync_user(make_user("meanwhile@e2e", []))
    async with stage.panel.logs() as viewer:
        held.set()
        await viewer.wait_for("core 26.15.1 runs in place of", 30)
    assert await stage.version() == "26.15.1"
    await stage.works()


async def test_a_job_is_not_run_twice_after_the_store_was_away(stage: Stage) -> None:
    stage.server.release("26.15.3")
    path = stage.server.asset_path("26.15.3")
    held = stage.server.held[path] = asyncio.Event()
    job = asyncio.ensure_future(stage.update_core("26.15.3"))
    await eventually(lambda: path in stage.server.requests, "the download has begun")
    kill(valkey_pid(stage.node))
    held.set()

    async def updated() -> bool:
        return await stage.version() == "26.15.3"

    await eventually(updated, "the job went on", errors=(PanelError,))
    answer = await job  # the job's own, or that the store was away
    assert answer.status in (200, 503), answer
    assert stage.server.requests.count(path) == 1
    assert "already" in detail_of(await stage.update_core("26.15.3"), 200)

    def begun() -> int:
        return sum("maintenance job begins" in line and "26.15.3" in line for line in stage.node.output)

    await eventually(lambda: begun() >= 2, "the log tells of both")
    assert begun() == 2
    await stage.works()


async def test_a_job_is_not_run_twice_after_a_crash(stage: Stage) -> None:
    before = await stage.version()
    stage.server.release("26.15.2")
    path = stage.server.asset_path("26.15.2")
    held = stage.server.held[path] = asyncio.Event()
    job = asyncio.ensure_future(stage.update_core("26.15.2"))
    await eventually(lambda: path in stage.server.requests, "the download has begun")
    core = core_pid(stage.node)
    kill(stage.node.pid)
    await stage.node.wait()
    with pytest.raises((NoAnswerError, OSError)):
        await job
    assert is_running(core)
    await stage.node.start()
    held.set()
    await eventually(lambda: "maintenance job interrupted" in stage.node.output_text, "the job is broken off")
    assert await stage.version() == before
    assert core_pid(stage.node) == core, "the core was taken over"
    await stage.works()
    assert stage.server.requests.count(path) == 1
    detail_of(await stage.update_core("26.15.2"), 200)
    assert await stage.version() == "26.15.2"


async def test_hard_reset(stage: Stage) -> None:
    await stage.client.move("VLESS", 4_000, 5_000)
    version, pid = await stage.version(), core_pid(stage.node)
    certificate = stage.node.ca_file.read_bytes()
    detail_of(await stage.post("/node/hard_reset"), 200)
    assert not is_running(pid)
    info = await stage.panel.info()
    assert (info.started, info.core_version) == (False, version)
    answer = await stage.panel.request("GET", "/stats/backend")
    assert (answer.status, b"backend not initialized" in answer.body) == (503, True)
    # It is forgotten for good: the store has none of it, and a node that restarts has nothing to run.
    state = stored_state(stage.node)
    assert not state.users
    assert state.backend is None
    assert state.counters
    await stage.stop()
    await stage.node.start()
    assert not (await stage.panel.info()).started
    assert stage.node.ca_file.read_bytes() == certificate
    await stage.panel.start(stage.config, [make_user("new@e2e", ["VLESS"])])
    assert set(await inbound_users(stage.node.run_dir / "core.sock", "VLESS")) == {"new@e2e"}
    owed = {stat.type: stat.value for stat in await stage.panel.stats(pb.UserStat, "user7@demo", reset=True)}
    assert owed["uplink"] >= 4_000
    assert owed["downlink"] >= 5_000
    assert detail_of(await stage.post("/node/hard_reset"), 200)
    assert detail_of(await stage.post("/node/hard_reset"), 200), "twice is fine"


async def test_update_command(stage: Stage) -> None:
    assert detail_of(await stage.post("/node/update"), 200) == "updated; done $HOME"
