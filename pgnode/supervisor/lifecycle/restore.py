"""A new supervisor takes over what an earlier one left: what it stored, and the core that may still run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog
from google.protobuf.message import DecodeError

from pgnode.errors import CoreUnavailableError, NodeError
from pgnode.os_support.clock import Clock
from pgnode.os_support.crash_note import CrashNote
from pgnode.os_support.fault_points import async_fault_point
from pgnode.store.changes import Journal
from pgnode.store.state import StoredState
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle.core_lifecycle import CoreLifecycle
from pgnode.supervisor.lifecycle.drain import Drain
from pgnode.supervisor.lifecycle.events import CoreFound, Found, Outcome, SupervisorStarted
from pgnode.supervisor.lifecycle.interrupted_change import InterruptedChange
from pgnode.supervisor.lifecycle.kept_spec import decode, encode
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.routing.changes import RoutingChanges
from pgnode.supervisor.routing.core_routing import CoreRouting
from pgnode.supervisor.traffic.collector import TrafficCollector
from pgnode.supervisor.users.sync import UserSync
from pgnode.wire import service_pb2 as pb

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: How often a stored config may end the node while it is brought back: by an error, or by a crash of the process.
MAX_ERRORS = 2

#: How often the node may be killed from outside meanwhile. That is nobody's fault, or that of a config which takes all memory.
MAX_KILLS = 5

#: Pause before a core that is taken over, and did not answer, is asked again.
AGAIN_SECONDS = 1.0

#: The note of a crash meanwhile, in the run folder.
CRASH_NAME = "restore.crash"

#: Is told which core was taken over, "" for none, and selects the one that has to run.
ResolveUpdate = Callable[[str], Awaitable[None]]


def _why_set_aside(errors: int, kills: int) -> str:
    """Say why a stored config is left alone; "" where it is not. Pure."""
    if errors >= MAX_ERRORS:
        return "the stored config ended the node twice"
    if kills >= MAX_KILLS:
        return f"the node was killed {kills} times in a row while it brought the stored config back"
    return ""


class Restore:
    """Done once, before anything is changed (:class:`~pgnode.supervisor.lifecycle.core_lifecycle.Hands`).

    Args:
        settings: Paths.
        lifecycle: Asks the machine.
        core: The core's process.
        users: Take over what was stored of them.
        routing: Takes over what was stored of it.
        routing_changes: Take over which of them were done.
        traffic: Reads a core whose books were lost.
        journal: Where attempts are counted.
        commit: Writes the journal to the store.
        core_lock: Held meanwhile.
        drain: Goes on where the core goes on.
        interrupted: Finishes a hot change that the earlier supervisor did not finish.
        resolve_update: Finishes a core update, or gives it up; it is told the core that was found, "" for none.
        clock: For pauses.
        crash_note: Tells a crash from a kill.
    """

    def __init__(
        self,
        settings: Settings,
        lifecycle: CoreLifecycle,
        *,
        core: CoreController,
        users: UserSync,
        routing: CoreRouting,
        routing_changes: RoutingChanges,
        traffic: TrafficCollector,
        journal: Journal,
        commit: Callable[[], Awaitable[object]],
        core_lock: asyncio.Lock,
        drain: Drain,
        interrupted: InterruptedChange,
        resolve_update: ResolveUpdate,
        clock: Clock | None = None,
        crash_note: CrashNote | None = None,
    ) -> None:
        self._resolve_update = resolve_update
        self._clock = clock if clock is not None else Clock()
        self._drain = drain
        self._interrupted = interrupted
        self._settings = settings
        self._lifecycle = lifecycle
        self._core = core
        self._users = users
        self._routing = routing
        self._routing_changes = routing_changes
        self._traffic = traffic
        self._journal = journal
        self._commit = commit
        self._core_lock = core_lock
        #: Why it is not known what has to run; "" where it is.
        self._unknown = ""
        self._stored_message = b""
        self._books_lost = False
        #: The books are of a backup.
        self._foreign_books = False
        #: Why the stored config is left alone; "" where it is not.
        self._set_aside = ""
        self._crash_note = crash_note if crash_note is not None else CrashNote(settings.run_dir / CRASH_NAME)

    def __repr__(self) -> str:
        return f"Restore({self._core!r})"

    async def restore(self, stored: StoredState) -> None:
        """Take over what was stored, and bring its core up, or take that over as well.

        Attempts are counted in the store before they are made. A config over which the supervisor ended by itself twice is left
        alone until a start brings another one. A supervisor that is killed from outside says nothing against the config, so only
        the fifth time in a row counts.
        """
        async with self._core_lock:
            # From the first moment: a job that comes meanwhile finds what was stored.
            await self._restore_counted(stored)

    async def _restore_counted(self, stored: StoredState) -> None:
        crash = await asyncio.to_thread(self._crash_note.take)
        errors, kills = stored.restore_errors, stored.restoring
        if crash:
            log.error("the supervisor before crashed while it brought the stored config back", crash=crash)
            errors, kills = errors + 1, max(0, kills - 1)
        self._set_aside = _why_set_aside(errors, kills)
        counts = stored.active and not self._set_aside
        if counts or crash:
            await self._count(errors, kills + counts)
        if counts:
            await asyncio.to_thread(self._crash_note.begin)
        try:
            await async_fault_point("restore.begun")
            await self._restore(stored)
        except asyncio.CancelledError:
            # The supervisor was told to end, which is no fault of the config.
            self._journal.meta["restoring"] = kills or None
            raise
        except Exception:
            if counts:
                await self._count(errors + 1, kills)
            raise
        finally:
            await asyncio.to_thread(self._crash_note.end)
        if counts:
            await self._count(0, 0)

    async def _count(self, errors: int, kills: int) -> None:
        self._journal.meta.update(restoring=kills or None, restore_errors=errors or None)
        await self._commit()

    async def _restore(self, stored: StoredState) -> None:
        self._drain.restore(stored.drain)
        self._users.restore(stored)
        self._routing.restore(stored)
        self._routing_changes.restore(stored)
        self._stored_message = stored.backend or b""
        self._books_lost = not stored.known
        self._foreign_books = stored.foreign_books
        self._unknown = "" if stored.known else "the store is new, or another one"
        desired = self._read(stored)
        if desired is not None:
            # Another version of the node may make another base config of the same start.
            self._routing.table.keep_for(desired.base)
        await self._lifecycle.request(SupervisorStarted(desired, stored.core_run), self)

    def _read(self, stored: StoredState) -> RunSpec | None:
        if stored.backend is None or not stored.active:
            return None
        if self._set_aside:
            self._unknown = self._set_aside
            log.error("the stored config is set aside, waiting for a start", reason=self._set_aside)
            return None
        try:
            return RunSpec.read(pb.Backend.FromString(stored.backend), self._settings)
        except (DecodeError, TypeError):
            self._unknown = "the stored config is damaged"
            log.error("the stored config is damaged, waiting for a start")
        except NodeError as error:
            self._unknown = f"the stored config cannot be used: {error.text}"
            log.error("the stored config cannot be used, waiting for a start", error=error.text)
        except Exception:
            # Whatever it is, it would be the same at every restart.
            self._unknown = "the stored config cannot be read"
            log.exception("the stored config cannot be read, waiting for a start")
        return None

    async def carry_out(self, action: do.Action) -> Outcome | None:
        """Do one step of it."""
        match action:
            case do.FindCore():
                return await self._find(action)
            case do.WatchCore(spec):
                self._lifecycle.watch_core()
                self._users.core_found()
                if spec.known:
                    await self._drain.look(spec.base)
                    self._core.follow_logs(spec.base)
                    await self._core.files.recall(spec.base)
            case do.TakeOverCore(spec):
                self._lifecycle.watch_core()
                # One that an earlier version started has nothing beside it.
                await self._core.keep(lambda: encode(spec))
                await self._bring_in_step(spec)
        return None

    async def _bring_in_step(self, spec: RunSpec) -> None:
        """Give a core that was taken over what is desired. One that stands still is asked again until that counts as a hang.

        Args:
            spec: What is desired.

        Raises:
            NodeError: It does not take it.
        """
        until = self._clock.now() + (self._settings.core_hang_seconds or self._settings.core_start_timeout_seconds)
        while True:
            try:
                await self._try_in_step(spec)
            except CoreUnavailableError as error:
                running = self._core.running
                if running is None or not running.is_running() or self._clock.now() >= until:
                    raise
                log.warning("the core of an earlier run does not answer, it is asked again", error=error.text)
                await self._clock.sleep(AGAIN_SECONDS)
            else:
                return

    async def _try_in_step(self, spec: RunSpec) -> None:
        self._routing.table.keep_for(spec.base)
        self._core.follow_logs(spec.base)
        await self._core.files.recall(spec.base)
        await self._drain.look(spec.base)
        await self._users.reconcile_all(spec.inbounds)
        await self._routing.reconcile(spec.base, listing_is_enough=False)
        await self._drain.settle()

    def _is_asked_for(self, kept: RunSpec, desired: RunSpec | None) -> bool:
        """Whether what the core runs was made of the stored start."""
        if desired is not None:
            return kept.asks_the_same(desired)
        return not self._set_aside and bool(self._stored_message) and kept.message == self._stored_message

    async def _find(self, action: do.FindCore) -> CoreFound:
        desired, unknown = action.desired, self._unknown
        running = await self._core.adopt()
        if self._foreign_books:
            if running is not None:
                # A core that does not tell its counters now is asked again, also by the next supervisor.
                await self._traffic.write_off(self._core.api, self._core.run_id, self._books_are_ours)
            else:
                self._books_are_ours()
        try:
            await self._resolve_update(running.record.core if running is not None else "")
        except Exception:
            # The core that was found is the node's or not, whatever is wrong with an update.
            log.exception("a core update that was interrupted is left as it is")
        if running is None:
            self._drain.end("no core runs: this is a new start of the node")
            # A new store without a core is a new node.
            return CoreFound(action, Found.NOTHING, unknown=unknown if self._stored_message else "")
        ours = self._core.matches(running)
        if desired is not None and ours and running.config_hash == desired.base.base_hash:
            log.info("taking over the running core of an earlier run", pid=running.pid)
            return CoreFound(action, Found.MATCHING)
        if desired is not None and ours and await self._finish_change(desired):
            log.info("taking over the running core of an earlier run, and its change", pid=running.pid)
            return CoreFound(action, Found.MATCHING)
        kept = decode(await self._core.kept(), running.config_hash, str(self._settings.core_socket))
        if ours and kept is not None and self._is_asked_for(kept, desired):
            log.warning(
                "taking over the running core of an earlier run as it is; this version makes another config of the same start, "
                "which comes with the next core that is needed anyway",
                pid=running.pid,
            )
            return CoreFound(action, Found.MATCHING, desired.as_runs(kept) if desired is not None else kept)
        if unknown:
            log.error(
                "the core of an earlier run goes on, and it is not known what has to run: start the node to put that right",
                pid=running.pid,
                reason=unknown,
            )
            if self._books_lost:
                await self._traffic.write_off(self._core.api, self._core.run_id)
            spec = kept or RunSpec.unknown(self._stored_message, running.config_hash)
            return CoreFound(action, Found.UNASKED, spec, unknown)
        why = "nothing has to run" if desired is None else "it has another config, or is another core"
        log.info(f"ending the core of an earlier run: {why}", pid=running.pid)
        return CoreFound(action, Found.OTHER)

    async def _finish_change(self, desired: RunSpec) -> bool:
        """Finish a hot change that was interrupted; return whether the core is what is desired now."""
        try:
            await self._drain.look(desired.base)
        except NodeError as error:
            log.warning("it cannot be told whether a change of the core was interrupted", error=error.text)
            return False
        return await self._interrupted.finish(desired, self._users.table)

    def _books_are_ours(self) -> None:
        """Note that the books of a backup have what the core had counted before."""
        self._journal.meta["write_off"] = None
