"""The core as a process of the supervisor: check a config, start a core, take one over, stop it. All calls end in time.

The users in the running core are not known here (:mod:`pgnode.supervisor.users.core_users`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from pgnode.errors import StartFailedError
from pgnode.os_support import oom_score
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.unix_sockets import is_served
from pgnode.supervisor.core import kept_files
from pgnode.supervisor.core.config_check import check_config
from pgnode.supervisor.core.log_files import LogFiles
from pgnode.supervisor.core.log_pump import LogPump
from pgnode.supervisor.core.read_files import ReadFiles
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.config.document import PLACEHOLDER_EMAIL, BaseConfig, render, with_api_socket
from pgnode.xray.config.log_section import LogSection
from pgnode.xray.config.ports import check_claims_in_thread, remove_stale_sockets
from pgnode.xray.process import run_folder
from pgnode.xray.process.adoption import adopt_one
from pgnode.xray.process.base import Core
from pgnode.xray.process.runner import Runner
from pgnode.xray.process.running import RunningCore
from pgnode.xray.proto.stats_command_pb2 import SysStatsResponse

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Seconds a core has to end by itself before it is killed.
STOP_SECONDS = 3.0


class _CoreEndedError(StartFailedError):
    """The core ended by itself when it was started."""


class CoreController:
    """At most one core process. Belongs to the supervisor's loop; starts and stops are made one at a time.

    Args:
        settings: Sockets, folders and time limits of the node.
        core: What the next start runs.
        pump: Reads what the core prints.
        fallback_parents: Where a folder for a core is made when the one in STATE_DIR takes no files.
        oom_score_adj: What a core gets as ``oom_score_adj``; None: what this process has.
    """

    def __init__(
        self,
        settings: Settings,
        core: Core,
        pump: LogPump,
        *,
        fallback_parents: Sequence[Path] = run_folder.FALLBACK_PARENTS,
        oom_score_adj: int | None = None,
    ) -> None:
        self._oom_score_adj = oom_score_adj
        self._fallback_parents = fallback_parents
        self._settings, self._core, self._pump = settings, core, pump
        self._running: RunningCore | None = None
        self._api: CoreApi | None = None
        #: The runner: a process that waits for the config of the next core.
        self._runner: Runner | None = None
        self._initial_stats = SysStatsResponse()
        self._known_version = ""
        #: What the running core logs by its config.
        self._log_section = LogSection()
        #: What of the log that is asked for only a new core can do; "" for nothing.
        self.waiting_log = ""
        self._ends_told_since: int | None = None
        self.files = ReadFiles(settings.run_dir, settings.assets_dir, lambda: self._core.cert_dir)

    def __repr__(self) -> str:
        return f"CoreController({self._running!r})"

    @property
    def core(self) -> Core:
        """The core that the next start runs."""
        return self._core

    def select(self, core: Core) -> None:
        """Make ``core`` the one that the next start runs. What runs now goes on."""
        self._core = core

    @property
    def known_version(self) -> str:
        """The core's version when it was asked last; "" before."""
        return self._known_version

    @property
    def running(self) -> RunningCore | None:
        """The process that runs; None where there is none."""
        return self._running

    @property
    def api(self) -> CoreApi | None:
        """The API of the process that runs; None where there is none."""
        return self._api

    @property
    def ends_told_since(self) -> int | None:
        """From which line of the ring on the core's lines say of every connection where it comes from; None: they do not."""
        return self._ends_told_since

    @property
    def initial_stats(self) -> SysStatsResponse:
        """The core's own figures at the moment when it came up."""
        return self._initial_stats

    @property
    def run_id(self) -> str:
        """Tells this core process from every other; the same for a supervisor that took it over. "" where there is none."""
        if self._running is None:
            return ""
        record = self._running.record
        return f"{record.boot_id}:{record.pid}:{record.start_ticks}"

    def matches(self, running: RunningCore) -> bool:
        """Whether a process runs the core that would be started now."""
        return running.record.core in ("", str(self._core))

    # --- before a start -----------------------------------------------------------------------------------------

    async def version(self) -> str:
        """Ask the core that would be started for its version.

        Returns:
            The version, such as "26.10.10".

        Raises:
            StartFailedError: It cannot be run.
        """
        self._known_version = await self._core.version(self._settings.core_start_timeout_seconds)
        return self._known_version

    async def check(self, base: BaseConfig, other: Core | None = None) -> None:
        """Let a core check a config, by coming up with it where it serves nobody. Nothing that runs is touched.

        Args:
            base: The config; it is checked without users.
            other: The core that checks, where it is not the one that would be started.

        Raises:
            StartFailedError: The core refuses the config; the text says which part of it, and why where the core tells.
        """
        limit = self._settings.core_start_timeout_seconds
        if other is not None:
            # Whether that one comes up is seen when it takes the place of the core that runs.
            await other.check(render(base, {}), limit)
        else:
            await check_config(self._core, base, limit)

    async def refusal(self, base: BaseConfig) -> str:
        """Try the config in a process of its own; return why it was refused, "" when it was not. Nothing that runs is touched."""
        try:
            await self._core.check(render(base, {}), self._settings.core_start_timeout_seconds)
        except StartFailedError as error:
            return error.text
        return ""

    def warm_up(self) -> None:
        """Let the process of the next core come up now. :meth:`start` takes it, :meth:`discard_runner` ends it."""
        if self._runner is None:
            self._runner = self._core.warm_up(self._settings.assets_dir)

    async def discard_runner(self) -> None:
        """End the process that was warmed up, where no core was started in it."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.discard()

    # --- start, take over, stop ---------------------------------------------------------------------------------

    async def start(self, base: BaseConfig, make_config: Callable[[], Awaitable[str]]) -> RunningCore:
        """Start a core and wait until its API answers.

        Args:
            base: The config without users.
            make_config: Makes ``base`` with its users, as JSON. Called when the process is on its way up.

        Returns:
            The process.

        Raises:
            StartFailedError: It did not come up, with its own last lines; then no core is left.
        """
        try:
            self.warm_up()
            config_json = await make_config()
            # The core of this user's that runs elsewhere would share its ports with this one, without a word.
            await check_claims_in_thread(base.claims)
            for path in await asyncio.to_thread(remove_stale_sockets, base.claims):
                log.info("removed a socket that nobody served", path=path)
            await self.files.note(base)
            self._pump.clear_tail()
            self._log_section = LogSection.of(base.document.get("log"))
            self._ends_told_since = self._pump.ring.next_number
            self.follow_logs(base)
            running = await self._spawn(base, config_json)
            self._protect(running)
            await self.files.save()
        finally:
            await self.discard_runner()
        self._pump.watch(running.log_fd)
        self._running = running
        api = self._api = CoreApi(str(running.socket_path))
        try:
            copy = asyncio.create_task(kept_files.write_copy(self._settings.generated_config_path, config_json))
            try:
                await self._wait_ready(running, api)
            finally:
                await copy
        except _CoreEndedError as error:
            await self.stop()
            # The check says what is wrong; where it finds nothing, users or addresses made the difference.
            await self.check(base)
            raise StartFailedError(error.text) from None
        except StartFailedError:
            await self.stop()
            raise
        # Stands in for the users of a Shadowsocks-2022 inbound that starts without any.
        placeholders = [
            AlterOperation(tag, PLACEHOLDER_EMAIL)
            for tag, spec in base.managed_inbounds.items()
            if spec.is_shadowsocks_2022
        ]
        await api.users.alter_many(placeholders, self._settings.core_call_timeout_seconds)
        # Now that it does what its config says; on its way up a core may print more.
        self._select(base)
        return running

    async def _spawn(self, base: BaseConfig, config_json: str) -> RunningCore:
        """Start the process, in the fallback where the folder in STATE_DIR takes no files. Raises StartFailedError."""
        folder, assets = self._settings.run_dir, self._settings.assets_dir
        runner, self._runner = self._runner, None
        digest, logs = base.base_hash, json.dumps(base.document.get("log"))
        try:
            return await self._core.spawn(config_json, folder, assets, config_hash=digest, log=logs, runner=runner)
        except OSError as error:
            first = error
        log.warning("the core's folder takes no files, trying another", folder=str(folder), error=str(first))
        try:
            fallback = await asyncio.to_thread(run_folder.make_fallback, folder, self._fallback_parents)
            config_json = await asyncio.to_thread(with_api_socket, config_json, fallback / run_folder.SOCKET_NAME)
            return await self._core.spawn(config_json, fallback, assets, config_hash=digest, log=logs)
        except OSError as error:
            raise StartFailedError(
                f"no core can be started: {folder} takes no files ({first.strerror or first}), and no other folder does "
                f"({error.strerror or error}); make room on that disk, or let this user write it"
            ) from error

    def _protect(self, running: RunningCore) -> None:
        """Let the core be the last process of the node that is ended when memory runs out: it inherited our own score."""
        if self._oom_score_adj is None:
            return
        try:
            oom_score.write_score(running.pid, self._oom_score_adj)
        except OSError as error:
            log.info("the core's oom_score_adj cannot be set", pid=running.pid, error=error.strerror)

    async def _wait_ready(self, running: RunningCore, api: CoreApi) -> None:
        """Wait until the core answers or has ended, whichever comes first."""
        limit = self._settings.core_start_timeout_seconds
        ended = asyncio.create_task(running.wait())
        ready = asyncio.create_task(api.wait_ready(limit))
        try:
            await asyncio.wait({ended, ready}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                self._pump.unwatch()
                tail = " | ".join(self._pump.tail[-3:]) or "it printed nothing"
                raise _CoreEndedError(f"the core ended with exit code {ended.result()} while starting: {tail}")
            if not ready.done():
                raise StartFailedError(f"the core did not answer within {limit:g} s")
            try:
                self._initial_stats = ready.result()
            except CoreApiError as error:
                raise StartFailedError(f"the core's API does not answer: {error}") from None
        finally:
            await end_tasks([ended, ready])

    async def adopt(self) -> RunningCore | None:
        """Take over a core that an earlier supervisor left running.

        Returns:
            The process, whose users are not known; None when there is none, or when it does not answer.
        """
        folder = self._settings.run_dir
        running = await adopt_one((folder, *run_folder.fallbacks(folder, self._fallback_parents)), STOP_SECONDS)
        if running is None:
            return None
        self._running = running
        self._log_section = _log_of(running.record.log)
        self._ends_told_since = self._pump.ring.next_number if self._log_section.tells_ends else None
        self._pump.watch(running.log_fd)
        self._api = CoreApi(str(running.socket_path))
        try:
            self._initial_stats = await self._await_adopted(running, self._api)
        except CoreApiError as error:
            log.warning("the core of an earlier run does not answer, ending it", pid=running.pid, error=str(error))
            await self.stop()
            return None
        return running

    async def _await_adopted(self, running: RunningCore, api: CoreApi) -> SysStatsResponse:
        """Return the first statistics of a core that is taken over. Raises CoreApiError: it gives none in its time."""
        first, limit = self._settings.core_call_timeout_seconds, await self._adoption_seconds(running.socket_path)
        try:
            return await api.wait_ready(first)
        except CoreApiError:
            if limit <= first:
                raise
        log.warning("the core of an earlier run does not answer, it is waited for", pid=running.pid, seconds=limit)
        return await api.wait_ready(limit - first)

    async def _adoption_seconds(self, path: Path) -> float:
        """Return how long a core has to answer whoever takes it over: one that stands still for less does not hang."""
        settings = self._settings
        if not await asyncio.to_thread(is_served, path):
            # Its folder was replaced, or it is only coming up: standing still is not what ails it.
            return settings.core_call_timeout_seconds
        return max(
            settings.core_call_timeout_seconds, settings.core_hang_seconds or settings.core_start_timeout_seconds
        )

    async def keep(self, encode: Callable[[], bytes]) -> None:
        """Write beside the core what it runs, for a supervisor that takes it over; best effort.

        Args:
            encode: Makes the content, in another thread.
        """
        if self._running is None:
            return
        await kept_files.keep(self._running.run_dir, encode)

    async def kept(self) -> bytes:
        """Read what :meth:`keep` wrote beside the core; empty where that is not possible."""
        if self._running is None:
            return b""
        return await kept_files.kept(self._running.run_dir)

    async def stop(self) -> None:
        """End the core, if there is one."""
        running, self._running = self._running, None
        api, self._api = self._api, None
        if api is not None:
            await api.aclose()
        if running is not None:
            try:
                await running.terminate(STOP_SECONDS)
            finally:
                self._pump.unwatch()
                running.close()

    async def give_up_process(self) -> None:
        """End the process of a core in an unknown state. Whoever waits for its end then starts another one."""
        if self._running is not None:
            await self._running.terminate(STOP_SECONDS)

    async def kill(self) -> None:
        """Kill the process of a core that hangs; nothing is waited for that it might still do."""
        if self._running is not None:
            await self._running.terminate(0.0)

    # --- what depends on the running config -------------------------------------------------------------------------

    def follow_logs(self, base: BaseConfig) -> None:
        """Write the log files that a config names; the node does that, so they may change while the core runs."""
        files = LogFiles.of(self._settings)
        self._pump.write_files(files.place(base.access_log_path), files.place(base.error_log_path))
        if self._api is not None:
            self._select(base)
        else:
            self._pump.select(LogSection.of(base.document.get("log")).sieve)
        self.waiting_log = self.log_waits(base)
        if self.waiting_log:
            log.warning("a part of the log waits for the next start of the core", waiting=self.waiting_log)

    def _select(self, base: BaseConfig) -> None:
        """Have lines looked at only where the core prints more than is asked for."""
        wanted = LogSection.of(base.document.get("log"))
        since = self._ends_told_since if self._ends_told_since is not None else self._pump.ring.next_number
        self._ends_told_since = since if wanted.tells_ends and self._log_section.tells_ends else None
        self._pump.select(None if wanted == self._log_section else wanted.sieve)

    def log_waits(self, base: BaseConfig) -> str:
        """Say what of a config's log only a new core can do; "" for nothing."""
        return LogSection.of(base.document.get("log")).waits(self._log_section)

    async def follow(self, base: BaseConfig, make_config: Callable[[], Awaitable[str]]) -> None:
        """Note that the running core now has this config, after a hot change.

        Args:
            base: The config without users.
            make_config: Makes ``base`` with its users, as JSON. Called only where a copy of it is kept.
        """
        self.follow_logs(base)
        if self._settings.generated_config_path is not None:
            await kept_files.write_copy(self._settings.generated_config_path, await make_config())


def _log_of(recorded: str) -> LogSection:
    """Return what a core that was found logs, by its record; an earlier version's says nothing of it."""
    try:
        return LogSection.of(json.loads(recorded))
    except ValueError:
        return LogSection()
