"""What is asked of a running supervisor is done, or refused with a reason, and it goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pgnode.bus.state import State
from pgnode.settings.difference import Difference
from pgnode.supervisor.processes.restart_in_place import RestartStatus, Trial
from pgnode.supervisor.restart_requests import BUSY, RestartRequests
from tests.support.polling import eventually

DEBUG = Difference(taken=("DEBUG",))


class Node:
    """Who has the core."""

    def __init__(self) -> None:
        self.core_lock = asyncio.Lock()
        self.states = [State.RUNNING]

    @property
    def state(self) -> State:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


class Stage:
    def __init__(self, run_dir: Path, at_rest_seconds: float = 60.0) -> None:
        self.run_dir = run_dir
        self.node = Node()
        self.trial = Trial()
        self.rereads = 0
        self.requests = RestartRequests(
            self.try_installed,
            self.node,
            self.reread,
            run_dir,
            RestartStatus(1, 0, "1.0"),
            at_rest_seconds=at_rest_seconds,
        )

    async def try_installed(self) -> Trial:
        return self.trial

    def reread(self) -> None:
        self.rereads += 1

    @property
    def status(self) -> RestartStatus:
        return RestartStatus.read(self.run_dir) or RestartStatus(0, 0, "")


@pytest.fixture
async def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_restart_is_due_when_the_core_is_at_rest(stage: Stage) -> None:
    stage.node.states = [State.LINGERING, State.RUNNING]
    stage.requests.ask_restart()
    await asyncio.wait_for(stage.requests.wait(), 30)
    assert stage.node.core_lock.locked(), "nobody begins"


async def test_a_reload_with_other_settings_is_a_restart(stage: Stage) -> None:
    stage.trial = Trial(difference=DEBUG)
    stage.requests.ask_reload()
    await asyncio.wait_for(stage.requests.wait(), 30)
    assert stage.status.changed == "taken: DEBUG"
    assert stage.rereads == 0


async def test_a_reload_without_a_difference_reads_the_file_of_gunicorn(stage: Stage) -> None:
    waiting = asyncio.create_task(stage.requests.wait())
    for count in (1, 2):
        stage.requests.ask_reload()
        await eventually(lambda: stage.status.rereads == count, "it is said")  # noqa: B023 - called at once
    assert (stage.rereads, stage.status.changed, waiting.done()) == (2, "", False)
    # Who also asks for a restart gets it.
    stage.requests.ask_reload()
    stage.requests.ask_restart()
    await asyncio.wait_for(waiting, 30)


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Trial("API_PORT=x is not allowed"), "API_PORT=x is not allowed"),
        (Trial(difference=Difference(taken=("DEBUG",), fixed=("REDIS_URL",))), "REDIS_URL cannot change"),
    ],
)
async def test_what_cannot_be_done_is_refused(stage: Stage, outcome: Trial, reason: str, reload: bool) -> None:
    stage.trial = outcome
    waiting = asyncio.create_task(stage.requests.wait())
    (stage.requests.ask_reload if reload else stage.requests.ask_restart)()
    await eventually(lambda: stage.status.refused == 1, "it is refused")
    assert reason in stage.status.reason
    assert not waiting.done()
    stage.trial = Trial(difference=DEBUG)
    stage.requests.ask_reload()
    await asyncio.wait_for(waiting, 30)


async def test_a_start_under_way_is_not_cut_short(tmp_path: Path) -> None:
    stage = Stage(tmp_path, at_rest_seconds=0.05)
    waiting = asyncio.create_task(stage.requests.wait())
    async with stage.node.core_lock:
        stage.requests.ask_restart()
        await eventually(lambda: stage.status.reason == BUSY, "it is refused")
    stage.requests.ask_restart()
    await asyncio.wait_for(waiting, 30)


async def test_it_says_that_it_is_there(stage: Stage) -> None:
    await stage.requests.say(trouble="gunicorn was not ready")
    assert stage.status == RestartStatus(1, 0, "1.0", trouble="gunicorn was not ready")
    assert "RestartRequests(" in repr(stage.requests)
