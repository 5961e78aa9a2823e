"""An Xray executable, used by three commands only: ``version``, ``run -c stdin:`` and ``run -test -c stdin:``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
from pathlib import Path
from typing import IO

from pgnode.errors import StartFailedError
from pgnode.os_support.pidfd import Pidfd
from pgnode.os_support.request_signals import kept_from_children
from pgnode.xray.process.base import Core, core_environment
from pgnode.xray.process.embedded_main import open_log
from pgnode.xray.process.runner import END_SECONDS, Child, Runner, end_child
from pgnode.xray.process.trial import last_lines, run_to_end

_VERSION = re.compile(r"\bXray (\d+\.\d+\.\d+)")


class ExecutableCore(Core):
    """An Xray executable."""

    kind = "executable"
    _accepted = frozenset({0})

    def __init__(self, path: Path | str, assets_dir: Path | None = None) -> None:
        super().__init__(assets_dir)
        self.path = Path(path)

    def __str__(self) -> str:
        return f"executable {self.path}"

    def with_assets(self, assets_dir: Path) -> ExecutableCore:
        """Make the same core with another folder of geo files."""
        return ExecutableCore(self.path, assets_dir)

    async def check_exit_code(self, config_json: str, deadline_seconds: float) -> tuple[int, str]:
        """Try the config with ``run -test``.

        Args:
            config_json: The whole config.
            deadline_seconds: Seconds until the core is killed.

        Returns:
            The exit code and the output: 0 is accepted; 23 refused, with the core's reason in the output.

        Raises:
            StartFailedError: The executable cannot be run, or did not answer in time.
        """
        command = [str(self.path), "run", "-test", "-c", "stdin:"]
        return await run_to_end(command, config_json, deadline_seconds, core_environment(self.assets_dir))

    def short_lived(self) -> tuple[list[str], dict[str, str]]:
        """Name command and environment of a core that reads its config from standard input and prints to its output."""
        return [str(self.path), "run", "-c", "stdin:"], core_environment(self.assets_dir)

    async def _ask_version(self, deadline_seconds: float) -> str:
        code, output = await run_to_end([str(self.path), "version"], "", deadline_seconds, core_environment(None))
        found = _VERSION.search(output)
        if code != 0 or found is None:
            raise StartFailedError(f"{self.path} is no Xray: 'version' ended with {code}: {last_lines(output)}")
        return found[1]

    async def _launch(self, config_json: str, fifo: Path, assets_dir: Path | None, _runner: Runner | None) -> Child:
        with await asyncio.to_thread(_in_memory, config_json) as stdin:
            process = self._popen(stdin, fifo, assets_dir)
        return await _PopenChild.of(process)

    def _popen(self, stdin: IO[bytes], fifo: Path, assets_dir: Path | None) -> subprocess.Popen[bytes]:
        log = open_log(fifo)
        try:
            with kept_from_children():
                return subprocess.Popen(
                    [str(self.path), "run", "-c", "stdin:"],
                    stdin=stdin,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=core_environment(assets_dir),
                    start_new_session=True,
                    umask=0o077,
                )
        except OSError as error:
            raise StartFailedError(f"{self.path} cannot be run: {error.strerror}") from None
        finally:
            os.close(log)


def _in_memory(text: str) -> IO[bytes]:
    """Make a file for a process to read that is on no disk: the config has to come on a full one as well."""
    file = open(os.memfd_create("core.config.json", os.MFD_CLOEXEC), "w+b")  # noqa: SIM115 - the caller closes it
    file.write(text.encode())
    file.seek(0)
    return file


class _PopenChild:
    """A process that ``subprocess`` started."""

    def __init__(self, process: subprocess.Popen[bytes], pidfd: Pidfd) -> None:
        self._process = process
        self._pidfd = pidfd

    @classmethod
    async def of(cls, process: subprocess.Popen[bytes]) -> _PopenChild:
        """Return the child of a process; one that cannot be watched is ended. Raises OSError."""
        try:
            return cls(process, Pidfd(process.pid))
        except OSError:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, END_SECONDS)
            raise

    @property
    def pidfd(self) -> Pidfd:
        """Its descriptor."""
        return self._pidfd

    def exit_code(self) -> int | None:
        """Return the exit code once the process has ended; reaps it."""
        return self._process.poll()

    async def kill(self) -> None:
        """End it at once."""
        await end_child(self)
