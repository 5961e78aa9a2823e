"""What every kind of core can do: say its version, try a config, and be started.

There are two kinds: the embedded core (:mod:`pgnode.xray.process.embedded`) and an executable
(:mod:`pgnode.xray.process.executable`). A core is started in a process that outlives a supervisor that crashed; the next
supervisor takes it over (:mod:`pgnode.xray.process.adoption`).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from pgnode.os_support import pdeath
from pgnode.os_support.fault_points import async_fault_point
from pgnode.xray.process import run_folder
from pgnode.xray.process.record import CoreRecord, boot_id, start_ticks, write_record
from pgnode.xray.process.runner import ASSETS_VARIABLE, Child, Runner
from pgnode.xray.process.running import RunningCore
from pgnode.xray.process.trial import STARTED, require_accepted, run_to_end

#: Name the folder where the core looks for certificates with a relative path; the first one that is set counts.
CERTIFICATE_VARIABLES: Final = ("xray.location.cert", "XRAY_LOCATION_CERT")


class Core(ABC):
    """A kind of core. Stateless but for the version, which is asked for once."""

    kind: str
    #: Exit codes of a trial that mean "accepted".
    _accepted: frozenset[int]

    def __init__(self, assets_dir: Path | None = None) -> None:
        #: Folder of geo files, as XRAY_LOCATION_ASSET; None: the core looks where it is used to.
        self.assets_dir = assets_dir
        self._version: str | None = None

    @abstractmethod
    def with_assets(self, assets_dir: Path) -> Core:
        """Make the same core with another folder of geo files."""

    async def version(self, deadline_seconds: float) -> str:
        """Ask the core for its version, "26.10.10". Raises StartFailedError when it cannot be run."""
        if self._version is None:
            self._version = await self._ask_version(deadline_seconds)
        return self._version

    async def check(self, config_json: str, deadline_seconds: float) -> None:
        """Try whether the core accepts the config; nothing is bound.

        The embedded core gives no reasons; :mod:`pgnode.xray.process.diagnose` finds the part that is refused.

        Args:
            config_json: The whole config.
            deadline_seconds: Seconds until the core is killed.

        Raises:
            StartFailedError: It does not; the text tells why, where the core does.
        """
        code, output = await self.check_exit_code(config_json, deadline_seconds)
        require_accepted(code, output, self._accepted)

    @abstractmethod
    async def check_exit_code(self, config_json: str, deadline_seconds: float) -> tuple[int, str]:
        """Try the config in a process of its own.

        Args:
            config_json: The whole config.
            deadline_seconds: Seconds until the core is killed.

        Returns:
            The exit code and the output: 23 is refused, what is accepted differs by kind.

        Raises:
            StartFailedError: The core cannot be run, or did not answer in time.
        """

    async def rehearse(self, config_json: str, deadline_seconds: float) -> tuple[bool, int, str]:
        """Let a whole core come up with the config, and end it at once.

        Args:
            config_json: A config that :func:`pgnode.xray.process.rehearsal.rehearsal` made: it must disturb nobody.
            deadline_seconds: Seconds until it must be up.

        Returns:
            Whether it came up, the exit code, and the output.

        Raises:
            StartFailedError: The core cannot be run, or neither came up nor ended in time.
        """
        command, environment = self.short_lived()
        code, output = await run_to_end(
            pdeath.command(command), config_json, deadline_seconds, environment, stop=STARTED
        )
        return STARTED.search(output) is not None, code, output

    @abstractmethod
    def short_lived(self) -> tuple[list[str], dict[str, str]]:
        """Name command and environment of a core that reads its config from standard input and prints to its output."""

    @abstractmethod
    async def _ask_version(self, deadline_seconds: float) -> str:
        """Run the core to learn its version. Raises StartFailedError."""

    @abstractmethod
    async def _launch(self, config_json: str, fifo: Path, assets_dir: Path | None, runner: Runner | None) -> Child:
        """Start the core's process, or one that becomes the core by :meth:`_begin`. Raises StartFailedError or OSError."""

    async def _begin(self, child: Child, config_json: str, fifo: Path) -> None:  # noqa: B027 - some kinds do nothing here
        """Let the process that ``_launch`` made become the core. Raises StartFailedError."""

    @property
    def cert_dir(self) -> Path:
        """The folder where the core looks for certificates with a relative path (xray-core ``common/platform``)."""
        command, environment = self.short_lived()
        named = next((environment[name] for name in CERTIFICATE_VARIABLES if name in environment), None)
        return Path(named) if named is not None else Path(os.path.realpath(command[0])).parent

    def warm_up(self, assets_dir: Path | None = None) -> Runner | None:
        """Start a process that is ready sooner to run the core with a config that is yet to come, for :meth:`spawn`.

        Args:
            assets_dir: Folder of geo files, in place of the core's own.

        Returns:
            The process, to be given to ``spawn`` or discarded; None where there is nothing to gain.
        """
        return None

    async def spawn(
        self,
        config_json: str,
        run_dir: Path,
        assets_dir: Path | None = None,
        *,
        config_hash: str | None = None,
        log: str = "",
        runner: Runner | None = None,
    ) -> RunningCore:
        """Start a core with this config; its output goes to ``run_dir``'s FIFO.

        The folder must hold no running core (``adopt`` sees to that). Returns as soon as the process is there: whether
        it comes up is seen by its API, or by ``wait``.

        Args:
            config_json: The whole config.
            run_dir: The core's private folder.
            assets_dir: Folder of geo files, in place of the core's own.
            config_hash: Kept in the record for whoever adopts the core; by default the SHA-256 of ``config_json``.
            log: The config's ``log`` as JSON, kept in the record, too.
            runner: A process that :meth:`warm_up` made, with the same folder of geo files.

        Returns:
            The core, with a record in its folder.

        Raises:
            StartFailedError: The process cannot be started. No process is left, and the folder is clear then.
            OSError: The folder cannot be written, or the system has no room for a process. No process is left.
        """
        digest = config_hash if config_hash is not None else hashlib.sha256(config_json.encode()).hexdigest()
        child: Child | None = runner
        log_fd = -1
        try:
            log_fd = await asyncio.to_thread(run_folder.prepare, run_dir)
            fifo = run_dir / run_folder.FIFO_NAME
            child = await self._launch(config_json, fifo, assets_dir or self.assets_dir, runner)
            pid = child.pidfd.pid
            # Our own child: until we reap it, the pid is its.
            record = CoreRecord(pid, start_ticks(pid), boot_id(), digest, self.kind, str(self), log)
            await async_fault_point("core.record")
            await asyncio.to_thread(write_record, run_dir, record)
            await self._begin(child, config_json, fifo)
        except BaseException:
            if child is not None:
                await child.kill()
            if log_fd >= 0:
                os.close(log_fd)
                run_folder.clear(run_dir)
            raise
        return RunningCore(record, run_dir, child.pidfd, log_fd, child)


def core_environment(assets_dir: Path | None) -> dict[str, str]:
    """Make the environment of a core's process: our own, with the folder of geo files where one is given."""
    environment = dict(os.environ)
    if assets_dir is not None:
        environment[ASSETS_VARIABLE] = str(assets_dir)
    return environment
