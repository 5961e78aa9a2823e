"""How a node is, judged by what was found out, and what stands on the screen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgnode.cli.rows import Tone
from pgnode.cli.seen import Facts, SeenCertificate, SeenStore, SeenWorker
from pgnode.cli.status_view import as_json, head, rows
from pgnode.cli.verdict import NOT_RUNNING, NOT_WELL, WELL, verdict
from pgnode.store.state import StoreSummary
from pgnode.supervisor.control.report import (
    AloneReport,
    CoreReport,
    DrainReport,
    PanelReport,
    ProcessReport,
    UsersReport,
    WarningReport,
)
from tests.unit.cli.seen_node import FACTS, NOW, REPORT, said


def text_of(facts: Facts) -> str:
    judged = verdict(facts)
    return "\n".join(["".join(head(facts, judged)), *(f"{row.label:<10}{row.text}" for row in rows(facts, judged))])


def test_a_node_that_is_well_fits_on_a_screen() -> None:
    assert verdict(FACTS).exit_code == WELL
    assert verdict(FACTS).tone is Tone.GOOD
    assert text_of(FACTS).splitlines() == [
        "pgnode 0.6.0 · running · up 3 d 4 h · pid 812 · /var/lib/pgnode",
        "core      Xray 26.10.10 embedded, run 7, up 2 h 5 min, pid 900",
        "users     3 desired, 3 applied, 0 rejected",
        "panel     last command 2 s ago",
        "API       2 REST workers (pid 51, 52), 1 gRPC worker (pid 6)",
        "          REST 0.0.0.0:62050",
        "bus       embedded Valkey, answers in 0.3 ms",
        "store     state.db, 4.2 MB, written 3 s ago",
        "disk      12.0 GB of 40.0 GB free",
        "cert      self-signed, until 2030-03-17; names: localhost",
    ]


def test_workers_that_were_added_are_told_of() -> None:
    text = text_of(said(added_workers={"rest": 2, "grpc": -1}))
    assert "+2 REST, -1 gRPC than the settings say, until the next restart or reload" in text


def test_workers_of_other_hosts_are_told_apart() -> None:
    alone = [
        AloneReport("east", "rest", REPORT.version, True, 2),
        AloneReport("west", "grpc", "0.1", True, 1),
        AloneReport("west", "rest", "9.9", False, 1),
    ]
    text = text_of(said(alone=alone, processes=[]))
    assert (
        "API       2 REST workers on east, 1 gRPC worker on west (version 0.1), 1 REST worker on west (version 9.9, "
        in text
    )
    assert "which speaks another protocol of the bus and serves nobody" in text
    assert "no worker: start some with `pgnode worker`" in text_of(said(processes=[]))


def test_a_drain_is_told_of_and_is_well() -> None:
    drained = said(drain=DrainReport(draining=True, since=NOW, until=NOW + 60, away=["a", "b"], stays=["c stays"]))
    assert verdict(drained).exit_code == WELL
    row, away, stays = (line[10:] for line in text_of(drained).splitlines()[3:6])
    assert row.startswith("since 2027-01-15 ")
    assert row.endswith(" or a start by the panel")
    assert (away, stays) == ("no new connections on a, b", "c stays")
    held = said(drain=DrainReport(draining=True, hold=True))
    assert "drained   until pgnode drain --cancel, also over a start by the panel" in text_of(held)


def test_a_node_that_is_down_shows_what_it_stored() -> None:
    down = replace(FACTS, pid=0, report=None, core=None, workers=[])
    assert (verdict(down).word, verdict(down).exit_code, verdict(down).tone) == ("down", NOT_RUNNING, Tone.BAD)
    assert "users     3 desired, 0 rejected, as stored at 20" in text_of(down)
    assert "core      none runs" in text_of(down)
    left = replace(FACTS, pid=0, report=None)
    assert "the core (pid 900) goes on and serves users" in text_of(left)
    twice = replace(down, store=replace(FACTS.store, held=StoreSummary(3, 0, active=True, restoring=2, core_run=7)))
    assert "the stored config ended the node twice" in text_of(twice)
    damaged = replace(down, store=SeenStore("state.db", error="state.db cannot be read: the file is damaged"))
    assert "because   state.db cannot be read" in text_of(damaged)
    new = replace(
        down, store=SeenStore("state.db"), disk=None, certificate=SeenCertificate("c.pem", error="No such file")
    )
    assert "store     none yet" in text_of(new)


def test_a_node_that_hangs_is_told_from_one_that_does_not_answer() -> None:
    hung = replace(FACTS, report=None, hangs=True, silence="it did not answer within 2 s")
    assert (verdict(hung).word, verdict(hung).exit_code) == ("hung", NOT_WELL)
    assert "the supervisor (pid 812) hangs: it did not answer within 2 s" in text_of(hung)
    odd = replace(FACTS, report=None, silence="nobody listens")
    assert (verdict(odd).word, verdict(odd).tone) == ("not answering", Tone.WARN)
    assert "up 10 s" in text_of(odd)


def test_what_else_is_known_is_shown() -> None:
    facts = said(
        restarts_in_place=1,
        core=CoreReport("executable /opt/xray", "", 0, None, 7, 3, 1, "the core hung", 60.0, "", "level debug"),
        users=UsersReport(12_345, 12_000, 2, 1),
        panel=PanelReport(None, 60, away=True),
        processes=[ProcessReport("gunicorn", 5, 2), ProcessReport("valkey", 7)],
        task_failures={"logs": 2},
        store_error="no room",
        warnings=[
            WarningReport(NOW - 9, "warning", "first"),
            WarningReport(NOW - 8, "warning", "no room", 3),
            WarningReport(NOW, "error", "x"),
            WarningReport(NOW, "error", "y"),
        ],
    )
    text = text_of(replace(facts, why="the node that runs here", workers=[]))
    for line in (
        "node      the node that runs here",
        "restarted in place 1 time",
        "core      none runs (executable /opt/xray)",
        "ended by itself 3 times, 1 of them since it hung",
        "the last time: the core hung (1 min 0 s ago)",
        "waits     for the next start of the core: level debug",
        "users     12,345 desired, 12,000 applied, 2 to be removed, 1 rejected (pgnode users --failed)",
        "panel     no command since the supervisor began; away",
        "0 REST workers; started again: gunicorn 2 times",
        "does not take changes",
        "task      logs failed 2 times",
        "no room (3 times)",
    ):
        assert line in text
    assert "first" not in text
    many = replace(FACTS, workers=[SeenWorker("rest", pid, 1.0, 0, 0.0, 5) for pid in range(9)])
    assert "9 REST workers (pid 0, 1, 2, 3 …)" in text_of(many)


def test_programs_get_all_of_it() -> None:
    found = as_json(FACTS, verdict(FACTS))
    assert (found["status"], found["well"], found["because"]) == ("running", True, [])
    assert found["report"]["core"]["run"] == 7
    assert found["store"]["held"]["users"] == 3


def test_a_home_folder_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/op")
    facts = replace(FACTS, state_dir="/home/op/.local/state/pgnode")
    assert head(facts, verdict(facts))[2].endswith(" · ~/.local/state/pgnode")


def test_a_certificate_that_ends_soon_is_told() -> None:
    facts = replace(FACTS, certificate=SeenCertificate("c.pem", NOW + 86_400))
    (row,) = [row for row in rows(facts, verdict(facts)) if row.label == "cert"]
    assert (row.tone, verdict(facts).exit_code) == (Tone.WARN, WELL)
    assert row.text.endswith("; no names")
