"""The job ``update``: runs the operator's UPDATE_COMMAND, or upgrades what pip installed, and restarts in place then.

Nothing that the caller sent is passed on. The command's output goes to a file, so one that restarts this node is not ended by
that.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from pgnode.errors import UpdateFailedError
from pgnode.supervisor.maintenance.installation import Installation, find_installation
from pgnode.supervisor.maintenance.package_update import PackageUpdate, TryVersion
from pgnode.supervisor.maintenance.programs import run_program

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)


def ask_for_restart() -> None:
    """Ask this very process to restart in place, as an operator would."""
    os.kill(os.getpid(), signal.SIGUSR2)


class SelfUpdate:
    """Belongs to the supervisor's loop; one call at a time.

    Args:
        settings: The command, its time limit, and the folder for its output.
        try_version: Tries whether a version can start.
        find: Finds out how this node was installed.
        restart: Asks for a restart in place.
    """

    def __init__(
        self,
        settings: Settings,
        try_version: TryVersion,
        find: Callable[[], Installation] = find_installation,
        restart: Callable[[], None] = ask_for_restart,
    ) -> None:
        self._command = shlex.split(settings.update_command or "")
        self._limit_seconds = settings.maintenance_timeout_seconds
        self._run_dir = settings.run_dir
        self._try_version = try_version
        self._find = find
        self._restart = restart

    def __repr__(self) -> str:
        return f"SelfUpdate({self._command[:1]})"

    async def run(self, _request: dict[str, str]) -> str:
        """Do the job.

        Args:
            _request: Not used.

        Returns:
            The command's output, or what was installed.

        Raises:
            UnsupportedError: There is no command, and this installation is not upgraded by the node.
            UpdateFailedError: It cannot be done, or failed.
            DeadlineExceededError: It took too long and was killed.
        """
        return await (self._run_command() if self._command else self._upgrade())

    async def _upgrade(self) -> str:
        installation = await asyncio.to_thread(self._find)
        log.info("upgrading with pip", environment=str(installation.prefix), version=installation.version)
        update = PackageUpdate(installation, self._run_dir / "update", self._limit_seconds, self._try_version)
        version = await update.run()
        if version is None:
            return f"pgnode {installation.version} is the newest version that pip finds: nothing was changed"
        self._restart()
        return (
            f"pgnode {version} is installed in place of {installation.version}; the node restarts in place now, which "
            "disconnects nobody"
        )

    async def _run_command(self) -> str:
        output = self._run_dir / "update.log"
        log.info("running UPDATE_COMMAND", program=self._command[0], output=str(output))
        try:
            ended = await run_program(self._command, output, self._limit_seconds, name="UPDATE_COMMAND")
        except OSError as error:
            raise UpdateFailedError(
                f"UPDATE_COMMAND cannot be run: {error.strerror} ({self._command[0]}); correct UPDATE_COMMAND"
            ) from None
        if ended.code != 0:
            raise UpdateFailedError(
                f"UPDATE_COMMAND ended with exit code {ended.code}: {ended.output or 'it printed nothing'}"
            )
        return ended.output or "UPDATE_COMMAND is done; it printed nothing"
