"""What dies or goes away beside a worker: Redis, the worker itself, Gunicorn's master."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from pgnode.bus.commands import Kind
from pgnode.testing.panel import NoAnswerError, PanelClient
from pgnode.testing.processes import is_running
from pgnode.wire import service_pb2 as pb
from tests.integration.worker.stage import NOT_YET, Stage
from tests.support.polling import eventually
from tests.support.processes import kill, listens

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Within which a write must be refused when Redis is away: well before it would time out (30 s). Takes under 3 s on a machine
#: that does nothing else.
REFUSED_SECONDS = 15.0


@pytest_asyncio.fixture(loop_scope="module")
async def stage(whole_stage: Stage) -> AsyncIterator[Stage]:
    await whole_stage.supervisor.publish_all()
    await eventually(lambda: len(whole_stage.worker_pids()) == 2, "both workers run")
    yield whole_stage
    await eventually(lambda: len(whole_stage.worker_pids()) == 2, "both workers run")


async def test_without_redis_changes_are_refused_soon_and_reads_go_on(stage: Stage, panel: PanelClient) -> None:
    body = pb.User(email="alice", inbounds=["VLESS"]).SerializeToString()
    before = {path: (await panel.request("GET", path)).body for path in ("/info", "/stats", "/stats/backend")}
    await stage.kill_valkey()
    for _ in range(3):
        begun = time.monotonic()
        answer = await panel.request("PUT", "/user/sync", body)
        assert time.monotonic() - begun < REFUSED_SECONDS
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        for path, seen in before.items():
            read = await panel.request("GET", path)
            assert (read.status, read.body) == (200, seen)
    await stage.start_valkey()

    async def back() -> bool:
        return (await panel.request("PUT", "/user/sync", body)).status == 200

    await eventually(back, "changes are taken again")
    # Snapshots, too: the store came back empty, and what is new in it is seen.
    await stage.supervisor.set_state("recovering")

    async def seen_again() -> bool:
        return not (await panel.info()).started

    await eventually(seen_again, "new snapshots are served again")
    await stage.supervisor.set_state("running")


async def test_a_change_under_way_when_redis_dies_is_answered_soon(stage: Stage, panel: PanelClient) -> None:
    await eventually(lambda: _synced(panel), "changes are taken")
    # Nobody answers: the supervisor's end is held up, as by a slow core.
    await stage.supervisor.close()
    body = pb.User(email="bob", inbounds=["VLESS"]).SerializeToString()
    asked = asyncio.create_task(panel.request("PUT", "/user/sync", body))
    await eventually(stage.commands_waiting, "the command is in the stream")
    begun = time.monotonic()
    await stage.kill_valkey()
    answer = await asked
    assert answer.status == 503
    assert time.monotonic() - begun < REFUSED_SECONDS
    await stage.start_valkey()
    await stage.new_supervisor()
    await eventually(lambda: _synced(panel), "changes are taken again")


async def _synced(panel: PanelClient) -> bool:
    body = pb.User(email="carol", inbounds=["VLESS"]).SerializeToString()
    return (await panel.request("PUT", "/user/sync", body)).status == 200


async def test_a_killed_worker_is_replaced(stage: Stage) -> None:
    before = set(stage.worker_pids())
    for pid in before:
        kill(pid)

    def replaced() -> bool:
        now = set(stage.worker_pids())
        return len(now) == 2 and not now & before

    await eventually(replaced, "both workers are new")
    await eventually(stage.answers, "the new workers answer", errors=NOT_YET)


async def test_workers_are_added_and_taken_away_by_signal(stage: Stage, panel: PanelClient) -> None:
    stage.signal_master(signal.SIGTTIN)
    await eventually(lambda: len(stage.worker_pids()) == 3, "a third worker runs")
    stage.signal_master(signal.SIGTTOU)
    await eventually(lambda: len(stage.worker_pids()) == 2, "two workers run")
    assert (await panel.info()).node_version


async def test_reloading_replaces_the_workers_while_requests_are_answered(stage: Stage) -> None:
    before = set(stage.worker_pids())
    stage.signal_master(signal.SIGHUP)

    async def replaced() -> bool:
        assert await stage.answers()
        now = set(stage.worker_pids())
        return len(now) == 2 and not now & before

    await eventually(replaced, "both workers are new")


async def test_a_worker_that_ends_closes_idle_connections_and_answers_what_is_under_way() -> None:
    body = pb.User(email="alice", inbounds=["VLESS"]).SerializeToString()
    async with Stage(workers=1) as stage, stage.panel() as panel:
        idle, busy = await panel.connect(), await panel.connect()
        answer = await idle.exchange(panel.head("GET", "/info", {}), (), 30)
        assert answer.status == 200
        busy.send(panel.head("PUT", "/user/sync", {"Content-Length": str(len(body))}) + body[:3])
        await busy.drain()
        [ending] = stage.worker_pids()
        # Answered by the worker that has the other connections: what was sent before has arrived, too.
        assert (await panel.request("GET", "/info")).status == 200
        os.kill(ending, signal.SIGTERM)
        assert await idle.wait_end(30) == b""
        busy.send(body[3:])
        assert (await busy.read_response(30)).status == 200
        await eventually(lambda: not is_running(ending), "the worker has ended")
        assert "Forcing close" not in stage.output
        await busy.close()


async def test_a_worker_that_is_replaced_has_time_for_its_calls(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A log stream, which has no end, ends at once, and its viewer comes again."""
    conf = tmp_path_factory.mktemp("operator") / "gunicorn.conf.py"
    conf.write_text("graceful_timeout = 600\n")
    body = pb.User(email="alice", inbounds=["VLESS"]).SerializeToString()
    async with Stage(workers=1, env={"GUNICORN_CONF": str(conf)}) as stage, stage.panel() as panel:
        [leaving] = stage.worker_pids()
        async with panel.logs() as viewer:
            await stage.supervisor.close()
            asked = asyncio.create_task(panel.request("PUT", "/user/sync", body))
            await eventually(stage.commands_waiting, "the command is in the stream")
            stage.signal_master(signal.SIGHUP)
            with pytest.raises((EOFError, NoAnswerError)):
                await viewer.wait_for("what no line says", 30)
        await eventually(lambda: set(stage.worker_pids()) - {leaving}, "another one is there")
        await eventually(stage.answers, "it answers", errors=NOT_YET)
        assert is_running(leaving)
        assert not asked.done()
        await stage.new_supervisor()
        assert (await asked).status == 200
        await eventually(lambda: not is_running(leaving), "it has ended")


async def test_nothing_outlives_a_killed_master() -> None:
    """Last, and on a stage of its own: it does not come back here, that is the supervisor's part."""
    async with Stage(workers=2) as stage:
        await eventually(lambda: len(stage.worker_pids()) == 2, "both workers run")
        workers = stage.worker_pids()
        await stage.kill_master()
        await eventually(lambda: not any(is_running(pid) for pid in workers), "the workers have ended")
        # A process whose first thread has ended counts as ended; its sockets go with the last one.
        await eventually(lambda: not listens(stage.port), "nobody has the port")


async def test_an_operators_file_is_laid_over_the_nodes_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It is read again at a reload; one with a mistake changes nothing and is told."""
    conf = tmp_path_factory.mktemp("operator") / "gunicorn.conf.py"
    conf.write_text("workers = 1\nproc_name = 'operators'\n")
    async with Stage(workers=2, env={"GUNICORN_CONF": str(conf)}) as stage:
        first = stage.worker_pids()
        assert len(first) == 1
        async with stage.panel() as panel:
            await panel.sync_user(pb.User(email="alice", inbounds=["VLESS"]))
        assert len(stage.supervisor.of_kind(Kind.SYNC_USER)) == 1
        master = stage.master_pid
        conf.write_text("workers = 3\n")
        stage.signal_master(signal.SIGHUP)
        await eventually(lambda: len(set(stage.worker_pids()) - set(first)) == 3, "there are as many as it says now")
        conf.write_text("workers = 'three'\n")
        stage.signal_master(signal.SIGHUP)
        await eventually(lambda: "what it said before stays in force" in stage.output, "the mistake is told")
        await eventually(stage.answers, "it answers after a reload", errors=NOT_YET)
        assert stage.master_pid == master
        assert is_running(master)


async def test_a_master_that_can_make_no_worker_keeps_the_other(stage: Stage) -> None:
    killed, left = stage.worker_pids()
    before = resource.prlimit(stage.master_pid, resource.RLIMIT_NOFILE)
    # Each worker takes the master a file: it has those that it has, and gets no other.
    resource.prlimit(stage.master_pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        kill(killed)
        await eventually(
            lambda: "no other worker can be started, those that there are go on" in stage.output, "it is told"
        )
        assert stage.worker_pids() == [left]
        await eventually(stage.answers, "the other one answers", errors=NOT_YET)
    finally:
        resource.prlimit(stage.master_pid, resource.RLIMIT_NOFILE, before)
    await eventually(lambda: len(stage.worker_pids()) == 2, "there is another one as soon as there can be")
    assert left in stage.worker_pids()
    assert "Traceback" not in stage.output
