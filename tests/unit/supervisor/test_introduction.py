"""What a supervisor says of itself, and when it says it again."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from pgnode import __version__
from pgnode.bus.protocol import Hello
from pgnode.bus.snapshots import SUPERVISOR
from pgnode.os_support.aio import end_tasks
from pgnode.settings import Settings, load
from pgnode.settings.previous_key import PreviousKey, previous_key_file
from pgnode.supervisor.introduction import Introduction
from tests.support.polling import eventually

OLD, NEW = str(uuid.uuid4()), str(uuid.uuid4())
NOW = 1_800_000_000.0


class Bus:
    def __init__(self) -> None:
        self.said: list[Hello] = []

    async def publish(self, bodies: Mapping[str, bytes]) -> bool:
        self.said += [Hello.decode(bodies[SUPERVISOR])]
        return True


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load(state_dir=str(tmp_path), redis_url="redis://192.0.2.1")
    found.key_file.write_text(f"{OLD}\n")
    return found


async def test_digests_of_keys_are_said_and_said_again_after_a_rotation(settings: Settings) -> None:
    bus, now = Bus(), NOW
    introduction = Introduction(settings, bus.publish, now=lambda: now)
    for _ in range(2):
        await introduction.tell()
    assert bus.said == [Hello(version=__version__, key=digest(OLD))]
    until = datetime.datetime.fromtimestamp(NOW + 60, datetime.UTC)
    previous_key_file(settings).write_text(PreviousKey(OLD, until).encode())
    settings.key_file.write_text(f"{NEW}\n")
    await introduction.tell()
    assert bus.said[1:] == [
        Hello(version=__version__, key=digest(NEW), previous=digest(OLD), previous_ms=60_000),
    ]
    now += 61
    await introduction.tell()
    assert bus.said[2:] == [Hello(version=__version__, key=digest(NEW))]
    assert not any(key in hello.encode().decode() for hello in bus.said for key in (OLD, NEW))
    assert repr(introduction) == "Introduction(told)"


async def test_a_key_that_cannot_be_read_changes_nothing(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = Bus()
    introduction = Introduction(settings, bus.publish)
    await introduction.tell()
    settings.key_file.write_text("nonsense")
    for _ in range(2):
        await introduction.tell()
    assert len(bus.said) == 1
    assert capsys.readouterr().out.count("are not told of a new API key") == 1


async def test_on_a_bus_of_its_own_no_key_is_told(tmp_path: Path) -> None:
    bus = Bus()
    running = asyncio.create_task(Introduction(load(state_dir=str(tmp_path)), bus.publish, check_seconds=0.001).run())
    await eventually(lambda: bus.said, "it is said")
    await end_tasks([running])
    assert bus.said == [Hello(version=__version__)]
