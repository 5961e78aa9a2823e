"""A core that is an executable: its three commands."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import psutil
import pytest

from pgnode.errors import StartFailedError
from pgnode.testing.processes import command_line
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.runner import ASSETS_VARIABLE

DEADLINE_SECONDS = 20.0


async def test_version_is_asked_for_once(executable: ExecutableCore) -> None:
    assert await executable.version(DEADLINE_SECONDS) == "26.10.10"
    executable.path.unlink()
    assert await executable.version(DEADLINE_SECONDS) == "26.10.10"


async def test_a_config_is_tried(executable: ExecutableCore) -> None:
    await executable.check("{}", DEADLINE_SECONDS)
    with pytest.raises(StartFailedError, match=r"^infra/conf: something bad$"):
        await executable.check('{"bad": 1}', DEADLINE_SECONDS)


async def test_what_is_no_xray(run_dir: Path) -> None:
    with pytest.raises(StartFailedError, match="is no Xray: 'version' ended with 1"):
        await ExecutableCore("/bin/false").version(DEADLINE_SECONDS)
    missing = ExecutableCore(run_dir / "xray")
    with pytest.raises(StartFailedError, match="cannot be run: No such file"):
        await missing.version(DEADLINE_SECONDS)
    with pytest.raises(StartFailedError, match="cannot be run: No such file"):
        await missing.spawn("{}", run_dir)
    assert os.listdir(run_dir) == []


async def test_one_that_cannot_be_watched_is_ended(
    executable: ExecutableCore, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor(_pid: int) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", no_descriptor)
    with pytest.raises(OSError, match="Too many open files"):
        await executable.spawn("{}", run_dir)
    assert not [
        child for child in psutil.Process().children() if str(executable.path) in " ".join(command_line(child).split())
    ]
    assert os.listdir(run_dir) == []


def test_names_and_commands(executable: ExecutableCore, tmp_path: Path) -> None:
    assert str(executable) == f"executable {executable.path}"
    with_assets = executable.with_assets(tmp_path)
    assert (with_assets.path, with_assets.assets_dir) == (executable.path, tmp_path)
    command, environment = with_assets.short_lived()
    assert command == [str(executable.path), "run", "-c", "stdin:"]
    assert environment[ASSETS_VARIABLE] == str(tmp_path)
    assert executable.warm_up() is None, "there is nothing to gain"
