"""``pgnode logs``: what the supervisor has, what the bus has where that is silent, and what comes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgnode.bus.keys import Keys
from pgnode.bus.log_stream import put_node_lines
from pgnode.bus.pipelined_redis import PipelinedRedis
from pgnode.cli import logs, main
from pgnode.cli.log_view import WantedLines
from pgnode.cli.logs import HowShown, show_logs
from pgnode.cli.target import Named, Target
from pgnode.errors import NotAnsweringError, NotRunningError, OperatorError
from pgnode.os_support.log_lines import Entry
from pgnode.settings import load
from pgnode.supervisor.control.client import DeclinedError, SilentError
from pgnode.supervisor.host.log_ring import LogRing
from pgnode.supervisor.host.recent_lines import RecentLines
from tests.support.valkey import TestValkey

Values = dict[str, Any]


class Supervisor:
    """Who has lines; says them, or fails in the order in which it is told to."""

    def __init__(self) -> None:
        self.lines = RecentLines(LogRing(100), "one")
        self.asked: list[Values] = []
        self.fails: list[Exception | None] = []

    def says(self, line: bytes) -> None:
        """Have a line of the core."""
        self.lines.ring.put(line, time.time(), 1)

    def ask(self, _folder: Path, _question: str, values: Values, *, seconds: float) -> Values:
        assert seconds > 0
        self.asked.append(values)
        if self.fails and (error := self.fails.pop(0)) is not None:
            raise error
        after = values["after"] if values["name"] == self.lines.name else 0
        return {"name": self.lines.name, "lines": [line.encode() for line in self.lines.after(after)]}


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    made = Supervisor()
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setattr(logs, "find_target", lambda _named: Target(load(state_dir=str(tmp_path)), 812))
    monkeypatch.setattr(logs, "running_pid", lambda _settings: None)
    monkeypatch.setattr(logs, "ask", made.ask)
    for number in range(3):
        made.lines.ring.put(b"core %d" % number, 1_700_000_000.0, 1)
        level = "warning" if number else "info"
        made.lines.node(Entry(1_700_000_000.0, level, "supervisor", 812, f"node {number}"))
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["logs", *arguments])


def test_the_last_lines_are_shown(supervisor: Supervisor) -> None:
    first, second = run("--lines", "2").output.splitlines()
    assert (first, second[:18], second[37:]) == ("core              core 2", "supervisor[812]   ", " [warning] node 2")
    assert len(run("--lines", "0").output.splitlines()) == 6
    assert run("--core").output.split() == ["core", "core", "0", "core", "core", "1", "core", "core", "2"]
    assert [line.split()[-1] for line in run("--no-core", "--level", "WARNING").output.splitlines()] == ["1", "2"]
    assert run("--since", "1m").output == "", "they are older"
    found = [json.loads(line) for line in run("--json", "--grep", "node 2").output.splitlines()]
    assert found == [{"at": 1_700_000_000.0, "source": "supervisor", "pid": 812, "level": "warning", "text": "node 2"}]


def test_what_is_not_allowed_is_told(supervisor: Supervisor) -> None:
    result = run("--since", "yesterday")
    assert (result.exit_code, "--since yesterday is not allowed" in result.output) == (2, True)
    assert run("--level", "loud").exit_code == 2


def test_what_comes_is_shown_until_the_node_ends(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor.fails = [None, None, None, SilentError("gone")]
    turns: Iterator[Callable[[], None]] = iter(
        [lambda: supervisor.says(b"new"), lambda: supervisor.says(b"never shown")]
    )
    with pytest.raises(NotRunningError, match="has ended"):
        show_logs(Named(), WantedLines(core=True), HowShown(1, follow=True), pause=lambda _seconds: next(turns)())
    assert capsys.readouterr().out.split() == ["core", "core", "2", "core", "new"]
    assert [asked["after"] for asked in supervisor.asked] == [0, 6, 6, 7]


def test_one_that_is_silent_for_a_while_is_waited_for(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "running_pid", lambda _settings: 812)
    supervisor.fails = [None, *[SilentError("it hangs")] * 4, None]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 4:
            # A supervisor after a crash begins anew.
            supervisor.lines = RecentLines(LogRing(100), "two")
            supervisor.says(b"again")
        if len(pauses) == 5:
            raise KeyboardInterrupt

    assert show_logs(Named(), WantedLines(), HowShown(1, follow=True), pause=pause) == 0
    out, err = capsys.readouterr()
    assert [line[-6:] for line in out.splitlines()] == ["node 2", " again"]
    assert err.count("the supervisor does not answer (it hangs): waiting for it") == 1


def test_a_supervisor_that_does_not_know_the_question_is_told(supervisor: Supervisor) -> None:
    supervisor.fails = [DeclinedError("this supervisor does not know the question 'logs'")]
    with pytest.raises(OperatorError, match="pgnode restart makes"):
        show_logs(Named(), WantedLines())


def test_a_reader_that_stops_reading_is_no_error(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def __init__(self) -> None:
            self.moved: list[int] = []

        def fileno(self) -> int:
            return -1

    def fails(*_arguments: object, **_named: object) -> None:
        raise BrokenPipeError

    closed = Closed()
    monkeypatch.setattr(logs._Printer, "show", fails)
    monkeypatch.setattr(os, "dup2", lambda _new, old: closed.moved.append(old))
    monkeypatch.setattr(sys, "stdout", closed)
    assert show_logs(Named(), WantedLines()) == 0
    assert closed.moved == [-1]


async def _put(valkey: TestValkey, lines: list[bytes]) -> None:
    redis = PipelinedRedis(valkey.url)
    await redis.pipeline(put_node_lines(Keys("pgnode"), lines))
    redis.drop()


async def test_without_the_supervisor_the_bus_has_lines(
    supervisor: Supervisor,
    valkey: TestValkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await _put(valkey, [b"2026/11/29 12:00:00 [pgnode] [info] one", b"2026/11/29 12:00:01 [pgnode] [error] two"])
    settings = load(state_dir=str(tmp_path), redis_url=valkey.url)
    monkeypatch.setattr(logs, "find_target", lambda _named: Target(settings, 812, "this one"))
    supervisor.fails = [SilentError("it hangs")]
    assert await asyncio.to_thread(show_logs, Named(), WantedLines()) == 4
    out, err = capsys.readouterr()
    assert [" ".join(line.split()) for line in out.splitlines()] == [
        "supervisor 2026/11/29 12:00:00 [info] one",
        "supervisor 2026/11/29 12:00:01 [error] two",
    ]
    assert "does not answer: it hangs. These are the lines that the bus has" in err
    assert err.startswith("this one\n")
    monkeypatch.setattr(logs, "find_target", lambda _named: Target(settings, None))
    with pytest.raises(NotRunningError, match="the last lines that its Redis has"):
        await asyncio.to_thread(show_logs, Named(), WantedLines())


def test_without_either_it_is_told(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supervisor.fails = [SilentError("it hangs")]
    with pytest.raises(NotAnsweringError, match="neither has the bus lines"):
        show_logs(Named(), WantedLines())
    settings = load(state_dir=str(tmp_path))
    settings.log_folder.mkdir()
    (settings.log_folder / "access.log").touch()
    monkeypatch.setattr(logs, "find_target", lambda _named: Target(settings, None))
    with pytest.raises(NotRunningError, match=r"journalctl -u pgnode\); log files of its core are in .*: access.log"):
        show_logs(Named(), WantedLines())
