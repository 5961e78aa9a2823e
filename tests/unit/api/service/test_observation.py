"""What monitors are told, whether the supervisor answers or not."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from pgnode.api.service.observation import SILENT, Observation
from pgnode.bus.commands import Kind
from pgnode.errors import BusUnavailableError
from tests.unit.api.fakes import FakeCommands, FakeReads, status


def own(accept: str) -> tuple[str, bytes]:
    return "own", accept.encode()


@pytest.fixture
def reads() -> FakeReads:
    return FakeReads()


@pytest.fixture
def commands() -> FakeCommands:
    return FakeCommands()


@pytest.fixture
def observation(reads: FakeReads, commands: FakeCommands) -> Observation:
    return Observation(reads, commands, own, answer_seconds=0.05)


async def test_metrics_are_the_supervisors(observation: Observation, commands: FakeCommands) -> None:
    commands.reply = b"text/x; v=1\nline\nline\n"
    found = await observation.metrics("text/x")
    assert (found.status, found.media_type, found.body) == (200, "text/x; v=1", b"line\nline\n")
    assert commands.calls == [(Kind.METRICS, b"text/x", 0.05)]


async def test_ready_or_not(observation: Observation, commands: FakeCommands) -> None:
    commands.reply = b'{"ready": true, "because": []}'
    assert (await observation.ready("")).status == 200
    commands.reply = b'{"ready": false, "because": ["x"]}'
    found = await observation.ready("")
    assert (found.status, found.body) == (503, commands.reply)


async def test_without_the_supervisor(observation: Observation, commands: FakeCommands) -> None:
    commands.error = BusUnavailableError("away")
    found = await observation.metrics("a")
    assert (found.status, found.media_type, found.body) == (200, "own", b"a")
    found = await observation.ready("")
    assert (found.status, json.loads(found.body)) == (503, {"ready": False, "because": [SILENT]})
    assert (await observation.live("")).status == 200


async def test_a_supervisor_that_hangs_is_not_waited_for(reads: FakeReads) -> None:
    class Hangs:
        async def call(self, *_: object) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

    async with asyncio.timeout(30):
        found = await Observation(reads, cast(Any, Hangs()), own, answer_seconds=0.01).metrics("")
    assert found.media_type == "own"


async def test_whether_a_core_serves(observation: Observation, reads: FakeReads) -> None:
    found = await observation.health("")
    assert (found.status, json.loads(found.body)) == (200, {"core_up": True, "state": "running"})
    reads.status = status("recovering")
    found = await observation.health("")
    assert (found.status, json.loads(found.body)) == (503, {"core_up": False, "state": "recovering"})
    reads.status = None
    assert json.loads((await observation.health("")).body)["state"] == "unknown"
    assert repr(observation) == "Observation(None)"
