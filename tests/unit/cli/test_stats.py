"""What ``pgnode stats`` says, from what the store says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

from pgnode.bus.snapshots import Polled
from pgnode.cli.stats import as_json, heading, summary, tables
from pgnode.cli.traffic import Flow, ShownTraffic

STORED = ShownTraffic(
    state="running",
    core_run=3,
    stored_at=1_700_000_000.0,
    flows={
        "user": [Flow("alice", 1_000, 20_000, 500, online=2), Flow("bob", 10, 0, 10)],
        "inbound": [Flow("VLESS", 1_100, 20_000, 21_100)],
        "outbound": [],
    },
    on_loan_bytes={"user": 500, "inbound": 0, "outbound": 0},
    polled=Polled(100, 5_000, "", counters=8, took_ms=12),
    age_seconds=1.25,
)


def printed(stored: ShownTraffic, top: int = 20) -> list[str]:
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(tables(stored, top))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_each_kind_has_a_heading_a_table_and_its_total() -> None:
    lines = printed(STORED)
    assert lines[0] == "node running, core run 3"
    assert "8 counters, the last reading took 12 ms" in lines
    assert "users: 2 with counters; 1 online" in lines
    [total] = [line.split() for line in lines if line.startswith("all together")]
    assert total == ["all", "together", "1.0", "kB", "20.0", "kB", "510", "bytes"]
    [alice] = [line.split() for line in lines if line.startswith("alice")]
    assert alice == ["alice", "1.0", "kB", "20.0", "kB", "500", "bytes", "2"]
    assert not any(line.startswith("outbounds") for line in lines)


@pytest.mark.parametrize(
    ("top", "text"),
    [
        (0, "users: 2 with counters; 1 online"),
        (1, "users: 2 with counters, the first by traffic is shown; 1 online"),
        (2, "users: 2 with counters; 1 online"),
    ],
)
def test_what_is_not_shown_is_told(top: int, text: str) -> None:
    assert heading(STORED, "user", top) == text
    shown = [line for line in printed(STORED, top) if line.startswith(("alice", "bob"))]
    assert len(shown) == (top or 2)


def test_what_is_on_its_way_is_told_by_kind() -> None:
    assert "of that on its way to a caller now: users 500 bytes" in list(summary(STORED))
    none = replace(STORED, on_loan_bytes={"user": 0, "inbound": 0, "outbound": 0})
    assert not any("on its way" in line for line in summary(none))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (130.0, "2 min 10 s"), (7_500.0, "2 h 5 min"), (2 * 86_400 + 3_600.0, "2 d 1 h")],
)
def test_the_age_is_readable(seconds: float, text: str) -> None:
    [line] = [line for line in summary(replace(STORED, age_seconds=seconds)) if line.startswith("read ")]
    assert line == f"read {text} ago, every 5 s while a core runs"


def test_a_node_that_has_not_run_and_one_whose_core_does_not_answer() -> None:
    down, *others = summary(replace(STORED, state=None, polled=None, age_seconds=None))
    assert down.startswith("the node is not running; this is the state it stored at 2023-11-1")
    assert down.endswith("; core run 3")
    assert others[0].startswith("owed: ")
    silent = next(summary(replace(STORED, state=None, polled=None, age_seconds=None, pid=812)))
    assert silent.startswith("the supervisor (pid 812) does not answer: see pgnode status; this is the state it stored")
    new = replace(STORED, core_run=0, state="idle", polled=None, age_seconds=None)
    assert list(summary(new))[:2] == ["node waiting, no core has run yet", "the core has not been read yet"]
    failed = replace(STORED, polled=Polled(100, 5_000, "no answer"))
    assert "the last reading failed: no answer" in list(summary(failed))
    uncounted = replace(STORED, polled=Polled(100, 5_000, "", inbounds_counted=False))
    assert "inbounds: not counted by this core: INBOUND_STATS=on has the next one count them" in list(
        summary(uncounted)
    )


def test_json_has_what_is_owed_by_kind_and_can_be_one_line() -> None:
    made = json.loads(as_json(STORED))
    assert made["inbounds_counted"] is None
    assert made["owed_bytes"] == {"users": 510, "inbounds": 21_100, "outbounds": 0}
    assert made["on_loan_bytes"] == {"users": 500, "inbounds": 0, "outbounds": 0}
    assert made["users"][0]["online"] == 2
    assert "online" not in made["inbounds"][0]
    assert json.loads(as_json(STORED, one_line=True)) == made
    assert "\n" not in as_json(STORED, one_line=True)


def test_names_from_outside_move_no_cursor() -> None:
    name = "a\x1b[2J\u202eb"
    stored = replace(STORED, flows={**STORED.flows, "user": [Flow(name, 1, 1, 1)]})
    stored = replace(stored, polled=replace(STORED.polled or Polled(0, 0, ""), error="no\x1b[2J"))
    lines = printed(stored)
    assert all(line.isprintable() for line in lines)
    assert any(line.startswith("a\\x1b[2J\\u202eb ") for line in lines)
    text = as_json(stored, one_line=True)
    assert text.isprintable()
    assert json.loads(text)["users"][0]["name"] == name
