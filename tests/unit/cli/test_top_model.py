"""What ``pgnode top`` knows from one look to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgnode.cli.top_model import Rates, Sample, SeenProcess, TopModel
from pgnode.supervisor.control.live_report import FlowReport, LiveReport, WorkerReport
from tests.unit.cli.seen_node import FACTS

LIVE = LiveReport(
    reading=1,
    reading_seconds=5.0,
    up=100.0,
    down=900.0,
    users=[FlowReport("alice", 1.0, 20.0, 300), FlowReport("bob", 3.0, 10.0, 500), FlowReport("carol", 2.0, 0.0, 700)],
    users_moving=3,
    inbounds=[FlowReport("VLESS", 6.0, 30.0, 1500)],
    calls=100,
    errors=1,
    workers=[WorkerReport("rest", 51, "a", 60), WorkerReport("grpc", 6, "a", 40)],
)
CORE = SeenProcess(412_000_000, 10.0, 700)


def sample(at: float, *, core: SeenProcess | None = CORE, silent: bool = False, **live: Any) -> Sample:
    return Sample(at, FACTS, None if silent else replace(LIVE, **live), core)


def test_rates_are_of_two_looks() -> None:
    model = TopModel()
    model.take(sample(10.0))
    assert (model.rates, [row.calls for row in model.workers]) == (Rates(), [None, None])
    workers = [WorkerReport("rest", 51, "a", 80), WorkerReport("rest", 52, "a", 5), WorkerReport("grpc", 6, "a", 10)]
    model.take(sample(12.0, core=replace(CORE, cpu_seconds=10.5), calls=140, errors=2, workers=workers))
    assert model.rates == Rates(20.0, 0.5, 0.25)
    assert [row.calls for row in model.workers] == [10.0, None, None], "one is new, one began anew"
    assert (list(model.down), list(model.up), list(model.calls)) == ([900.0] * 2, [100.0] * 2, [0.0, 20.0])
    assert list(model.sockets) == [700.0, 700.0]
    assert repr(model) == "TopModel(users by down, 2 looks)"


def test_a_supervisor_that_began_anew_or_is_silent_has_no_rates() -> None:
    model = TopModel()
    model.take(sample(10.0))
    model.take(sample(12.0, core=replace(CORE, cpu_seconds=0.1), calls=3))
    assert model.rates == Rates()
    model.take(sample(14.0, silent=True, core=None))
    assert (model.rates, model.workers, model.rows) == (Rates(), [], [])
    assert (model.down[-1], model.sockets[-1]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("d", ["alice", "bob", "carol"]),
        ("u", ["bob", "carol", "alice"]),
        ("t", ["carol", "bob", "alice"]),
        ("n", ["alice", "bob", "carol"]),
        ("x", ["alice", "bob", "carol"]),
    ],
)
def test_keys_sort(key: str, names: list[str]) -> None:
    model = TopModel()
    model.take(sample(1.0))
    assert not model.press(key)
    assert [flow.name for flow in model.rows] == names


def test_keys_list_pause_and_quit() -> None:
    model = TopModel(points=2)
    model.take(sample(1.0))
    assert not model.press("\t")
    assert [flow.name for flow in model.rows] == ["VLESS"]
    model.press("l")
    assert (model.listed, model.rows) == ("outbounds", [])
    model.press("\t")
    assert model.listed == "users"
    model.press("p")
    model.take(sample(2.0, down=5.0))
    assert list(model.down) == [900.0]
    model.press(" ")
    for at in (3.0, 4.0, 5.0):
        model.take(sample(at, down=at))
    assert list(model.down) == [4.0, 5.0]
    assert [model.press(key) for key in ("q", "\x1b", "\x03")] == [True, True, True]
