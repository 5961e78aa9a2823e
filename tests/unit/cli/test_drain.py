"""``pgnode drain``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgnode.cli import drain, main
from pgnode.cli.drain import DrainProgress, Timing, begun, cancelled, drain_node, still_open
from pgnode.cli.target import Named, Target
from pgnode.errors import NotAnsweringError, NotRunningError
from pgnode.settings import load
from pgnode.supervisor.control.report import DrainReport

DRAINED = DrainReport(draining=True, since=1000.0, away=["a", "b"], stays=["inbound 'c' keeps listening: UDP"])


class Node:
    """A supervisor: what it is told, and what it says."""

    def __init__(self, settings: Any) -> None:
        self.target = Target(settings, 812, "this one")
        self.told: list[dict[str, Any]] = []
        self.report = DRAINED
        #: Open connections at one question after the other; the last one stays.
        self.open = [0]
        self.ended = True
        self.silent_times = 0
        self.stopped = False

    def ask(self, _target: Target, _question: str, values: dict[str, Any], *, seconds: float = 2.0) -> dict[str, Any]:
        assert seconds > 60 or values["do"] == "look"
        if self.target.pid is None:
            raise NotRunningError("none runs")
        if self.silent_times and values["do"] == "look":
            self.silent_times -= 1
            raise NotAnsweringError("busy")
        self.told.append(values)
        number = self.open.pop(0) if len(self.open) > 1 else self.open[0]
        connections = {"a": number} if number else {}
        return {"ended": self.ended, "drain": self.report.encode(), "connections": connections}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node(load(state_dir=str(tmp_path)))
    monkeypatch.setattr(drain, "find_target", lambda _named: made.target)
    monkeypatch.setattr(drain, "is_stopped", lambda _pid: made.stopped)
    monkeypatch.setattr(drain, "ask_node", made.ask)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["drain", *arguments])


class Time:
    """Goes on while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def timing(self) -> Timing:
        return Timing(lambda: self.now, self.sleep)


def test_it_is_begun(node: Node, tmp_path: Path) -> None:
    node.open = [3]
    result = run("--for", "10m", "--hold")
    assert (result.exit_code, result.output.splitlines()) == (
        0,
        [
            "this one",
            "the node is being drained: /readyz says 503, and those who are connected go on",
            "no new connections on a, b",
            "inbound 'c' keeps listening: UDP",
            "it ends by pgnode drain --cancel or a start by the panel",
            "3 connections open over TCP: a 3",
        ],
    )
    assert node.told == [{"do": "begin", "seconds": 600, "hold": True}]
    assert "drain begun" in (tmp_path / "audit.log").read_text()
    found = json.loads(run("--json").output)
    assert found == {"drain": DRAINED.encode(), "connections": {"a": 3}, "open": 3, "drained": None}


def test_it_is_ended(node: Node) -> None:
    node.report = DrainReport()
    result = run("--cancel")
    assert (result.exit_code, result.output.splitlines()[1:]) == (
        0,
        ["the node is no longer drained: all inbounds listen again, with all users as they are desired now"],
    )
    node.ended = False
    assert run("--cancel").output.splitlines()[1:] == ["the node was not being drained"]
    node.report = DrainReport(away=["a"], error="in use")
    result = run("--cancel")
    assert (result.exit_code, result.output.splitlines()[1:]) == (4, ["not back yet, and tried again: a: in use"])
    assert node.told == [{"do": "cancel"}] * 3


def test_what_does_not_go_together_is_told(node: Node) -> None:
    for arguments in (["--for", "1m"], ["--hold"], ["--wait", "1m"]):
        result = run("--cancel", *arguments)
        assert (result.exit_code, "do not go with it" in result.output) == (2, True)
    assert (run("--for", "soon").exit_code, node.told) == (2, [])


def test_one_that_is_stopped_is_asked_for_nothing(node: Node) -> None:
    node.stopped = True
    result = run()
    assert (result.exit_code, "kill -CONT it" in result.output, node.told) == (4, True, [])


def test_words() -> None:
    wrong = DrainReport(draining=True, until=0.0, hold=True, error="busy")
    said = list(begun(DrainProgress(wrong, {}, False)))
    assert said[1] == "the core has not done it all, and is asked again: busy"
    assert said[2].startswith("it ends by its time at 19")
    assert said[2].endswith(" or pgnode drain --cancel")
    assert said[3] == "no connection over TCP is open"
    assert (
        still_open(DrainProgress(DRAINED, {"b": 1, "a": 2000}, False))
        == "2,001 connections open over TCP: a 2,000, b 1"
    )
    assert list(cancelled(DrainProgress(DrainReport(), {}, False))) == ["the node was not being drained"]
    assert DrainProgress.read({}) == DrainProgress(DrainReport(), {}, False)


def test_it_waits_until_nobody_is_left(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.open, node.silent_times, time = [3, 3, 1, 0], 2, Time()
    assert drain_node(Named(), wait_text="1m", timing=time.timing) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "1 connection open over TCP: a 1",
        "no connection over TCP is open",
        "drained after 5 s: a restart or an end of the node cuts no connection over TCP now",
    ]


def test_a_wait_that_is_over(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.open, time = [3], Time()
    assert drain_node(Named(), wait_text="3s", timing=time.timing) == 4
    assert capsys.readouterr().out.splitlines()[-1] == (
        "after 3 s the node is still being drained: 3 connections open over TCP: a 3"
    )
    assert drain_node(Named(), wait_text="3s", json_wanted=True, timing=time.timing) == 4
    assert json.loads(capsys.readouterr().out)["drained"] is False
    node.report = DrainReport()
    assert drain_node(Named(), wait_text="3s", timing=time.timing) == 4
    assert "the drain was ended after 0 s" in capsys.readouterr().out.splitlines()[-1]


def test_a_node_that_ends_ends_the_wait(node: Node) -> None:
    node.open, node.silent_times = [3], 100

    def sleep(_seconds: float) -> None:
        node.target = Target(node.target.settings, None)

    with pytest.raises((NotAnsweringError, NotRunningError)):
        drain_node(Named(), wait_text="1m", timing=Timing(lambda: 0.0, sleep))
