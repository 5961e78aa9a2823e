"""What child processes say: printed and kept, by the level of the log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pgnode.os_support.audit import FIELD, AuditTrail
from pgnode.os_support.log_lines import Entry
from pgnode.supervisor.host.node_log import NodeLog


def said(level: str, process: str = "rest") -> Entry:
    return Entry(5.0, level, process, 7, f"{process} {level}")


ENTRIES = [said("debug"), said("info"), said("warning"), said("error"), said("critical"), said("warning", "valkey")]

#: Level -> what is shown at it.
SHOWN = {
    "debug": ["rest debug", "rest info", "rest warning", "rest error", "rest critical", "valkey warning"],
    "info": ["rest info", "rest warning", "rest error", "rest critical"],
    "warning": ["rest warning", "rest error", "rest critical"],
    "error": ["rest error", "rest critical"],
}


@pytest.mark.parametrize("level", SHOWN)
def test_what_processes_say_is_shown_by_its_level(level: str) -> None:
    shown: list[Entry] = []
    log = NodeLog("info", now=lambda: 5.0, show=shown.append)
    log.level.change(level)
    for entry in ENTRIES:
        log.child_says(entry)
    assert [entry.message for entry in shown] == SHOWN[level]
    assert [line.text for line in log.lines.after(0)] == SHOWN[level]


def test_the_audit_trail_has_it_whatever_the_level_is(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.log")
    log = NodeLog("error", show=lambda _entry: None, audit=trail)
    log.child_says(replace(said("info"), fields={FIELD: "call"}))
    log.child_says(said("error"))
    assert trail.drain(30)
    [line] = (tmp_path / "audit.log").read_text().splitlines()
    assert json.loads(line)["message"] == "rest info"


@pytest.mark.parametrize(
    ("line", "level", "message"),
    [
        ("2026/11/30 01:14:29.393011 [Warning] core: Xray 26.10.10 started", "warning", "core: Xray 26.10.10 started"),
        ("2026/11/30 01:14:29 [Debug] app/dispatcher: x", "debug", "app/dispatcher: x"),
        (
            "2026/11/30 01:14:29.1 from 203.0.113.7:5 accepted tcp:example.org:443 email: alice",
            "info",
            "from 203.0.113.7:5 accepted tcp:example.org:443 email: alice",
        ),
        ("panic: nothing like a line of the log", "info", "panic: nothing like a line of the log"),
    ],
)
def test_lines_of_the_core_are_printed_in_the_nodes_form(line: str, level: str, message: str) -> None:
    shown: list[Entry] = []
    log = NodeLog("debug", now=lambda: 5.0, show=shown.append)
    log.print_core(f"{line}\n{line}".encode(), 9)
    assert shown == [Entry(5.0, level, "core", 9, message)] * 2
    log.level.change("error")
    log.print_core(line.encode(), 9)
    assert len(shown) == 2


def test_it_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    log = NodeLog("info")
    log.child_says(said("info"))
    assert "[info] rest[7]: rest info" in capsys.readouterr().err
    assert repr(log) == "NodeLog(LogLevel(info), RecentLines(LogRing(0 lines, 0 bytes), 1 of the node))"
