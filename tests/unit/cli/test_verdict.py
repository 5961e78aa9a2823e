"""How a node is, judged by what was found out: a word, an exit code, and what is not well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgnode.cli.rows import Tone
from pgnode.cli.seen import Facts, SeenCertificate, SeenDisk, SeenStore
from pgnode.cli.verdict import NOT_RUNNING, NOT_WELL, WELL, exit_code_of, verdict, word_of
from pgnode.store.state import StoreSummary
from pgnode.supervisor.control.report import BusReport, CoreReport, DrainReport, ProcessReport
from tests.unit.cli.seen_node import FACTS, NOW, REPORT, said


@pytest.mark.parametrize(
    ("facts", "word", "because"),
    [
        (
            said(drain=DrainReport(away=["a"], error="in use")),
            "running",
            "inbounds are not back after a drain, and nobody new can connect there (a); it is tried again: in use",
        ),
        (
            said(drain=DrainReport(draining=True, error="busy")),
            "running",
            "not all inbounds are out of the core that a drain takes out; it is tried again: busy",
        ),
        (said(state="idle", core=CoreReport("embedded")), "waiting", ""),
        (said(state="lingering"), "stopped", ""),
        (said(state="stopping"), "stopping", ""),
        (said(state="restoring"), "starting", "the core is being started"),
        (said(state="starting"), "starting", "the core is being started"),
        (said(state="dancing"), "dancing", ""),
        (said(state="recovering", core=CoreReport(last_end="no room")), "recovering", "brought back: no room"),
        (said(state="recovering"), "recovering", "brought back: it has ended"),
        (said(state="failed"), "failed", "does not stay up and is tried again: see the log"),
        (
            said(state="failed", core=CoreReport(last_end="no room", next_try_seconds=90.0)),
            "failed",
            "the core does not stay up and is tried again in 1 min 30 s: no room",
        ),
        (said(phase="starting", step="the bus"), "starting", "the supervisor is starting, waiting for the bus"),
        (said(phase="ending"), "ending", "the supervisor is ending"),
        (
            said(unknown="the stored config ended the node twice"),
            "running",
            "a start by the panel is needed: the stored",
        ),
        (said(core=replace(REPORT.core, api_error="deadline")), "running", "the core's API does not answer: deadline"),
        (said(store_error="no room"), "running", "the store does not take changes: no room"),
        (
            said(bus=BusReport("redis://x", None, "refused")),
            "running",
            "the bus does not answer, so the API does not: refused",
        ),
        (said(processes=[ProcessReport("gunicorn")]), "running", "gunicorn does not run"),
        (said(certificate_error="swapped"), "running", "the certificate files are not taken: swapped"),
        (replace(FACTS, certificate=SeenCertificate("c.pem", error="gone")), "running", "c.pem cannot be used: gone"),
        (replace(FACTS, certificate=SeenCertificate("c.pem", NOW - 1)), "running", "the certificate has expired"),
        (replace(FACTS, disk=SeenDisk(10**9, 10**6, None)), "running", "has 1.0 MB left"),
        (replace(FACTS, disk=SeenDisk(10**9, 10**9, 5)), "running", "room for 5 files"),
    ],
)
def test_what_is_not_well_is_named(facts: Facts, word: str, because: str) -> None:
    judged = verdict(facts)
    assert judged.word == word
    assert judged.exit_code == (NOT_WELL if because else WELL)
    assert any(because in reason for reason in judged.because) is bool(because)


def test_a_node_that_is_down() -> None:
    down = replace(FACTS, pid=0, report=None, core=None, workers=[])
    judged = verdict(down)
    assert (judged.word, judged.exit_code, judged.tone, judged.because) == ("down", NOT_RUNNING, Tone.BAD, ())
    [left] = verdict(replace(FACTS, pid=0, report=None)).because
    assert left.startswith("the core (pid 900) goes on and serves users")
    twice = replace(down, store=replace(FACTS.store, held=StoreSummary(3, 0, active=True, restoring=2, core_run=7)))
    [reason] = verdict(twice).because
    assert reason.startswith("the stored config ended the node twice")
    assert verdict(replace(down, store=SeenStore("state.db", error="damaged"))).because == ("damaged",)


def test_a_node_that_hangs_is_told_from_one_that_does_not_answer() -> None:
    hung = verdict(replace(FACTS, report=None, hangs=True, silence="it did not answer within 2 s"))
    assert (hung.word, hung.exit_code, hung.tone) == ("hung", NOT_WELL, Tone.BAD)
    assert hung.because == ("the supervisor (pid 812) hangs: it did not answer within 2 s",)
    odd = verdict(replace(FACTS, report=None, silence="nobody listens"))
    assert (odd.word, odd.exit_code, odd.tone) == ("not answering", NOT_WELL, Tone.WARN)


def test_how_commands_end_that_show_what_is_stored_too() -> None:
    assert [exit_code_of(*about) for about in (("running", 5), (None, None), (None, 5))] == [
        WELL,
        NOT_RUNNING,
        NOT_WELL,
    ]
    assert [word_of(state) for state in ("idle", "lingering", "dancing")] == ["waiting", "stopped", "dancing"]
