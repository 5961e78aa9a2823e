"""Maintenance exchanges the core: what happens in which order, and what is left when it fails."""

from __future__ import annotations

import pytest

from pgnode.errors import StartFailedError, UpdateFailedError
from tests.unit.supervisor.lifecycle.stage import Stage, config_of, user


class Exchanged:
    """Does something and takes it back; says when."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.error: Exception | None = None
        self.undo_error: Exception | None = None

    async def change(self) -> None:
        self._stage.core.done.append("change")
        if self.error is not None:
            raise self.error

    async def undo(self) -> None:
        self._stage.core.done.append("undo")
        if self.undo_error is not None:
            raise self.undo_error

    async def do(self) -> bool:
        self._stage.core.done.clear()
        return await self._stage.node.exchange_core(self.change, self.undo, "core 26.12.1")


@pytest.fixture
def exchanged(stage: Stage) -> Exchanged:
    return Exchanged(stage)


async def test_the_core_ends_and_starts_around_the_change(stage: Stage, exchanged: Exchanged) -> None:
    await stage.start(config_of("a"), user("alice", "a"))
    stage.core.version_text = "26.12.1"
    assert await exchanged.do()
    assert stage.core.done == ["stop", "change", "start"]
    assert "alice" in stage.core.configs[-1]
    assert (stage.told.state, stage.told.core_run, stage.told.core_version) == ("running", 2, "26.12.1")


async def test_the_previous_core_is_restored(stage: Stage, exchanged: Exchanged) -> None:
    await stage.start(config_of("a"))
    stage.core.start_errors = [StartFailedError("exit code 1")]
    with pytest.raises(StartFailedError, match=r"^exit code 1; the previous core was restored$"):
        await exchanged.do()
    assert stage.core.done == ["stop", "change", "start", "undo", "start"]
    assert stage.told.state == "running"


async def test_a_change_that_cannot_be_made_is_taken_back(stage: Stage, exchanged: Exchanged) -> None:
    await stage.start(config_of("a"))
    exchanged.error = UpdateFailedError("read-only folder")
    with pytest.raises(StartFailedError, match=r"^read-only folder; the previous core was restored$"):
        await exchanged.do()
    assert stage.core.done == ["stop", "change", "undo", "start"]


async def test_a_change_that_cannot_be_taken_back(stage: Stage, exchanged: Exchanged) -> None:
    await stage.start(config_of("a"))
    stage.core.start_errors = [StartFailedError("exit code 1")]
    exchanged.undo_error = OSError("read-only folder")
    with pytest.raises(StartFailedError, match=r"could not be taken back: .*; the core was started all the same"):
        await exchanged.do()
    assert stage.told.state == "running"


async def test_neither_the_other_core_nor_the_previous_one_comes_up(stage: Stage, exchanged: Exchanged) -> None:
    await stage.start(config_of("a"))
    stage.core.start_errors = [StartFailedError("exit code 1"), StartFailedError("no memory")]
    with pytest.raises(StartFailedError, match=r"; the previous core did not come up either: no memory$"):
        await exchanged.do()
    assert stage.told.state == "recovering"
    await stage.pause(0.0)
    assert stage.told.state == "running"


async def test_with_nothing_to_run_only_the_change_is_made(stage: Stage, exchanged: Exchanged) -> None:
    stage.core.version_text = ""
    assert not await exchanged.do()
    assert (stage.core.done, stage.told.state) == (["change"], "idle")
    assert stage.told.core_version == "26.10.10", "a core that does not tell is no reason to forget"
    exchanged.error = UpdateFailedError("read-only folder")
    with pytest.raises(UpdateFailedError):
        await exchanged.do()


async def test_a_lingering_core_is_ended(stage: Stage, exchanged: Exchanged) -> None:
    await stage.start(config_of("a"))
    await stage.stop()
    assert not await exchanged.do()
    assert (stage.core.done, stage.told.state) == (["stop", "change"], "idle")
    assert stage.clock.pauses == []
