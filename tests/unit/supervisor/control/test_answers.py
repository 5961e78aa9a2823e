"""What the supervisor says of a node: of one that only just began, and of one whose core runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from pgnode.bus.snapshots import NodeStatus
from pgnode.bus.state import State
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.log_lines import Entry
from pgnode.settings import load
from pgnode.settings.handover import Handover
from pgnode.store.changes import Journal
from pgnode.supervisor.composition import compose
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.answers import Answers, Known
from pgnode.supervisor.control.client import ask
from pgnode.supervisor.control.progress import Phase, Progress
from pgnode.supervisor.control.report import NodeReport, ProcessReport, UsersReport, WarningReport
from pgnode.supervisor.host.node_log import NodeLog
from pgnode.supervisor.lifecycle.life import Life
from pgnode.supervisor.tasks import CONTROL
from pgnode.supervisor.users.table import UserTable
from pgnode.testing.clock import HurryingClock
from pgnode.wire import service_pb2 as pb
from tests.support.polling import eventually


async def _answers() -> None:
    pass


def known(tmp_path: Path, **others: Any) -> Known:
    """A node whose core runs, and does not have all users yet."""
    table = UserTable(Journal())
    for name in ("alice", "bob", "eve"):
        table.put(name, pb.User(email=name).SerializeToString())
    table.core_has_all()
    table.put("eve", None)
    table.put("bob", pb.User(email="bob", inbounds=["VLESS"]).SerializeToString())
    life = Life(state=State.RUNNING, core_run=7, deaths=2, hangs=1, last_end="exit code -9", last_end_at=995.0)
    node = SimpleNamespace(
        life=life,
        state=life.state,
        keep_alive_seconds=60,
        core_base=None,
        users=SimpleNamespace(table=table, rejected={"dave": None}),
        drain=SimpleNamespace(order=None, away=[], error=""),
        status=lambda: NodeStatus(
            State.RUNNING, True, "26.10.10", "0", "", 7, starts={"new core": 1}, waiting="level debug"
        ),
    )
    core = SimpleNamespace(
        core="embedded (library)",
        known_version="26.10.10",
        running=SimpleNamespace(pid=900, up_seconds=100.0),
    )
    node_log = NodeLog("info", now=lambda: 5.0, show=lambda _entry: None)
    node_log.warnings.note("warning", "no room")
    progress = Progress()
    progress.enter(Phase.READY)
    parts: dict[str, Any] = {
        "settings": load(state_dir=str(tmp_path), api_key="7e3b1a52-1111-4222-8333-444455556666"),
        "node": node,
        "core": core,
        "committer": SimpleNamespace(error="no room on the disk"),
        "certificate": SimpleNamespace(refused=""),
        "pump": SimpleNamespace(sender=SimpleNamespace(dropped=4)),
        "node_log": node_log,
        "progress": progress,
        "ping": _answers,
        "pids": lambda: {"gunicorn": 11, "gRPC worker 1": None},
        "restarts": {"gunicorn": 3},
        "task_failures": {"logs": 1},
        "last_command_at": lambda: 998.0,
    }
    made: Known = cast(Any, Known)(**{**parts, **others})
    return made


async def test_all_that_is_known_is_said(tmp_path: Path) -> None:
    answers = Answers(known(tmp_path), HurryingClock())
    report = NodeReport.decode(await answers.status({}))
    assert (report.state, report.phase, report.store_error) == ("running", "ready", "no room on the disk")
    assert report.users == UsersReport(desired=2, applied=1, to_remove=1, rejected=1)
    assert report.processes == [ProcessReport("gunicorn", 11, 3), ProcessReport("gRPC worker 1", 0, 0)]
    assert report.warnings == [WarningReport(5.0, "warning", "no room", 1)]
    core = report.core
    assert (core.name, core.pid, core.run, core.deaths, core.hangs) == ("embedded (library)", 900, 7, 2, 1)
    assert (core.last_end, core.last_end_seconds_ago, core.waiting) == ("exit code -9", 5.0, "level debug")
    assert core.up_seconds == 100.0
    assert (report.panel.last_command_seconds_ago, report.panel.keep_alive_seconds) == (2.0, 60)
    assert (report.bus.address, report.bus.error) == ("embedded", "")
    assert report.addresses[0].endswith(":62050")
    assert (report.log_lines_dropped, report.task_failures) == (4, {"logs": 1})
    assert repr(answers) == "Answers(Progress(ready))"


async def test_whom_the_core_does_not_have_is_said(tmp_path: Path) -> None:
    said = await Answers(known(tmp_path)).users({})
    assert (said["to_add"], said["to_remove"], said["uncertain"]) == (["bob"], ["eve"], [])
    assert (said["state"], said["panel_away"]) == ("running", False)


async def test_settings_are_said_without_secrets(tmp_path: Path) -> None:
    answers = Answers(known(tmp_path))
    said = await answers.settings({})
    assert said["STATE_DIR"] == str(tmp_path)
    assert said["API_KEY"] == "(set)"
    every = {messages.STATUS, messages.USERS, messages.SETTINGS, messages.LOGS, messages.LOG_LEVEL}
    assert set(answers.by_question) == every


async def test_lines_of_the_log_are_said_from_where_the_caller_has_them(tmp_path: Path) -> None:
    node = known(tmp_path)
    answers, lines = Answers(node), node.node_log.lines
    lines.node(Entry(4.0, "info", "supervisor", 812, "one"))
    lines.ring.put(b"[Warning] two", 5.0, 1)
    said = await answers.logs({})
    assert said["name"] == lines.name
    assert said["lines"] == [
        [1, 4.0, "supervisor", 812, "info", "one"],
        [2, 5.0, "core", 0, "warning", "[Warning] two"],
    ]
    assert [line[0] for line in (await answers.logs({"name": lines.name, "after": 1}))["lines"]] == [2]
    for odd in ({"name": "another", "after": 1}, {"name": lines.name, "after": "x"}):
        assert len((await answers.logs(odd))["lines"]) == 2


async def test_the_level_of_the_log_is_said_and_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = Answers(known(tmp_path))
    assert await answers.log_level({}) == {"level": "info", "usual": "info", "until": None}
    changed = await answers.log_level({"level": "debug", "seconds": 60})
    assert changed == {"level": "debug", "usual": "info", "until": 65.0}
    assert await answers.log_level({"level": "error"}) == {"level": "error", "usual": "info", "until": None}
    assert (await answers.status({}))["log_level"] == "error"
    first, second = [line for line in capsys.readouterr().out.splitlines() if "the level of the log is changed" in line]
    assert "seconds=60" in first
    assert "seconds" not in second
    with pytest.raises(messages.RefusedError, match=r"no level 'loud': it is debug, info, warning, error"):
        await answers.log_level({"level": "loud"})
    with pytest.raises(messages.RefusedError, match="no number of seconds"):
        await answers.log_level({"level": "info", "seconds": -1})
    assert (await answers.log_level({}))["level"] == "error", "nothing was changed"


async def test_a_bus_that_is_away_is_said(tmp_path: Path) -> None:
    async def fails() -> None:
        raise RedisConnectionError("refused")

    async def hangs() -> None:
        await asyncio.Event().wait()

    settings = load(state_dir=str(tmp_path), redis_url="redis://:secret@192.0.2.1:6379/0")
    report = NodeReport.decode(await Answers(known(tmp_path, ping=fails, settings=settings)).status({}))
    assert (report.bus.address, report.bus.error) == ("redis://:…@192.0.2.1:6379/0", "refused")
    report = NodeReport.decode(await Answers(known(tmp_path, ping=hangs), ping_seconds=0.01).status({}))
    assert report.bus.error == "it did not answer within 0.01 s"


@pytest.mark.parametrize("question", [messages.STATUS, messages.USERS, messages.SETTINGS, messages.LOGS])
async def test_a_supervisor_that_only_just_began_answers(tmp_path: Path, question: str) -> None:
    parts = compose(load(state_dir=str(tmp_path)), Handover(0))
    parts.settings.run_dir.mkdir()
    task = asyncio.ensure_future(parts.tasks[CONTROL]())
    try:
        await eventually((parts.settings.run_dir / messages.SOCKET_NAME).exists, "it listens")
        said = await asyncio.to_thread(ask, parts.settings.run_dir, question, seconds=30)
    finally:
        await end_tasks([task])
    if question == messages.STATUS:
        report = NodeReport.decode(said)
        assert (report.phase, report.state, report.core.pid) == ("starting", "restoring", 0)
        assert report.bus.error, "there is no bus"
        assert report.panel.last_command_seconds_ago is None
    else:
        assert said
