"""The node's log lines, on stderr and for viewers."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest
import structlog

from pgnode.settings import Settings
from pgnode.supervisor.host.logging import (
    NAME,
    begin_logging,
    first_level,
    is_for_programs,
    set_up_logging,
    told_in_log,
)
from pgnode.supervisor.host.node_log import NodeLog


def test_each_line_goes_to_viewers_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, told = io.StringIO(), list[str]()
    monkeypatch.setattr(sys, "stderr", shown)
    set_up_logging(NodeLog("info"), told.append)
    log = structlog.get_logger("here")
    log.debug("detail")
    log.info("it works", count=3)
    assert "it works count=3" in shown.getvalue()
    (line,) = told
    assert "[pgnode] [info] it works count=3" in line
    assert "\x1b" not in line


def test_warnings_are_told_without_time_and_level(monkeypatch: pytest.MonkeyPatch) -> None:
    node_log = NodeLog("info")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    set_up_logging(node_log)
    log = structlog.get_logger("here")
    log.info("it works")
    log.warning("no room", free=3)
    log.error("no core")
    warned = [(found.level, found.text) for found in node_log.warnings.last()]
    assert warned == [("warning", "no room free=3"), ("error", "no core")]


def test_what_is_printed_is_kept_and_the_level_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, node_log = io.StringIO(), NodeLog("info")
    monkeypatch.setattr(sys, "stderr", shown)
    set_up_logging(node_log)
    log = structlog.get_logger("here")
    log.debug("one")
    node_log.level.change("debug")
    log.debug("two", why="asked for")
    node_log.level.change("error")
    log.warning("three")
    log.critical("four")
    assert [(line.source, line.pid, line.level, line.text) for line in node_log.lines.after(0)] == [
        (NAME, os.getpid(), "debug", "two why='asked for'"),
        (NAME, os.getpid(), "error", "four"),
    ]
    assert [line.partition("]: ")[2] for line in shown.getvalue().splitlines()] == ["two why='asked for'", "four"]


def test_a_traceback_shows_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, told = io.StringIO(), list[str]()
    monkeypatch.setattr(sys, "stderr", shown)
    set_up_logging(NodeLog("debug"), told.append)
    secret = "k" + "ey"
    try:
        raise RuntimeError(secret[:0] + "unexpected")
    except RuntimeError:
        structlog.get_logger("there").exception("failed")
    assert "RuntimeError: unexpected" in shown.getvalue()
    assert "secret = " not in shown.getvalue()
    assert "RuntimeError" not in told[0], "viewers get lines, no tracebacks"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    set_up_logging(NodeLog("info"))
    structlog.get_logger("tty").info("it works")
    assert "\x1b" in shown.getvalue()


def test_what_is_said_before_all_else_has_the_form_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, told = io.StringIO(), list[str]()
    monkeypatch.setattr(sys, "stderr", shown)
    begin_logging(Settings(log_format="json"), {})
    log = structlog.get_logger("early")
    log.warning("early")
    assert is_for_programs()
    assert told_in_log("error", "port 1 is in use")
    set_up_logging(NodeLog("info"), told.append)
    log.warning("late")
    said = [json.loads(line) for line in shown.getvalue().splitlines()]
    assert [(one["level"], one["process"], one["message"]) for one in said] == [
        ("warning", "supervisor", "early"),
        ("error", "supervisor", "port 1 is in use"),
        ("warning", "supervisor", "late"),
    ]
    assert [line.partition("[pgnode] ")[2] for line in told] == ["[warning] late"]


def test_from_the_beginning_only_what_the_settings_want_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    begin_logging(Settings(log_level="warning", debug=True), {})
    log = structlog.get_logger("early")
    log.info("child is ready")
    log.warning("no room")
    (line,) = shown.getvalue().splitlines()
    assert line.endswith("no room")


def test_the_level_after_a_start() -> None:
    assert [first_level(Settings()), first_level(Settings(debug=True))] == ["info", "debug"]
    assert first_level(Settings(log_level="warning", debug=True)) == "warning"
    assert first_level(Settings(log_level="ERROR")) == "error", "as pgnode log-level takes it"
    assert first_level(Settings(log_level="")) == "info"


def test_sentences_for_people_stay_where_people_look(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    begin_logging(Settings(), {})
    assert not told_in_log("error", "port 1 is in use")
    assert shown.getvalue() == ""
    found = os.fstat(2)
    begin_logging(Settings(), {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
    assert told_in_log("error", "port 1 is in use")
    assert shown.getvalue() == f"<3>[error] supervisor[{os.getpid()}]: port 1 is in use\n"
