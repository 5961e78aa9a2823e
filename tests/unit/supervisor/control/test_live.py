"""What is said to who looks, from memory."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pgnode.bus.reports import Report
from pgnode.bus.snapshots import Polled
from pgnode.store.changes import Journal
from pgnode.supervisor.control import live
from pgnode.supervisor.control.live import LiveAnswers
from pgnode.supervisor.control.live_report import Flows, LiveReport, flows_of
from pgnode.supervisor.traffic.figures import TrafficFigures
from pgnode.supervisor.traffic.traffic_watch import BytesMoved

UP = "user>>>alice>>>traffic>>>uplink"


async def test_traffic_is_stored_before_it_is_told_of() -> None:
    calls: list[str] = []

    async def status(_values: object) -> dict[str, Any]:
        calls.append("status")
        return {"state": "running", "core": {"run": 7}}

    async def store_now() -> None:
        calls.append("stored")

    async def online_addresses() -> dict[str, int]:
        return {"alice": 2}

    collector = SimpleNamespace(
        polled=lambda: Polled(1500, 5000, ""), store_now=store_now, online_addresses=online_addresses
    )
    answers = LiveAnswers(status, cast(Any, collector), TrafficFigures(Journal()), cast(Any, None))
    said = await answers.traffic({})
    assert (said["state"], said["core_run"], said["online"], said["polled"]["age_ms"]) == (
        "running",
        7,
        {"alice": 2},
        1500,
    )
    assert calls == ["stored", "status"]


async def test_what_is_known_is_said() -> None:
    async def status(_values: object) -> dict[str, Any]:
        return {"state": "running"}

    collector = SimpleNamespace(
        polled=lambda: Polled(1500, 5000, "", counters=1), online=(3, 4), addresses_of=lambda _email: 2
    )
    workers = SimpleNamespace(
        sums=SimpleNamespace(counts={"calls/rest/GetStats/OK": 5.0}), alive=[Report(1, "rest", pid=7)]
    )
    figures = TrafficFigures(Journal())
    answers = LiveAnswers(status, cast(Any, collector), figures, cast(Any, workers))
    first = await answers.live({})
    assert first["status"] == {"state": "running"}
    assert LiveReport.decode(first["live"]).users == []
    await figures.count("1", [(UP, 700)])
    figures.watch.reading_done(2.0)
    found = LiveReport.decode((await answers.live({}))["live"])
    [user] = found.users
    assert (user.name, user.up, user.total, user.addresses) == ("alice", 350.0, 700, 2)
    assert (found.reading, found.read_seconds_ago, found.interval_seconds) == (1, 1.5, 5.0)
    assert (found.online, found.addresses, found.calls, found.workers[0].pid) == (3, 4, 5, 7)
    assert repr(answers) == "LiveAnswers(TrafficWatch(0 counters))"


async def test_those_who_move_most_are_sorted_once_a_reading_however_many_look(monkeypatch: pytest.MonkeyPatch) -> None:
    async def status(_values: object) -> dict[str, Any]:
        return {}

    sorted_readings: list[int] = []

    def flows(moved: BytesMoved, *given: Any) -> Flows:
        sorted_readings.append(moved.number)
        return flows_of(moved, *given)

    monkeypatch.setattr(live, "flows_of", flows)
    collector = SimpleNamespace(polled=lambda: Polled(1, 5000, ""), online=(0, 0), addresses_of=lambda _email: 0)
    workers = SimpleNamespace(sums=SimpleNamespace(counts={}), alive=[])
    figures = TrafficFigures(Journal())
    answers = LiveAnswers(status, cast(Any, collector), figures, cast(Any, workers))
    assert (await answers.report()).users_moving == 0
    for number in (1, 2):
        await figures.count("1", [(UP, 700 * number)])
        figures.watch.reading_done(2.0)
        looks = await asyncio.gather(*(answers.report() for _ in range(5)))
        assert {look.users[0].up for look in looks} == {350.0}
    assert sorted_readings == [1, 2]
