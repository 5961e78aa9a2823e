"""What ``pgnode top`` draws, for screens of all sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from pgnode.cli.top_frame import frame
from pgnode.cli.top_model import Sample, TopModel
from pgnode.supervisor.control.live_report import FlowReport, LiveReport, WorkerReport
from pgnode.supervisor.control.report import DrainReport, NodeReport, WarningReport
from tests.unit.cli.seen_node import FACTS, REPORT, said
from tests.unit.cli.test_top_model import CORE, LIVE, sample


def drawn(model: TopModel, width: int = 80, height: int = 24, *, plain: bool = False) -> list[str]:
    lines = frame(model, width, height, plain=plain)
    assert len(lines) <= height
    assert all(cell_len(line.plain) <= width for line in lines), "no line is wider than the screen"
    return [line.plain.rstrip() for line in lines]


def looked(*samples: Sample) -> TopModel:
    model = TopModel()
    for one in samples:
        model.take(one)
    return model


def test_a_node_that_is_well() -> None:
    second = sample(12.0, core=replace(CORE, cpu_seconds=10.5), online=2, addresses=3, calls=140, errors=2)
    model = looked(sample(10.0), second)
    lines = drawn(model)
    assert lines[:12] == [
        "pgnode 0.6.0 · running · up 3 d 4 h · pid 812 · /var/lib/pgnode",
        "traffic                                     ██  down 900 bytes/s, up 100 bytes/s",
        "sockets                                     ██  700 of the core",
        "calls                                       ▁█  20.0/s of the API, 0.5 errors",
        "core      Xray 26.10.10 embedded · run 7 · up 2 h 5 min · 25% CPU · 412.0 MB",
        "users     3 desired, 3 applied, 0 rejected · 2 online from 3 addresses",
        "workers   rest      51     0.0/s      0 calls      0 conn   0 bytes      0 ms",
        "          grpc       6     0.0/s      0 calls               0 bytes      0 ms",
        "users                                  down▼          up       total   addresses",
        "alice                             20 bytes/s    1 byte/s   300 bytes",
        "bob                               10 bytes/s   3 bytes/s   500 bytes",
        "carol                              0 bytes/s   2 bytes/s   700 bytes",
    ]
    assert len(lines) == 24
    assert lines[-1].startswith("q quit · sort: d down")


@pytest.mark.parametrize(("away", "said"), [(["a", "b"], "a, b"), ([], "no inbound")])
def test_a_node_that_is_being_drained(away: list[str], said: str) -> None:
    report = replace(REPORT, drain=DrainReport(draining=True, away=away))
    one = sample(10.0)
    lines = drawn(looked(replace(one, facts=replace(one.facts, report=report))))
    assert f"drained   no new connections on {said}" in lines


@pytest.mark.parametrize("width", [1, 20, 40, 69, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 60])
@pytest.mark.parametrize("plain", [True, False])
def test_it_fits_on_any_screen(width: int, height: int, plain: bool) -> None:
    users = [FlowReport(f"{number:03}\x1b[2J名前" + "x" * number, 1e9, 2e12, 10**15, number) for number in range(90)]
    workers = [WorkerReport("rest", 10**6 + number, "host", 10**9, 99, 9_999, 10**9, 9.9) for number in range(16)]
    warnings = [WarningReport(1.0, level, "no room " * 50, 3) for level in ("warning", "error")]
    facts = said(warnings=warnings, store_error="no room\x1b[2J " * 30, state="failed")
    model = TopModel()
    for at in (1.0, 2.0):
        live = replace(LIVE, users=users, users_moving=90, workers=workers)
        model.take(Sample(at, facts, live, CORE))
    for _ in range(3):
        text = "\n".join(drawn(model, width, height, plain=plain))
        assert "\x1b" not in text
        assert not plain or text.isascii()
        model.press("\t")
    lines = drawn(model, 80, 24)
    assert len(lines) == 24
    shown = "\n".join(lines)
    assert "and 13 others" in shown
    assert "warnings" in shown
    assert "more" in shown
    assert "because" in shown


def test_what_is_not_known_is_said() -> None:
    assert drawn(TopModel()) == ["pgnode top: waiting for the node"]
    hung = replace(FACTS, report=None, silence="it did not answer", hangs=True)
    text = "\n".join(drawn(looked(Sample(1.0, hung, None, None))))
    for part in ("hung", "not known", "does not run", "no core runs", "of the API"):
        assert part in text, part
    down = replace(hung, pid=0)
    assert "pgnode" in drawn(looked(Sample(1.0, down, None, None)))[0]
    idle = replace(LIVE, users=[], reading=0, interval_seconds=5.0)
    text = "\n".join(drawn(looked(Sample(1.0, FACTS, idle, replace(CORE, open_files=None)))))
    assert "the core is read every 5 s" in text
    assert "nothing moved between the last two readings" in text
    assert "sockets" in text
    model = looked(Sample(1.0, FACTS, replace(LIVE, inbounds=[], inbounds_counted=False), CORE))
    model.listed = "inbounds"
    assert "not counted by this core: INBOUND_STATS=on" in "\n".join(drawn(model))
    assert "the core is not read" in "\n".join(drawn(looked(Sample(1.0, FACTS, LiveReport(read_error="x"), CORE))))


def test_a_core_that_ended_and_a_pause_are_told() -> None:
    report: NodeReport = replace(REPORT, core=replace(REPORT.core, deaths=2))
    model = looked(Sample(1.0, replace(FACTS, report=report), LIVE, CORE))
    model.press("p")
    lines = drawn(model)
    assert "ended by itself 2x" in "\n".join(lines)
    assert lines[-1].startswith("paused · q quit")
    narrow = drawn(model, 60)
    assert "addresses" not in "\n".join(narrow)
