"""The node itself: takes commands in groups, keeps the core as desired, and brings it back when it dies.

One task changes things, the writer; a core that died is brought back by another, and both take turns by a lock. What is
desired is changed in memory, applied to the core, then stored and answered in one transaction: a 200 means that the core
has it and the store has it. What was not stored is not acknowledged, so it is delivered and done again, which changes
nothing that was done before.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from redis.asyncio.client import Pipeline

from pgnode import __version__
from pgnode.bus.commands import QUERY_KINDS, Command, Kind, Reply
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.server import CommandServer
from pgnode.bus.snapshots import BACKEND, STATE, NodeStatus, SnapshotWriter
from pgnode.errors import (
    CoreNotStartedError,
    CoreUnavailableError,
    DeadlineExceededError,
    InternalError,
    InvalidRequestError,
    NodeError,
    NotInitializedError,
    StartFailedError,
    UnsupportedError,
    UsersRefusedError,
)
from pgnode.settings import Settings
from pgnode.supervisor.core_control import CoreControl
from pgnode.supervisor.restart import GiveUp, RestartPolicy
from pgnode.supervisor.sampling import backend_stats, stats_answer
from pgnode.supervisor.states import Event, State, next_state
from pgnode.supervisor.store import Store, StoredState
from pgnode.supervisor.traffic import Traffic
from pgnode.supervisor.users import Refusal, UserTable, refusal_of
from pgnode.wire import service_pb2 as pb
from pgnode.xray.accounts import email_key
from pgnode.xray.config import BaseConfig, InboundSpec, parse_config
from pgnode.xray.core import RunningCore
from pgnode.xray.ports import check_ports_in_thread, listeners

log = structlog.get_logger(__name__)

#: Users looked at before the event loop gets its turn.
SLICE = 500

#: Pause before Redis is tried again.
BUS_PAUSE_SECONDS = 0.1

#: What a caller is told of an error that nobody expected.
INTERNAL_TEXT = "internal error while doing this call; the node's log has the details"

#: What the caller of a command is told that waited until nobody waited for it.
NOT_BEGUN = "the call waited too long and was not begun"

#: Users named in the error of one call; the panel cuts the text anyway.
REFUSALS_SHOWN = 5


@dataclass(slots=True)
class _Backend:
    """The config that shall run."""

    #: The ``Backend`` message of the start, without its users.
    message: bytes
    base: BaseConfig
    inbounds: dict[str, InboundSpec] = field(init=False)

    def __post_init__(self) -> None:
        self.inbounds = self.base.managed_inbounds


@dataclass(slots=True)
class _Change:
    """One command that changes users, on its way."""

    command: Command
    keys: set[str] = field(default_factory=set)
    refusals: list[Refusal] = field(default_factory=list)


@dataclass(slots=True)
class _Applied:
    """What became of an attempt to make the core have some users as desired."""

    refused: dict[str, Refusal] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)
    #: Why some were not answered.
    error: NodeError | None = None


class Node:
    """Owns the desired state. Everything in it belongs to the supervisor's event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        core: CoreControl,
        store: Store,
        server: CommandServer,
        snapshots: SnapshotWriter,
        traffic: Traffic,
    ) -> None:
        self._settings = settings
        self._core = core
        self._store = store
        self._server = server
        self._snapshots = snapshots
        self._traffic = traffic
        self._writes: asyncio.Queue[Command] = asyncio.Queue()
        self._queries: asyncio.Queue[Command] = asyncio.Queue()
        #: Held by whoever starts, stops or changes the core.
        self._turn = asyncio.Lock()
        self._policy = RestartPolicy()
        self._watcher: asyncio.Task[None] | None = None
        self._backend: _Backend | None = None
        self._backend_unstored = False
        self._refill = False
        self.users = UserTable()
        self.state = State.IDLE
        self.generation = 0
        self.core_run = 0
        #: Core run whose first figures were published.
        self._introduced_run = 0
        self.core_version = ""
        self.core_api_error = ""

    def __repr__(self) -> str:
        return f"Node({self.state}, generation {self.generation}, {self.users!r})"

    # --- life ---------------------------------------------------------------------------------------------------

    async def restore(self, stored: StoredState) -> None:
        """Take over what an earlier supervisor left, and bring its core up (or take it over)."""
        self.generation, self.core_run = stored.generation, stored.core_run
        self.users.restore(stored.users)
        self._traffic.restore(stored.ledger)
        backend: _Backend | None = None
        if stored.backend is not None and stored.active:
            try:
                backend = self._parse(pb.Backend.FromString(stored.backend), stored.backend)
            except NodeError as error:
                log.error("the stored config cannot be used, waiting for a start", error=error.text)
        async with self._turn:
            running = await self._core.adopt()
            if backend is None:
                if running is not None:
                    log.info("ending the core of an earlier run: nothing shall run", pid=running.pid)
                    await self._core.stop()
                await self._publish_state()
                return
            self._go(Event.START_REQUESTED)
            self._backend = backend
            await self._publish_state()
            try:
                if running is not None and running.config_hash == backend.base.base_hash:
                    log.info("taking over the running core of an earlier run", pid=running.pid)
                    self._watch(running)
                    await self._reconcile_all()
                else:
                    if running is not None:
                        log.info("ending the core of an earlier run: it has another config", pid=running.pid)
                        await self._core.stop()
                    await self._start_core(backend)
                self._go(Event.CORE_READY)
            except NodeError as error:
                await self._bring_back_later(None, error.text, Event.CORE_DIED)
            await self._commit(())
            await self._publish_state()

    async def shut_down(self) -> None:
        """End the core with the node, after a last look at its counters; the state stays desired."""
        async with self._turn:
            if self._watcher is not None:
                self._watcher.cancel()
            await self._traffic.poll(self._core.api, self._core.run_id)
            await self._core.stop()

    def _go(self, event: Event) -> None:
        before, self.state = self.state, next_state(self.state, event)
        if before is not self.state:
            log.info("node state", before=str(before), because=str(event), state=str(self.state))

    def status(self) -> NodeStatus:
        return NodeStatus(
            state=self.state,
            core_ready=self.state is State.RUNNING and not self.core_api_error,
            core_version=self.core_version,
            node_version=__version__,
            core_api_error=self.core_api_error,
            core_run=self.core_run,
            generation=self.generation,
        )

    async def _publish_state(self) -> None:
        pipe = self._store.pipeline()
        self._snapshots.put(pipe, STATE, self.status().encode())
        try:
            await pipe.execute()
        except BUS_ERRORS as error:
            log.warning("state not published", error=str(error))

    async def core_api_answered(self, error: str) -> None:
        """What the last look at the core's API said: "" when it answered."""
        if error != self.core_api_error:
            self.core_api_error = error
            if error:
                log.warning("the core's API does not answer", error=error)
            else:
                log.info("the core's API answers again")
            await self._publish_state()

    # --- commands -----------------------------------------------------------------------------------------------

    async def read_commands(self) -> None:
        """Take commands from the bus until cancelled; nothing is done here, only sorted."""
        away = False
        while True:
            try:
                commands = await self._server.take()
                if away or self._refill:
                    await self._fill_store()
                    log.info("the store is back")
                away = False
            except BUS_ERRORS as error:
                if not away:
                    log.warning("the store is away", error=str(error))
                away = True
                self._server.lost_connection()
                await asyncio.sleep(BUS_PAUSE_SECONDS)
                continue
            for command in commands:
                (self._queries if command.kind in QUERY_KINDS else self._writes).put_nowait(command)

    async def answer_queries(self) -> None:
        """Answer what only reads, or books what was read; never behind a change."""
        while True:
            group = await _all_waiting(self._queries)
            taken: list[tuple[str, int]] = []
            answers = [(command, await self._guarded(command, self._take_stats(command, taken))) for command in group]
            if not await self._commit(answers):
                # Nobody got it: it is owed as before.
                self._traffic.give_back(taken)

    async def _take_stats(self, command: Command, taken: list[tuple[str, int]]) -> bytes:
        if self._server.expired(command):
            raise DeadlineExceededError(NOT_BEGUN)
        self._require_backend()
        if self.state is not State.RUNNING:
            raise CoreNotStartedError
        error = await self._traffic.poll(self._core.api, self._core.run_id)
        if error:
            raise CoreUnavailableError(f"failed to get stats: {error}")
        owed = self._traffic.take(pb.StatRequest.FromString(command.body))
        taken += owed
        return stats_answer(owed).SerializeToString()

    async def write(self) -> None:
        """Do what changes something, in the order in which it came, in groups."""
        while True:
            for batch in _batches(await _all_waiting(self._writes)):
                async with self._turn:
                    answers = await self._do(batch)
                    await self._commit(answers)

    async def _do(self, batch: Sequence[Command]) -> list[tuple[Command, Reply]]:
        answers: list[tuple[Command, Reply]] = []
        live = []
        for command in batch:
            if self._server.expired(command):
                # Nobody waits for it any more, and whoever sent it was told that it failed.
                answers.append((command, Reply(error=DeadlineExceededError(NOT_BEGUN))))
            else:
                live.append(command)
        if live and live[0].kind in (Kind.START, Kind.STOP):
            [command] = live
            work = self._start(command) if command.kind is Kind.START else self._stop()
            answers.append((command, await self._guarded(command, work)))
        elif live:
            answers += await self._guarded_sync(live)
        return answers

    async def _guarded_sync(self, commands: Sequence[Command]) -> list[tuple[Command, Reply]]:
        """A fault in one batch ends that batch, not the node: it would be delivered to the next one again."""
        try:
            return await self._sync(commands)
        except Exception:
            log.exception("changes of users failed", commands=[repr(command) for command in commands[:5]])
            # What was taken in is desired from now on; whatever the core has of it is looked at again.
            self.users.core_uncertain(self.users.differing(self.users.all_known()))
            return [(command, Reply(error=InternalError(INTERNAL_TEXT))) for command in commands]

    async def _guarded(self, command: Command, work: Coroutine[Any, Any, bytes]) -> Reply:
        try:
            return Reply(body=await work)
        except NodeError as error:
            return Reply(error=error)
        except Exception:
            log.exception("command failed", command=repr(command))
            return Reply(error=InternalError(INTERNAL_TEXT))

    async def _commit(self, answers: Sequence[tuple[Command, Reply]]) -> bool:
        """Store what changed and answer, in one transaction; returns whether that was done."""
        pipe = self._store.pipeline()
        unstored, self.users.unstored = self.users.unstored, set()
        backend_unstored, self._backend_unstored = self._backend_unstored, False
        ledger = self._traffic.ledger.take_unstored() if any(c.kind in QUERY_KINDS for c, _ in answers) else {}
        self._store.put_users(pipe, {key: self.users.get(key) for key in unstored})
        self._store.put_ledger(pipe, ledger)
        if unstored or backend_unstored:
            self.generation += 1
            if backend_unstored:
                self._put_backend(pipe)
            else:
                self._store.put_generation(pipe, self.generation)
            self._snapshots.put(pipe, STATE, self.status().encode())
            if self._core.running is not None and self._introduced_run != self.core_run:
                self._introduced_run = self.core_run
                # Nobody who was told that the core runs shall hear that nothing is known of it.
                self._snapshots.put(pipe, BACKEND, backend_stats(self._core.first_stats).SerializeToString())
        self._server.answer(pipe, answers)
        try:
            await pipe.execute()
        except BUS_ERRORS as error:
            log.warning("not stored, will be done again", commands=len(answers), error=str(error))
            self.users.unstored |= unstored
            self._backend_unstored |= backend_unstored
            self._traffic.ledger.put_back_unstored(ledger)
            self._refill = True
            self._server.lost_connection()
            return False
        finally:
            self._server.release(command for command, _ in answers)
        return True

    def _put_backend(self, pipe: Pipeline) -> None:
        self._store.put_backend(
            pipe,
            backend=self._backend.message if self._backend is not None else None,
            active=self._backend is not None,
            generation=self.generation,
            core_run=self.core_run,
        )

    async def _fill_store(self) -> None:
        """After Redis was away: write what it misses; everything, when it came back empty or old."""
        async with self._turn:
            pipe = self._store.pipeline()
            stored = await self._store.generation()
            if stored != self.generation:
                if stored is None:
                    log.warning("the store came back empty, filling it again", users=len(self.users))
                self._store.clear_users(pipe)
                self._store.put_users(pipe, dict(self.users.items()))
                self._traffic.ledger.mark_all_unstored()
                self._put_backend(pipe)
            else:
                self._store.put_users(pipe, {key: self.users.get(key) for key in self.users.unstored})
            ledger = self._traffic.ledger.take_unstored()
            self._store.put_ledger(pipe, ledger)
            self._snapshots.put(pipe, STATE, self.status().encode())
            self._snapshots.put_all(pipe)
            try:
                await pipe.execute()
            except BUS_ERRORS:
                self._traffic.ledger.put_back_unstored(ledger)
                raise
            self.users.unstored = set()
            self._backend_unstored = False
            self._refill = False

    def _require_backend(self) -> _Backend:
        if self._backend is None or self.state in (State.IDLE, State.FAILED):
            raise NotInitializedError
        return self._backend

    # --- start and stop -----------------------------------------------------------------------------------------

    def _parse(self, backend: pb.Backend, message: bytes) -> _Backend:
        base = parse_config(
            backend.config,
            exclude_inbounds=frozenset(backend.exclude_inbounds),
            api_socket=str(self._settings.core_socket),
            assets_dir=self._settings.assets_dir,
        )
        return _Backend(message, base)

    async def _start(self, command: Command) -> bytes:
        """``/start``: the same base config means that users are reconciled, another one means a new core."""
        request = pb.Backend.FromString(command.body)
        if request.type != pb.XRAY:
            raise UnsupportedError("this node runs the Xray core only; type must be XRAY")
        if not request.config:
            raise InvalidRequestError("config is empty: send a whole Xray config as JSON")
        users = list(request.users)
        del request.users[:]
        new = self._parse(request, request.SerializeToString())
        for warning in new.base.warnings:
            log.warning("config", warning=warning)

        old = self._backend
        if self.state is State.RUNNING and old is not None and _same_core(old, new):
            log.info("start: the base config is the running one, the core stays", users=len(users))
            self._backend = new
            refusals = await self._replace_users(users, new)
            applied = await self._apply(self.users.all_known())
            refusals += applied.refused.values()
            if applied.error is not None:
                raise applied.error
        else:
            await self._check(new)
            # From here on something that runs is touched.
            previous = dict(self.users.items())
            # A config that did not stay up is nothing to come back to.
            fallback = old if self.state is not State.FAILED else None
            self._go(Event.START_REQUESTED)
            refusals = await self._replace_users(users, new)
            self._policy.reset()
            await self._replace_core(fallback, new, previous)
        self._backend_unstored = True
        if refusals:
            log.warning("start: users left out", count=len(refusals), first=str(refusals[0]))
        return self.base_info().SerializeToString()

    async def _check(self, new: _Backend) -> None:
        """Everything that can be known about a config before anything that runs is touched."""
        held = self._backend.base.inbounds if self._core.running is not None and self._backend is not None else ()
        await check_ports_in_thread(new.base.inbounds, {listener for spec in held for listener in listeners(spec)})
        await self._core.check(new.base)

    async def _replace_core(self, old: _Backend | None, new: _Backend, previous: dict[str, bytes]) -> None:
        """End the running core and start one with ``new``; bring ``old`` back when that one does not come up."""
        was_running = self._core.running is not None
        log.info("start: a new core", reason="the base config changed" if was_running else "no core runs")
        self._backend = new
        await self._end_core()
        try:
            await self._start_core(new)
        except NodeError as error:
            self.users = _table_of(previous, self.users)
            self._backend = old
            if old is None:
                self._go(Event.START_FAILED)
                self._backend_unstored = True
                raise
            log.warning("start: the new core did not come up, bringing the old one back", error=error.text)
            try:
                await self._start_core(old)
            except NodeError as second:
                await self._bring_back_later(None, second.text, Event.CORE_DIED)
                raise StartFailedError(
                    f"{error.text}; and the previous config did not come up either: {second.text}"
                ) from None
            self._go(Event.CORE_READY)
            raise StartFailedError(f"{error.text}; the previous config runs again") from None
        self._go(Event.CORE_READY)

    async def _start_core(self, backend: _Backend) -> None:
        running = await self._core.start(backend.base, self.users, backend.inbounds)
        self.core_run += 1
        self.core_api_error = ""
        self._backend_unstored = True
        log.info("core started", pid=running.pid, run=self.core_run, users=len(self.users))
        self._watch(running)

    async def _end_core(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        if self._core.running is not None:
            await self._traffic.poll(self._core.api, self._core.run_id)
        await self._core.stop()

    async def _stop(self) -> bytes:
        if self.state is not State.IDLE:
            self._go(Event.STOP_REQUESTED)
            await self._end_core()
            self._backend = None
            self._backend_unstored = True
            self._go(Event.CORE_STOPPED)
        return b""

    def base_info(self) -> pb.BaseInfoResponse:
        running = self.state is State.RUNNING
        return pb.BaseInfoResponse(
            started=running,
            core_version=self.core_version,
            node_version=__version__,
            version=__version__,
            core_type="xray",
            running=running,
        )

    # --- users --------------------------------------------------------------------------------------------------

    async def _sync(self, commands: Sequence[Command]) -> list[tuple[Command, Reply]]:
        """User changes of many callers as one: merged by e-mail, applied, each caller gets its own answer."""
        try:
            backend = self._require_backend()
            if self.state is not State.RUNNING:
                raise CoreNotStartedError
        except NodeError as error:
            return [(command, Reply(error=error)) for command in commands]
        changes = [_Change(command) for command in commands]
        bad: dict[str, InvalidRequestError] = {}
        for change in changes:
            try:
                await self._take_in(change, backend)
            except InvalidRequestError as error:
                bad[change.command.id] = error
        touched = set().union(*(change.keys for change in changes))
        applied = await self._apply(touched)
        return [(change.command, self._answer(change, bad.get(change.command.id), applied)) for change in changes]

    @staticmethod
    def _answer(change: _Change, bad: InvalidRequestError | None, applied: _Applied) -> Reply:
        if bad is not None:
            return Reply(error=bad)
        refusals = change.refusals + [applied.refused[key] for key in change.keys & applied.refused.keys()]
        if refusals:
            shown = "; ".join(str(refusal) for refusal in refusals[:REFUSALS_SHOWN])
            more = f"; and {len(refusals) - REFUSALS_SHOWN} more" if len(refusals) > REFUSALS_SHOWN else ""
            return Reply(error=UsersRefusedError(f"failed to update users: {shown}{more}"))
        if applied.error is not None and not change.keys.isdisjoint(applied.unanswered):
            return Reply(error=applied.error)
        return Reply()

    async def _take_in(self, change: _Change, backend: _Backend) -> None:
        """Make what one command says the desired state; unusable users are left as they were."""
        command = change.command
        if command.kind is Kind.SYNC_USER:
            user = pb.User.FromString(command.body)
            refusal = self._take_user(user, change.keys, backend)
            if refusal is not None:
                # One caller, one user: the request itself is wrong.
                raise InvalidRequestError(f"{refusal.cause} (user {refusal.email!r})")
            return
        users = await asyncio.to_thread(pb.Users.FromString, command.body)
        if command.kind is Kind.SYNC_USERS:
            change.refusals += await self._replace_users(users.users, backend, change.keys)
        else:
            change.refusals += await self._take_users(users.users, backend, change.keys)

    def _take_user(self, user: pb.User, keys: set[str], backend: _Backend) -> Refusal | None:
        key = email_key(user.email)
        raw = user.SerializeToString(deterministic=True) if user.inbounds else None
        if raw is None or self.users.get(key) != raw:
            refusal = refusal_of(user, backend.inbounds) if raw is not None or not user.email else None
            if refusal is not None:
                return refusal
            self.users.put(key, raw)
        keys.add(key)
        return None

    async def _take_users(self, users: Sequence[pb.User], backend: _Backend, keys: set[str]) -> list[Refusal]:
        refusals = []
        spelled: dict[str, str] = {}
        for number, user in enumerate(users):
            first = spelled.setdefault(email_key(user.email), user.email)
            refusal = (
                self._take_user(user, keys, backend)
                if first == user.email
                else Refusal(user.email, f"differs only in case from {first!r}, which the core takes for the same user")
            )
            if refusal is not None:
                refusals.append(refusal)
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        return refusals

    async def _replace_users(
        self, users: Sequence[pb.User], backend: _Backend, keys: set[str] | None = None
    ) -> list[Refusal]:
        """The set becomes exactly ``users``; those that cannot be applied stay as they were."""
        named = keys if keys is not None else set()
        refusals = await self._take_users(users, backend, named)
        kept = named | {email_key(refusal.email) for refusal in refusals}
        for key in self.users.keys() - kept:
            self.users.put(key, None)
            named.add(key)
        return refusals

    async def _apply(self, keys: Iterable[str]) -> _Applied:
        """Make the core have ``keys`` as desired."""
        applied = _Applied()
        backend = self._require_backend()
        differing = self.users.differing(keys)
        if not differing:
            return applied
        plans = self.users.plan(differing, backend.inbounds)
        if plans:
            ways = [f"{plan.tag}: {plan.calls} {'swapped' if plan.swap else 'altered'}" for plan in plans]
            log.debug("applying users", users=len(differing), inbounds=ways)
        outcome = await self._core.apply(plans, self.users, backend.inbounds)
        self.users.core_has(set(differing) - outcome.refused.keys() - outcome.unanswered)
        self.users.core_uncertain(outcome.refused.keys() | outcome.unanswered)
        for key, cause in outcome.refused.items():
            raw = self.users.get(key)
            refusal = applied.refused[key] = Refusal(pb.User.FromString(raw).email if raw is not None else key, cause)
            self.users.put(key, None)
            log.warning("the core refuses a user", user=refusal.email, cause=cause)
        applied.unanswered = outcome.unanswered
        if outcome.unanswered:
            applied.error = CoreUnavailableError(f"the core did not take all users: {outcome.error}")
        return applied

    async def _reconcile_all(self) -> None:
        """After taking over a core of which nothing is known: remove strangers, then bring everybody in."""
        backend = self._require_backend()
        api = self._core.api
        if api is None:
            raise CoreNotStartedError
        await self._core.remove_strangers(self.users, backend.inbounds)
        self.users.core_has_nothing_certain()
        applied = await self._apply(self.users.all_known())
        if applied.error is not None:
            raise applied.error

    # --- a core that died ---------------------------------------------------------------------------------------

    def _watch(self, running: RunningCore) -> None:
        if self._watcher is not None and self._watcher is not asyncio.current_task():
            self._watcher.cancel()
        self._watcher = asyncio.create_task(self._bring_back_when_dead(running))

    async def _bring_back_when_dead(self, running: RunningCore) -> None:
        code = await running.wait()
        async with self._turn:
            if self._core.running is not running:
                return
            await self._core.stop()
            await self._bring_back_later(code, f"the core ended with exit code {code}", Event.CORE_DIED)
            await self._publish_state()

    async def _bring_back_later(self, code: int | None, reason: str, event: Event) -> None:
        """Decide about a core that is not there but should be; called with the turn held."""
        self._go(event)
        decision = self._policy.died(asyncio.get_running_loop().time(), code, random.random())  # noqa: S311 - jitter
        if isinstance(decision, GiveUp):
            log.error("the core is given up; a new start is needed", reason=reason, why=decision.reason)
            self._go(Event.GAVE_UP)
            return
        log.warning("bringing the core back", reason=reason, pause_seconds=round(decision.delay_seconds, 2))
        self._watcher = asyncio.create_task(self._bring_back(decision.delay_seconds))

    async def _bring_back(self, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        async with self._turn:
            if self.state is not State.RECOVERING or self._backend is None:
                return
            try:
                await self._start_core(self._backend)
                self._go(Event.CORE_READY)
            except NodeError as error:
                await self._bring_back_later(None, error.text, Event.CORE_DIED)
            await self._commit(())


async def _all_waiting(queue: asyncio.Queue[Command]) -> list[Command]:
    """Everything that waits, at least one."""
    group = [await queue.get()]
    while not queue.empty():
        group.append(queue.get_nowait())
    return group


def _batches(group: Sequence[Command]) -> list[list[Command]]:
    """Runs of single and chunked syncs together; start, stop and full sets are barriers, each alone."""
    batches: list[list[Command]] = []
    together = False
    for command in group:
        mergeable = command.kind in (Kind.SYNC_USER, Kind.SYNC_CHUNKED)
        if mergeable and together:
            batches[-1].append(command)
        else:
            batches.append([command])
        together = mergeable
    return batches


def _same_core(old: _Backend, new: _Backend) -> bool:
    """Whether the core that runs ``old`` needs nothing but its users changed to run ``new``."""
    return old.base.base_hash == new.base.base_hash and old.inbounds == new.inbounds


def _table_of(desired: dict[str, bytes], now: UserTable) -> UserTable:
    """The users as they were before a start that failed; what differs goes to the store again."""
    table = UserTable()
    table.restore(desired)
    table.unstored = (now.keys() | desired.keys()) if now.unstored else set()
    return table
