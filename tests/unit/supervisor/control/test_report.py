"""What a supervisor says, read by one of another version."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgnode.supervisor.control.report import (
    BusReport,
    CoreReport,
    NodeReport,
    PanelReport,
    ProcessReport,
    UsersReport,
    WarningReport,
)

REPORT = NodeReport(
    version="0.6.0",
    pid=812,
    up_seconds=12.5,
    state="running",
    core=CoreReport("embedded", "26.10.10", 900, 10.0, 7, 2, 1, "the core hung", 3.5, "", "level", {"same core": 2}),
    users=UsersReport(3, 2, 1, 1),
    panel=PanelReport(2.0, 60, away=True),
    bus=BusReport("embedded", 0.3),
    processes=[ProcessReport("gunicorn", 5, 1)],
    warnings=[WarningReport(1.0, "warning", "disk full", 3)],
)


def test_it_comes_as_it_was_sent() -> None:
    assert NodeReport.decode(json.loads(json.dumps(REPORT.encode()))) == REPORT


def test_what_another_version_does_not_say_has_its_default() -> None:
    assert NodeReport.decode({"pid": 3, "core": {"run": 2}, "news": {"a": 1}}) == NodeReport(
        pid=3, core=CoreReport(run=2)
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"pid": "3"},
        {"pid": None},
        {"pid": True},
        {"version": 3},
        {"core": 3},
        {"core": {"starts": [], "up_seconds": "long"}},
        {"panel": {"away": 1}},
        {"warnings": {}},
        {"warnings": [3]},
    ],
)
def test_what_is_odd_is_passed_over(odd: dict[str, Any]) -> None:
    found = NodeReport.decode(odd)
    assert found == (NodeReport(warnings=[WarningReport()]) if odd == {"warnings": [3]} else NodeReport())


def test_what_is_not_known_is_none() -> None:
    assert NodeReport.decode({"bus": {"answer_ms": None}}).bus.answer_ms is None
