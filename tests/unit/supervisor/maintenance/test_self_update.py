"""The operator's update command, run for real."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from pgnode.errors import DeadlineExceededError, UnsupportedError, UpdateFailedError
from pgnode.settings import load
from pgnode.supervisor.maintenance.self_update import SelfUpdate, ask_for_restart
from pgnode.supervisor.processes.restart_in_place import Trial
from tests.unit.supervisor.maintenance.stub_pip import StubPip


async def no_trial(_variables: Mapping[str, str]) -> Trial:
    return Trial("nothing is to be tried here")


def update(folder: Path, command: str | None, seconds: float = 20) -> SelfUpdate:
    settings = load(state_dir=str(folder), update_command=command, maintenance_timeout_seconds=seconds)
    settings.run_dir.mkdir(exist_ok=True)
    return SelfUpdate(settings, no_trial)


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


async def test_its_output_is_the_answer(tmp_path: Path) -> None:
    assert await update(tmp_path, python("print('done', 1 + 1)")).run({}) == "done 2"
    assert "printed nothing" in await update(tmp_path, python("")).run({})


async def test_no_shell_sees_it(tmp_path: Path) -> None:
    command = f"{python('import sys; print(sys.argv[1:])')} '$(id)' `id` ';' reboot '>x' $HOME"
    assert await update(tmp_path, command).run({}) == "['$(id)', '`id`', ';', 'reboot', '>x', '$HOME']"


async def test_without_a_command_it_says_how_to_update(tmp_path: Path) -> None:
    for command in (None, ""):
        with pytest.raises(UnsupportedError, match=r"git pull.*make install.*UPDATE_COMMAND"):
            await update(tmp_path, command).run({})


async def test_a_command_that_fails(tmp_path: Path) -> None:
    with pytest.raises(UpdateFailedError, match="exit code 3: out of luck"):
        await update(tmp_path, python("print('out of luck'); raise SystemExit(3)")).run({})
    with pytest.raises(UpdateFailedError, match="cannot be run: No such file"):
        await update(tmp_path, "/nowhere/update --now").run({})


async def test_a_command_that_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    code = "import subprocess, sys; print('begun', flush=True); "
    code += "subprocess.run([sys.executable, '-c', 'import signal; signal.pause()'])"
    with pytest.raises(DeadlineExceededError, match="not end within 1 s and was killed: begun"):
        await update(tmp_path, python(code), seconds=1).run({})


async def test_of_a_long_output_the_end_is_answered(tmp_path: Path) -> None:
    output = await update(tmp_path, python("[print(number) for number in range(100000)]")).run({})
    assert output.endswith("99999")
    assert len(output) <= 8 * 1024


async def test_what_pip_installed_is_upgraded_and_then_the_node_restarts(tmp_path: Path) -> None:
    pip, restarts = StubPip(tmp_path), list[str]()

    async def can_start(_variables: Mapping[str, str]) -> Trial:
        return Trial()

    settings = load(state_dir=str(tmp_path), maintenance_timeout_seconds=60)
    settings.run_dir.mkdir()
    job = SelfUpdate(settings, can_start, lambda: pip.installation, lambda: restarts.append("asked for"))
    pip.offers({})
    assert await job.run({}) == "pgnode 1.0 is the newest version that pip finds: nothing was changed"
    assert restarts == []
    pip.offers({"pgnode": "1.1"})
    assert "pgnode 1.1 is installed in place of 1.0; the node restarts in place now" in await job.run({})
    assert restarts == ["asked for"]


async def test_a_restart_is_asked_for_as_operators_do() -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, asked.set)
    try:
        ask_for_restart()
        async with asyncio.timeout(30):
            await asked.wait()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)
