"""What operators may want of a drain, and what they are told."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from pgnode.supervisor.control.drain_orders import DrainOrders, drain_report
from pgnode.supervisor.control.messages import RefusedError
from pgnode.supervisor.control.report import DrainReport, decode
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, user


@pytest.fixture
async def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path)
    await made.start(config_of("a", "b"), user("alice", "a"))
    return made


def orders(stage: Stage) -> DrainOrders:
    return DrainOrders(stage.node, stage.core)


async def test_a_drain_is_begun_looked_at_and_ended(stage: Stage) -> None:
    asked = orders(stage)
    found = await asked.order({"do": "begin", "seconds": 60, "hold": True})
    report = decode(DrainReport, found["drain"])
    assert (report.draining, report.away, report.hold, report.error) == (True, ["a", "b"], True, "")
    assert report.until is not None
    assert report.since is not None
    assert report.until - report.since == 60
    assert (await asked.order({"do": "look"}))["drain"] == found["drain"]
    found = await asked.order({"do": "cancel"})
    assert (found["ended"], found["drain"]) == (True, DrainReport().encode())
    assert not (await asked.order({"do": "cancel"}))["ended"]
    assert repr(asked) == "DrainOrders(Drain(None, away: nothing))"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"do": "end"},
        {"do": "begin", "seconds": 0},
        {"do": "begin", "seconds": 367 * 86_400},
        {"do": "begin", "seconds": "1"},
        {"do": "begin", "seconds": True},
    ],
)
async def test_what_is_not_understood_changes_nothing(stage: Stage, values: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        await orders(stage).order(values)
    assert stage.node.drain.order is None


async def test_connections_are_counted_by_inbound(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    base = stage.node.core_base
    assert base is not None
    ports = {spec.tag: spec.ports[0][0] for spec in base.inbounds}
    # The fake core is no process: this one's network stands in for it.
    monkeypatch.setattr(type(stage.core.running), "pid", property(lambda _self: "self"))
    with (
        socket.create_server(("127.0.0.1", ports["a"])) as server,
        socket.create_connection(server.getsockname()),
        server.accept()[0],
    ):
        assert (await orders(stage).order({"do": "look"}))["connections"] == {"a": 1}
    await stage.stop()
    await stage.pause(1000.0)
    assert (await orders(stage).order({"do": "look"}))["connections"] == {}


async def test_those_that_stay_are_named_while_it_goes_on(stage: Stage) -> None:
    config = config_of("a").replace('"tag": "a"', '"tag": "a", "streamSettings": {"network": "grpc"}')
    await stage.start(config)
    assert drain_report(stage.node).stays == []
    await stage.node.drain.begin(None, hold=False)
    assert drain_report(stage.node).stays == ["inbound 'a' keeps listening: its connections would end with it (grpc)"]
